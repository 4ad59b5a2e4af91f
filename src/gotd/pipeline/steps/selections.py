"""Steps of a selection: screen domains, score once, take the first rows of the ranking."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
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
    SELECTED,
    RankedPool,
    SelectedRows,
    open_pools,
    scores_file,
)
from gotd.pipeline.token_budget import TokenBudget
from gotd.selectors.base import Out, Scores, Selector, check_request, fill
from gotd.selectors.domains import TYPICAL_DOMAINS, screen, screen_work
from gotd.storage.artifacts import Step, write_json
from gotd.storage.keys import identity
from gotd.storage.memmap import create_array
from gotd.storage.work import Work

FILES = {
    "toxicity": ("scores", "scores.parquet"),
    "losses": ("losses", "losses.parquet"),
    "tuned_losses": ("tuned_losses", "losses.parquet"),
}
"""Field of a selector and file of a step, by the input of `scored`."""

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

    measured: dict[str, Any] = {
        "sample": SCREENED_ROWS,
        "epsilon": epsilon,
        "tolerance": tolerance,
        "seed": seed,
    }

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        nearest_first = screen(*open_pools(inputs), engine=engine, **measured)
        kept = [row.domain for row in nearest_first[:keep]]
        distances = {row.domain: row.distance for row in nearest_first}
        write_json(folder / DOMAINS, {"kept": kept, "distances": distances})

    def work() -> Work:
        n, m, width = _sizes(pools)
        share = min(1.0, keep / TYPICAL_DOMAINS)
        return replace(screen_work(n, m, width), rows=share * n, disk_bytes=500, rate="transport")

    parameters = {"keep": keep, **measured}
    return Step("screened", 2, pools["target"].name, parameters, build, dict(pools), work)


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
            reads them; ``kept``, where rows are left out; ``screened``, whose domains alone
            compete; ``toxicity``, the scores of a toxicity scorer, and ``losses`` and
            ``tuned_losses``, those of the base model, for a selector that reads them. The
            target is no input of the step if the selector does not read it.
        limit: Rows to rank; ``None``: all.
        seed: Seed of the selection.
        engine: Maps over shards.
    """
    every, sides = callable(getattr(selector, "scores", None)), inputs
    if not selector.reads_target:  # one ranking for all targets
        inputs = {side: step for side, step in inputs.items() if side != "target"}

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        watched = Watched(engine)
        files = {key: inputs[name] / file for name, (key, file) in FILES.items() if name in inputs}
        method = selector.with_files(files) if files else selector
        target, candidates = open_pools(inputs, least=limit or 1)
        check_request(method, target, candidates, limit or 1)
        if every:
            out = [
                create_array(folder / scores_file(number), (len(shard),), "<f8")
                for number, shard in enumerate(candidates)
            ]
            outcome, repeats = _scores(method, target, candidates, seed, watched, out), False
            for array in out:
                array.flush()
            if outcome.target_potential is not None:
                np.save(folder / POTENTIAL, outcome.target_potential)
        else:
            rows = limit or sum(map(len, candidates))
            outcome = method.rank(target, candidates, rows, seed, watched)
            repeats = outcome.with_replacement
            table = pa.table({"id": outcome.ids, "score": outcome.scores})
            pq.write_table(table, folder / RANKING, compression="zstd")
        diagnostics = dict(outcome.diagnostics)
        if "screened" in inputs:
            diagnostics["screened"] = json.loads((inputs["screened"] / DOMAINS).read_text("utf-8"))
        write_json(folder / FACTS, {"with_replacement": repeats, "diagnostics": diagnostics})

    kind = "pool_scores" if every else "pool_ranking"
    step_name = f"{name}-{inputs.get('target', inputs['candidates']).name}"
    parameters = partial(_scored_by, selector, seed, {} if every else {"limit": limit})
    work = partial(_scoring_work, selector, sides, limit)
    return Step(kind, 2, step_name, parameters(), build, dict(inputs), work, again=parameters)


def _scored_by(selector: Any, seed: int, limit: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a step of scores."""
    stated = {"method": identity(selector), "seed": seed, **limit}
    if selector.members:
        stated["members"] = [identity(member) for member in selector.members]
    return stated


def _scores(
    method: Any, target: Rows, candidates: list[Rows], seed: int, engine: Engine, out: Out
) -> Scores:
    """Score the candidates; a single one needs no method, and some methods need two."""
    if sum(map(len, candidates)) == 1:
        return Scores(fill(out, (np.zeros(len(shard)) for shard in candidates)))
    return method.scores(target, candidates, seed, engine, out)


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
        embeds = "embeddings" in selector.requires
        ranked, rows, counted = _ranked(inputs, budget, tokens, engine, embeds)
        # With prices, each row is attributed to targets: is a part of the target not served?
        explainer = None if ranked.potential is None else ranked.explainer(selector)
        selected = SelectedRows(ranked, rows, explainer)
        selected.write(folder / SELECTED)
        report = selected.summary(seed, under_covered)
        write_json(folder / "report.json", {**report, **counted, **ranked.outcome})

    work = partial(_taking_work, pools, budget, tokens)
    inputs, parameters = {**pools, "scored": scored}, {"under_covered": under_covered, "seed": seed}
    return _taking_step("selection", 2, budget, tokens, parameters, build, inputs, work)


def selected_rows(
    scored: Step,
    pools: Mapping[str, Step],
    budget: int | None,
    engine: Engine,
    tokens: TokenBudget | None = None,
) -> Step:
    """Write the first ``budget`` rows of a ranking for which no target was read.

    What is trained on them is the same for all targets. Their report is not, so it is another
    step (`selection`).

    Args:
        scored: The step of `scored`.
        pools: The step ``candidates``.
        budget: Rows, or tokens, to take; ``None``: all rows.
        engine: Maps over shards.
        tokens: As for `selection`.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        ranked, rows, _ = _ranked(inputs, budget, tokens, engine, embeds=False)
        SelectedRows(ranked, rows).write(folder / SELECTED)

    inputs = {"candidates": pools["candidates"], "scored": scored}
    work = partial(_taking_work, pools, budget, tokens)
    return _taking_step("selected_rows", 1, budget, tokens, {}, build, inputs, work)


def _ranked(
    inputs: Mapping[str, Path],
    budget: int | None,
    tokens: TokenBudget | None,
    engine: Engine,
    embeds: bool,
) -> tuple[RankedPool, int, dict[str, int]]:
    """Open a ranking; return it, the rows of the budget, and its tokens where it is in tokens."""
    if tokens is None:
        ranked = RankedPool(inputs, budget, engine, embeds)
        return ranked, ranked.limit, {}
    ranked = RankedPool(inputs, None, engine, embeds, at_most=tokens.rank_rows)
    rows, count = tokens.rows(ranked, inputs)
    return ranked, rows, {"tokens": count}


def _taking_step(
    kind: str,
    version: int,
    budget: int | None,
    tokens: TokenBudget | None,
    parameters: dict[str, Any],
    build: Callable[[Path, Mapping[str, Path]], None],
    inputs: dict[str, Step],
    work: Callable[[], Work],
) -> Step:
    """Return a step that takes the rows of a budget."""
    parameters, name = (
        {"budget": budget, **parameters},
        f"{inputs['scored'].name}-{budget or 'all'}",
    )
    if tokens is not None:
        inputs |= tokens.inputs
        parameters |= tokens.parameters
    return Step(kind, version, name, parameters, build, inputs, work)


def _taking_work(pools: Mapping[str, Step], budget: int | None, tokens: TokenBudget | None) -> Work:
    """Return the work of reading and writing the rows of a budget."""
    pool = pools["candidates"].stated
    rows = budget or pool.rows
    if tokens is not None:
        rows = min(pool.rows, max(1.0, tokens.tokens / pool.tokens))
    size = rows * pool.tokens * CHARS_PER_TOKEN
    return Work(rows, memory_bytes=4 * size, disk_bytes=size, rows=rows, tokens=pool.tokens)


def _sizes(pools: Mapping[str, Step]) -> tuple[int, int, int]:
    """Return the rows of the pool and of the target, and the width of their embeddings."""
    embeddings = pools.get("candidates_embeddings")
    n, m = (math.ceil(pools[side].stated.rows) for side in ("candidates", "target"))
    return n, m, 0 if embeddings is None else embeddings.stated.width
