"""Steps of selection: rank once, cut at the budget, report what was taken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.engine.local import LocalEngine
from gotd.storage.artifacts import Step, write_json
from gotd.storage.keys import identity

SCREENED_ROWS = 10_000
"""Rows of each domain that are measured (paper, App. C.3)."""


def screened(
    chunks: Mapping[str, Step], spaces: Mapping[str, Step], keep: int, seed: int, workers: int
) -> Step:
    """Measure how far each domain of the pool is from the target, and keep the nearest.

    Args:
        chunks: The steps ``target`` and ``candidates``.
        spaces: Their embeddings by the same names.
        keep: Domains to keep.
        seed: Seed of the sample that is measured.
        workers: Shards in flight at once.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.selectors.domains import screen

        target_shard, pool = (_shard(inputs, name) for name in ("target", "candidates"))
        engine = LocalEngine(workers)
        found = screen(
            target_shard,
            [pool],
            epsilon=0.05,
            tolerance=5e-3,
            sample=SCREENED_ROWS,
            seed=seed,
            engine=engine,
        )
        distances = {row.domain: row.distance for row in found}
        write_json(
            folder / "domains.json",
            {"kept": [row.domain for row in found[:keep]], "distances": distances},
        )

    return Step(
        kind="screened",
        version=1,
        name=chunks["target"].name,
        parameters={"keep": keep, "sample": SCREENED_ROWS, "seed": seed},
        build=build,
        inputs={**chunks, **{f"{name}_embeddings": step for name, step in spaces.items()}},
    )


def ranking(
    method: Any,
    arm: str,
    chunks: Mapping[str, Step],
    spaces: Mapping[str, Step],
    limit: int | None,
    seed: int,
    workers: int,
    near: Step | None = None,
    scores: Step | None = None,
) -> Step:
    """Rank the candidates once; every budget up to ``limit`` is a prefix.

    Args:
        method: The selector.
        arm: Its name in the tables.
        chunks: The steps ``target`` and ``candidates``.
        spaces: Their embeddings by the same names; empty if the arm reads texts only.
        limit: Rows to rank; ``None``: all.
        seed: Seed of the selection.
        workers: Shards in flight at once.
        near: The step ``screened`` whose domains alone are ranked; ``None``: all are.
        scores: The step ``pool_scores``, for an arm that reads them.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.selectors.domains import only_domains

        target_shard, pool = (_shard(inputs, name) for name in ("target", "candidates"))
        shards, screening = [pool], {}
        rows = len(pool) if limit is None else limit
        if near is not None:
            read = (inputs["screened"] / "domains.json").read_text(encoding="utf-8")
            screening = {"screened": json.loads(read)}
            shards = only_domains([pool], screening["screened"]["kept"], rows)
        ranker = method
        if scores is not None:
            ranker = dataclasses.replace(method, scores=inputs["scores"] / "scores.parquet")
        found = ranker.rank(target_shard, shards, rows, seed, LocalEngine(workers))
        table = pa.table({"id": found.ids, "score": found.scores})
        pq.write_table(table, folder / "ranking.parquet", compression="zstd")
        diagnostics = {k: v for k, v in found.diagnostics.items() if k != "elapsed_s"}
        diagnostics |= screening
        facts = {"with_replacement": found.with_replacement, "diagnostics": diagnostics}
        write_json(folder / "ranking.json", facts)

    inputs = {**chunks, **{f"{name}_embeddings": step for name, step in spaces.items()}}
    if near is not None:
        inputs["screened"] = near
    if scores is not None:
        inputs["scores"] = scores
    return Step(
        kind="ranking",
        version=1,
        name=f"{arm}-{chunks['target'].name}",
        parameters={"method": identity(method), "limit": limit, "seed": seed},
        build=build,
        inputs=inputs,
    )


def selection(
    ranked: Step,
    chunks: Mapping[str, Step],
    spaces: Mapping[str, Step],
    budget: int | None,
    under_covered: list[str],
) -> Step:
    """Take the first ``budget`` rows of a ranking (``None``: all), with texts and a report."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.selection_report.report import selection_report

        facts = json.loads((inputs["ranking"] / "ranking.json").read_text(encoding="utf-8"))
        ranked_rows = pq.read_table(inputs["ranking"] / "ranking.parquet").slice(0, budget)
        target_shard, pool = (_shard(inputs, name) for name in ("target", "candidates"))
        position = pc.index_in(ranked_rows["id"], value_set=pool.ids)
        rows = ranked_rows.append_column("text", pool.texts.take(position.combine_chunks()))
        rows = rows.append_column("domain", pool.domains.take(position.combine_chunks()))
        rows = rows.append_column("rank", pa.array(range(1, rows.num_rows + 1), pa.int64()))
        pq.write_table(rows, folder / "selection.parquet", compression="zstd")
        report = selection_report(rows, [pool], target_shard, under_covered=under_covered)
        write_json(folder / "report.json", {**report, **facts})

    inputs = {
        "ranking": ranked,
        **chunks,
        **{f"{name}_embeddings": step for name, step in spaces.items()},
    }
    return Step(
        kind="selection",
        version=1,
        name=f"{ranked.name}-{budget or 'all'}",
        parameters={"budget": budget, "under_covered": under_covered},
        build=build,
        inputs=inputs,
    )


def _shard(inputs: Mapping[str, Path], name: str) -> Any:
    from gotd.data.rows import Rows
    from gotd.embedding.embed import read_embeddings

    table = pq.read_table(inputs[name] / "chunks.parquet")
    space = inputs.get(f"{name}_embeddings")
    # Arrow's plain strings end at 2 GiB in one array; a pool of two million pieces is near it.
    return Rows(
        ids=table["id"].combine_chunks(),
        texts=table["text"].cast(pa.large_string()).combine_chunks(),
        domains=table["domain"].combine_chunks(),
        embeddings=None if space is None else read_embeddings(space, table["id"]),
    )
