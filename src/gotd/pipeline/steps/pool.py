"""Steps of pools: candidates and targets in shards on disk, and their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.config.schemas import Chunking, TaskLimits
from gotd.data.columns import Columns
from gotd.data.inputs import InMemory, Part
from gotd.data.pool import pool_facts, shard_files, write_pool
from gotd.data.sampling import at_most
from gotd.embedding.embed import embed_shards
from gotd.embedding.encoders import Encoder
from gotd.engine.local import Engine
from gotd.storage import progress
from gotd.storage.artifacts import WORK, Step


def pool(
    role: str, parts: Sequence[Part], chunking: Chunking, columns: Columns | None = None
) -> Step:
    """Cut rows into chunks with unique ids, in shards.

    Args:
        role: ``candidates`` or ``target``.
        parts: Files, data sets or tables, in order.
        chunking: How rows become chunks.
        columns: The columns that are read.
    """

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        write_pool(
            parts,
            folder,
            folder / WORK,
            unit=chunking.unit,  # type: ignore[arg-type]
            length_chars=chunking.length_chars,
            tick=progress.tick,
        )

    columns = columns or Columns()
    parameters = {
        "parts": [part.identity() for part in parts],
        "columns": asdict(columns) | {"text": list(columns.text)},
        **_chunks(chunking),
    }
    return Step("pool", 2, role, parameters, build)


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
        write_pool(
            [InMemory(documents, rows.name, Columns())],
            folder,
            folder / WORK,
            unit=chunking.unit,  # type: ignore[arg-type]
            length_chars=chunking.length_chars,
            separator=separator,
            tick=progress.tick,
        )

    return Step(
        kind="target",
        version=2,
        name=rows.name,
        parameters={
            **_chunks(chunking),
            "target_rows": limits.target_rows,
            "separator": separator,
            "side": side,
        },
        build=build,
        inputs={"rows": rows},
    )


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
        model: The step whose model embeds, for an encoder that uses the base model or one
            that was fine-tuned on the target.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        source = inputs.get("model")
        load, width = partial(encoder.load, source), encoder.width(source)
        shards = shard_files(inputs["pool"])
        for rows in embed_shards(load, width, shards, folder, folder / WORK, engine, length_chars):
            progress.tick(rows)

    return Step(
        kind="embeddings",
        version=2,
        name=f"{encoder.name}-{pool.name}",
        parameters={"encoder": encoder.identity(), "length_chars": length_chars},
        build=build,
        inputs={"pool": pool, **({} if model is None else {"model": model})},
        rows=lambda inputs: sum(pool_facts(inputs["pool"])["rows"]),
    )


def _chunks(chunking: Chunking) -> dict[str, Any]:
    fixed = chunking.unit == "fixed"
    return {"unit": chunking.unit, "length_chars": chunking.length_chars if fixed else None}
