"""Steps of pools: candidates and targets in shards on disk, and their embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.config.schemas import Chunking, TaskLimits
from gotd.data.base import PinnedPart
from gotd.data.columns import BadName, Columns
from gotd.data.inputs import File, InMemory, Part
from gotd.data.kept import write_readable
from gotd.data.pool import (
    SHARD_BYTES,
    open_pool,
    pool_facts,
    shard_files,
    write_pool,
)
from gotd.data.pool_tasks import count_readings, write_pool_in_tasks
from gotd.data.sampling import at_most
from gotd.data.sizes import CHARS_PER_TOKEN, chunk_tokens
from gotd.data.text_alone import numbered, report_numbered
from gotd.embedding.embed import embed_shards
from gotd.embedding.encoders import Encoder, FittedEncoder
from gotd.engine.local import THIS_PROCESS, Engine, LocalEngine
from gotd.storage import progress
from gotd.storage.artifacts import WORK, Step
from gotd.storage.files import write_json
from gotd.storage.keys import key_fields
from gotd.storage.work import Work


def pool(
    role: str,
    parts: Sequence[Part],
    chunking: Chunking,
    columns: Columns | None = None,
    count: Callable[[], int] | None = None,
    tokens: float | None = None,
    engine: Engine = THIS_PROCESS,
) -> Step:
    """Cut rows into chunks with unique ids, in shards.

    Args:
        role: ``candidates`` or ``target``.
        parts: Files, data sets or tables, in order.
        chunking: How rows become chunks.
        columns: The columns that are read.
        count: Returns the expected rows, where they can be known before anything is read.
        tokens: Expected tokens of a chunk; ``None``: by its length.
        engine: Reads files, and row groups of one, at once if it has other processes and all
            parts are files. Else they are read here, one by one: threads would not be faster.
    """

    def parameters() -> dict[str, Any]:
        return {
            "parts": [part.identity() for part in parts],
            "columns": key_fields(columns or Columns()),
            **_chunks(chunking),
        }

    stated = parameters()
    are_files = all(isinstance(part, File) for part in parts)
    in_tasks = None if isinstance(engine, LocalEngine) or not are_files else engine

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        pinned = [PinnedPart(*one) for one in zip(parts, stated["parts"], strict=True)]
        try:
            if role == "target":
                _write_texts(pinned, folder, chunking)
            elif in_tasks is not None and count_readings(pinned, chunking) > 1:
                write_pool_in_tasks(pinned, folder, chunking, in_tasks)
            else:
                write_pool(pinned, folder, chunking)
        except ValueError:  # these bytes are refused each time, and repaired ones have another key
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def work() -> Work:
        assert count is not None
        return _pool_work(count(), tokens or chunk_tokens(chunking))

    # 3: texts of invisible characters alone are blank
    return Step("pool", 3, role, stated, build, work=work if count else None, again=parameters)


NUMBERED = "numbered.json"
"""Marks in `WORK` that rows are numbered, so that a run that was killed goes on like that."""


def _write_texts(parts: Sequence[Part], folder: Path, chunking: Chunking) -> None:
    """Write a pool whose ids and domains are used only if they can be."""
    mark = folder / WORK / NUMBERED
    if not mark.exists():
        try:
            write_pool(parts, folder, chunking)
            return
        except BadName as error:
            report_numbered(error)
        for file in [*folder.glob("rows-*"), *(folder / WORK).glob("rows-*")]:
            file.unlink()
        write_json(mark, {})
    write_pool(numbered(parts), folder, chunking)


def target(
    rows: Step, chunking: Chunking, limits: TaskLimits, protocol: str, side: str = "train"
) -> Step:
    """Cut the training texts of a task, without their labels, into chunks.

    Args:
        rows: The task's rows.
        chunking: How texts become chunks.
        limits: How many texts to take, by a hash of their ids.
        protocol: ``clean`` or ``published``.
        side: File of ``rows`` with the texts; ``negative`` holds those to move away from.
    """
    separator = "" if protocol == "published" else " "  # Deviation D7

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        texts = pq.read_table(inputs["rows"] / f"{side}.parquet")
        # Not the first ones: files are often sorted by label.
        texts = at_most(texts, limits.target_rows, "target")
        joined = [
            first if second is None else f"{first} {second}"
            for first, second in zip(
                texts["text"].to_pylist(), texts["text_pair"].to_pylist(), strict=True
            )
        ]
        documents = pa.table({"id": texts["id"], "text": joined, "domain": texts["domain"]})
        write_pool([InMemory(documents, rows.name, Columns())], folder, chunking, separator)

    def work() -> Work:
        texts, tokens = rows.stated.rows, rows.stated.tokens
        texts = min(texts, limits.target_rows or texts)
        if chunking.unit == "whole":
            return _pool_work(texts, tokens)
        # Short texts are joined.
        joined = min(1.0, tokens / chunk_tokens(chunking))
        return _pool_work(max(1.0, texts * joined), chunk_tokens(chunking))

    parameters = {
        **_chunks(chunking),
        "target_rows": limits.target_rows,
        "separator": separator,
        "side": side,
    }
    return Step("target", 2, rows.name, parameters, build, {"rows": rows}, work)


def fitted_encoder(
    encoder: FittedEncoder, pools: Mapping[str, Step], length_chars: int | None = None
) -> Step:
    """Fit an encoder on a sample of the pool, with the target if it says so.

    Args:
        encoder: The encoder.
        pools: The steps ``target`` and ``candidates``.
        length_chars: Characters of each text that are read; ``None``: all.
    """
    sides = ("candidates",) if encoder.fitted_on == "pool" else ("candidates", "target")

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        encoder.fit([open_pool(inputs[side]) for side in sides], folder, length_chars)

    return Step(
        kind="fitted_encoder",
        version=1,
        name=f"{encoder.name}-{pools[sides[-1]].name}",
        parameters={"encoder": encoder.identity(), "length_chars": length_chars},
        build=build,
        inputs={side: pools[side] for side in sides},
        work=lambda: _fitting_work(encoder, [pools[side] for side in sides]),
    )


def _fitting_work(encoder: FittedEncoder, pools: Sequence[Step]) -> Work:
    rows = sum(min(encoder.sample_rows, pool.stated.rows) for pool in pools)
    size = 4 * rows * encoder.width()
    return Work(texts=rows, memory_bytes=4 * size, disk_bytes=4 * size, rate="words")


def embeddings(
    pool: Step,
    encoder: Encoder,
    engine: Engine,
    length_chars: int | None = None,
    model: Step | None = None,
) -> Step:
    """Embed a pool, a matrix beside each shard.

    Args:
        pool: The rows.
        encoder: Maps texts to rows of a matrix.
        engine: Maps over row ranges.
        length_chars: Characters of each text that are read; ``None``: all.
        model: The step whose model embeds, for an encoder that names one in
            ``model_from_step``.

    Raises:
        ValueError: If the encoder can read no row (when the step is built).
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        source = inputs.get("model")
        load, width = partial(encoder.load, source), encoder.width(source)
        shards = shard_files(inputs["pool"])
        for rows in embed_shards(load, width, shards, folder, folder / WORK, engine, length_chars):
            progress.tick(rows)
        write_readable(inputs["pool"], folder, pool.name, engine)

    def work() -> Work:
        rows, tokens = pool.stated.rows, pool.stated.tokens
        if length_chars is not None:
            tokens = min(tokens, length_chars / CHARS_PER_TOKEN)
        embedding = encoder.work(rows, tokens, None if model is None else model.stated.shape)
        size = 4 * embedding.width * rows
        held = embedding.memory_bytes + size
        return replace(embedding, rows=rows, memory_bytes=held, disk_bytes=size)

    def count(inputs: Mapping[str, Path]) -> int:
        return sum(pool_facts(inputs["pool"])["rows"])

    def parameters() -> dict[str, Any]:
        return {"encoder": encoder.identity(), "length_chars": length_chars}

    inputs = {"pool": pool} if model is None else {"pool": pool, "model": model}
    name = f"{encoder.name}-{pool.name}"
    return Step("embeddings", 2, name, parameters(), build, inputs, work, count, parameters)


def _pool_work(rows: float, tokens: float) -> Work:
    size = CHARS_PER_TOKEN * rows * tokens
    held = min(2 * size, 4 * SHARD_BYTES)
    return Work(texts=rows, rows=rows, tokens=tokens, memory_bytes=held, disk_bytes=size)


def _chunks(chunking: Chunking) -> dict[str, Any]:
    unused = {} if chunking.unit == "fixed" else {"length_chars": None}
    return key_fields(chunking) | unused
