"""The steps of ``gotd select`` as artifacts: what each reads and what decides its bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.columns import Columns
from gotd.data.inputs import Part
from gotd.data.pool import Unit, as_one, open_pool, shard_files, write_pool
from gotd.data.rows import Rows
from gotd.embedding.embed import embed_shards
from gotd.embedding.encoders import Encoder
from gotd.engine.local import Engine
from gotd.engine.progress import Tick
from gotd.storage.artifacts import WORK, Step, write_json
from gotd.storage.keys import identity
from gotd.storage.memmap import FileArray, create_array, open_array

POTENTIAL = "target_potential.npy"
RANKING = "ranking.parquet"
FACTS = "facts.json"


def pool_step(
    role: str, parts: Sequence[Part], columns: Columns, unit: Unit, length_chars: int, tick: Tick
) -> Step:
    """Cut what was handed in into shards of rows with unique ids.

    Args:
        role: ``candidates`` or ``target``.
        parts: What was handed in.
        columns: Which columns are read.
        unit: ``whole`` or ``fixed``.
        length_chars: Length of a ``fixed`` piece.
        tick: Told of rows that are written.
    """

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        write_pool(parts, folder, folder / WORK, unit=unit, length_chars=length_chars, tick=tick)

    parameters = {
        "parts": [part.identity() for part in parts],
        "columns": asdict(columns) | {"text": list(columns.text)},
        "unit": unit,
        "length_chars": length_chars if unit == "fixed" else None,
    }
    return Step("pool", 1, role, parameters, build)


def embeddings_step(
    pool: Step, encoder: Encoder, length_chars: int, engine: Engine, tick: Tick
) -> Step:
    """Embed a pool, a matrix beside each shard.

    Args:
        pool: The rows.
        encoder: Maps texts to rows of a matrix.
        length_chars: Characters of each text that are read.
        engine: Maps over row ranges.
        tick: Told of rows that are embedded.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        shards = shard_files(inputs["pool"])
        width, work = encoder.dimension(), folder / WORK
        for rows in embed_shards(encoder.make, width, shards, folder, work, engine, length_chars):
            tick(rows)

    return Step(
        kind="pool_embeddings",
        version=1,
        name=f"{pool.name}-{Path(encoder.name).name}",
        parameters={"encoder": encoder.identity(), "length_chars": length_chars},
        build=build,
        inputs={"pool": pool},
    )


def scores_step(
    method: Any, name: str, read: Mapping[str, Step], seed: int, engine: Engine
) -> Step:
    """Score every candidate once; any budget is then a prefix of the same order.

    Args:
        method: A selector with ``scores``.
        name: Its name.
        read: The steps `pools` opens.
        seed: Seed of the selection.
        engine: Maps over shards.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        target, candidates = pools(inputs)
        out = [
            create_array(folder / _scores_file(number), (len(shard),), "<f8")
            for number, shard in enumerate(candidates)
        ]
        found = method.scores(target, candidates, seed, engine, out)
        for array in out:
            array.flush()
        if found.target_potential is not None:
            np.save(folder / POTENTIAL, found.target_potential)
        _write_facts(folder, found.diagnostics, with_replacement=False)

    parameters = {"method": identity(method), "seed": seed}
    return Step("pool_scores", 1, name, parameters, build, read)


def ranking_step(
    method: Any, name: str, read: Mapping[str, Step], limit: int, seed: int, engine: Engine
) -> Step:
    """Rank up to ``limit`` rows by a method that makes lists, not scores.

    Args:
        method: A selector.
        name: Its name.
        read: The steps `pools` opens.
        limit: Rows to rank.
        seed: Seed of the selection.
        engine: Maps over shards.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        found = method.rank(*pools(inputs), limit, seed, engine)
        table = pa.table({"id": found.ids, "score": found.scores})
        pq.write_table(table, folder / RANKING, compression="zstd")
        _write_facts(folder, found.diagnostics, with_replacement=found.with_replacement)

    parameters = {"method": identity(method), "limit": limit, "seed": seed}
    return Step("pool_ranking", 1, name, parameters, build, read)


def pools(inputs: Mapping[str, Path]) -> tuple[Rows, list[Rows]]:
    """Open target and candidates, with their embeddings where there are some."""
    target = open_pool(inputs["target"], inputs.get("target_embeddings"))
    return as_one(target), open_pool(inputs["candidates"], inputs.get("candidates_embeddings"))


def open_scores(folder: Path, shards: int) -> list[FileArray]:
    """Map the scores beside each shard: float64 ``[n]``."""
    return [open_array(folder / _scores_file(number)) for number in range(shards)]


def _write_facts(folder: Path, found: Mapping[str, Any], *, with_replacement: bool) -> None:
    # Without its time, which the manifest has and which is never the same twice.
    diagnostics = {name: value for name, value in found.items() if name != "elapsed_s"}
    write_json(folder / FACTS, {"with_replacement": with_replacement, "diagnostics": diagnostics})


def read_facts(folder: Path) -> dict[str, Any]:
    """Read what a scoring or ranking reported: ``diagnostics`` and ``with_replacement``."""
    return json.loads((folder / FACTS).read_text("utf-8"))


def _scores_file(number: int) -> str:
    return f"scores-{number:05d}.npy"
