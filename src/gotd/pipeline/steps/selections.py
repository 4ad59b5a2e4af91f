"""Steps of a selection: screen domains, score once, take the first rows of the ranking."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.rows import Rows
from gotd.data.sizes import CHARS_PER_TOKEN
from gotd.engine.local import Engine
from gotd.engine.progress import Watched
from gotd.pipeline.ranked_pool import (
    DOMAINS,
    FACTS,
    POTENTIAL,
    RANKING,
    RankedPool,
    open_pools,
    scores_file,
)
from gotd.pipeline.token_budget import TokenBudget
from gotd.selectors.base import Selector, check_request
from gotd.selectors.domains import TYPICAL_DOMAINS, screen_work
from gotd.storage.artifacts import Step, write_json
from gotd.storage.keys import identity
from gotd.storage.memmap import create_array
from gotd.storage.work import Work

SCREENED_ROWS = 10_000
"""Rows of each domain that are measured (paper, App. C.3)."""


def screened(
    pools: Mapping[str, Step],
    keep: int,
    epsilon: float,
    tolerance: float,
    seed: int,
    engine: Engine,
) -> Step:
    """Measure how far each domain of the pool is from the target, and keep the nearest.

    Args:
        pools: The steps ``target`` and ``candidates`` and their embeddings.
        keep: Domains to keep.
        epsilon: Regularisation, relative to the mean cost.
        tolerance: Marginal error at which a solve has converged.
        seed: Seed of the sample that is measured.
        engine: Maps over shards.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.selectors.domains import screen

        target, candidates = open_pools(inputs)
        distances = screen(
            target,
            candidates,
            sample=SCREENED_ROWS,
            epsilon=epsilon,
            tolerance=tolerance,
            seed=seed,
            engine=engine,
        )
        write_json(
            folder / DOMAINS,
            {
                "kept": [row.domain for row in distances[:keep]],
                "distances": {row.domain: row.distance for row in distances},
            },
        )

    def work() -> Work:
        n, m, width = _sizes(pools)
        share = min(1.0, keep / TYPICAL_DOMAINS)
        return replace(screen_work(n, m, width), rows=share * n, disk_bytes=500, rate="transport")

    return Step(
        kind="screened",
        version=2,
        name=pools["target"].name,
        parameters={
            "keep": keep,
            "sample": SCREENED_ROWS,
            "epsilon": epsilon,
            "tolerance": tolerance,
            "seed": seed,
        },
        build=build,
        inputs=dict(pools),
        work=work,
    )


def scored(
    selector: Any,
    name: str,
    inputs: Mapping[str, Step],
    limit: int | None,
    seed: int,
    engine: Engine,
) -> Step:
    """Score every candidate, or rank the first ``limit`` where a selector makes lists.

    Scores hold for every budget. A list holds for budgets up to its limit.

    Args:
        selector: The selector.
        name: Its name in tables.
        inputs: The steps ``target`` and ``candidates``; their embeddings where the selector
            reads them; ``screened``, whose domains alone compete; ``toxicity``, the scores
            of a toxicity scorer, for a selector that reads them.
        limit: Rows to rank; ``None``: all.
        seed: Seed of the selection.
        engine: Maps over shards.
    """
    every = callable(getattr(selector, "scores", None))

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        method = selector
        if "toxicity" in inputs:
            method = replace(selector, scores=inputs["toxicity"] / "scores.parquet")
        target, candidates = open_pools(inputs, least=limit or 1)
        check_request(method, target, candidates, limit or 1)
        write = _write_scores if every else _write_ranking
        outcome = write(folder, method, target, candidates, limit, seed, Watched(engine))
        if "screened" in inputs:
            screening = json.loads((inputs["screened"] / DOMAINS).read_text("utf-8"))
            outcome["diagnostics"]["screened"] = screening
        write_json(folder / FACTS, outcome)

    return Step(
        kind="pool_scores" if every else "pool_ranking",
        version=2,
        name=f"{name}-{inputs['target'].name}",
        parameters={
            "method": identity(selector),
            "seed": seed,
            **({} if every else {"limit": limit}),
        },
        build=build,
        inputs=dict(inputs),
        work=lambda: _scoring_work(selector, inputs, limit),
    )


def _write_scores(
    folder: Path,
    selector: Any,
    target: Rows,
    candidates: Sequence[Rows],
    limit: int | None,
    seed: int,
    engine: Engine,
) -> dict[str, Any]:
    """Write the scores of every shard; return what the selector reported."""
    out = [
        create_array(folder / scores_file(number), (len(shard),), "<f8")
        for number, shard in enumerate(candidates)
    ]
    scores = selector.scores(target, candidates, seed, engine, out)
    for array in out:
        array.flush()
    if scores.target_potential is not None:
        np.save(folder / POTENTIAL, scores.target_potential)
    return {"with_replacement": False, "diagnostics": dict(scores.diagnostics)}


def _write_ranking(
    folder: Path,
    selector: Any,
    target: Rows,
    candidates: Sequence[Rows],
    limit: int | None,
    seed: int,
    engine: Engine,
) -> dict[str, Any]:
    """Write the first ``limit`` rows of the ranking; return what the selector reported."""
    ranking = selector.rank(target, candidates, limit or sum(map(len, candidates)), seed, engine)
    table = pa.table({"id": ranking.ids, "score": ranking.scores})
    pq.write_table(table, folder / RANKING, compression="zstd")
    return {
        "with_replacement": ranking.with_replacement,
        "diagnostics": dict(ranking.diagnostics),
    }


def _scoring_work(selector: Selector, inputs: Mapping[str, Step], limit: int | None) -> Work:
    """Return the work that a selector states, with the memory of the embeddings."""
    n, m, width = _sizes(inputs)
    if "screened" in inputs:
        n = math.ceil(inputs["screened"].stated.rows)
    work = selector.work(n, m, width, limit or n)
    held = work.memory_bytes + 4 * width * (n + m)
    rate = f"select {identity(selector)['class']}"
    return replace(work, memory_bytes=held, disk_bytes=30 * (limit or n), rate=rate)


def selection(
    scored: Step,
    selector: Any,
    pools: Mapping[str, Step],
    budget: int | None,
    under_covered: list[str],
    seed: int,
    engine: Engine,
    tokens: TokenBudget | None = None,
) -> Step:
    """Write the first ``budget`` rows of a ranking, with texts, and their report.

    Args:
        scored: The step of `scored`.
        selector: Its selector.
        pools: The steps ``target`` and ``candidates``, their embeddings where there are
            some, and ``screened`` where domains were screened.
        budget: Rows, or tokens, to take; ``None``: all rows.
        under_covered: Domains that the base model lacks, where known.
        seed: Seed of the random selection beside which coverage is reported.
        engine: Maps over shards.
        tokens: What counts the tokens, for a budget in tokens; ``None``: it counts rows.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        if tokens is None:
            ranked, counted = RankedPool(inputs, budget, engine), {}
            rows = ranked.limit
        else:
            ranked = RankedPool(inputs, None, engine, at_most=tokens.rank_rows)
            rows, count = tokens.rows(ranked, inputs)
            counted = {"tokens": count}
        # With prices, each row is attributed to targets: is a part of the target not served?
        explainer = None if ranked.potential is None else ranked.explainer(selector)
        selected = ranked.select(rows, explainer)
        selected.write(folder / "selection.parquet")
        report = selected.summary(seed, under_covered)
        write_json(folder / "report.json", {**report, **counted, **ranked.outcome})

    def work() -> Work:
        pool = pools["candidates"].stated
        rows = budget or pool.rows
        if tokens is not None:
            rows = min(pool.rows, max(1.0, tokens.tokens / pool.tokens))
        size = rows * pool.tokens * CHARS_PER_TOKEN
        return Work(rows, memory_bytes=4 * size, disk_bytes=size, rows=rows, tokens=pool.tokens)

    return Step(
        kind="selection",
        version=2,
        name=f"{scored.name}-{budget or 'all'}",
        parameters={
            "budget": budget,
            "under_covered": under_covered,
            "seed": seed,
            **({} if tokens is None else tokens.parameters),
        },
        build=build,
        inputs={**pools, "scored": scored, **({} if tokens is None else tokens.inputs)},
        work=work,
    )


def _sizes(pools: Mapping[str, Step]) -> tuple[int, int, int]:
    """Return the rows of the pool and of the target, and the width of their embeddings."""
    embeddings = pools.get("candidates_embeddings")
    n, m = (math.ceil(pools[side].stated.rows) for side in ("candidates", "target"))
    return n, m, 0 if embeddings is None else embeddings.stated.width
