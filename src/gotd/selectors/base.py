"""What a selector sees, what it returns, and the pieces every ranking needs.

A selector ranks the candidates once; every budget is a prefix of that ranking.
Rows are known by their ids, never by their position: ties are broken by id and
chance is a hash of (seed, id), so shards, workers and row order cannot change
what is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.topk import smallest
from gotd.storage.memmap import FileArray

__all__ = [
    "Ranking",
    "Scorer",
    "Scores",
    "Selector",
    "Rows",
    "check_request",
    "place",
    "rank_by_scores",
    "smallest",
]


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order in which an arm would take them.

    Args:
        ids: ``[limit]`` row ids, best first.
        scores: ``[limit]`` float64; **lower is selected first**, whatever the method.
        with_replacement: Whether an id may stand more than once.
        diagnostics: JSON-able facts: certificate of the solver, counts, seconds.
    """

    ids: pa.Array
    scores: np.ndarray
    with_replacement: bool = False
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """What an arm that scores rows one by one thinks of every candidate.

    A ranking is these scores and ``smallest``; any budget is then a matter of seconds.

    Args:
        values: Per shard ``[n]`` float64; **lower is selected first**.
        diagnostics: JSON-able facts: certificate of the solver, counts, seconds.
        target_potential: ``[m]`` price of each target in cost units, from transport; with
            it each candidate's share of the plan can be told.
    """

    values: Sequence[np.ndarray]
    diagnostics: dict[str, Any] = field(default_factory=dict)
    target_potential: np.ndarray | None = None


class Selector(Protocol):
    """An arm: ranks candidates for a target."""

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]]

    def rank(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        limit: int,
        seed: int,
        engine: Engine,
    ) -> Ranking:
        """Rank the ``limit`` best candidates for ``target``.

        Raises:
            ValueError: If ``limit`` exceeds the number of candidates, or a shard
                lacks a field named in ``requires``.
        """
        ...


class Scorer(Selector, Protocol):
    """An arm whose ranking is the order of one number per candidate, ties by id."""

    def scores(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        seed: int,
        engine: Engine,
        out: Sequence[np.ndarray] | None = None,
    ) -> Scores:
        """Score every candidate, lower is selected first.

        Args:
            target: What to select for.
            candidates: The pool.
            seed: Seed of the selection.
            engine: Maps over shards.
            out: Per shard ``[n]`` float64, such as a file, to write the scores into.
        """
        ...


def place(
    per_shard: Iterable[np.ndarray],
    candidates: Sequence[Rows],
    out: Sequence[np.ndarray] | None,
) -> Sequence[np.ndarray]:
    """Put each shard's scores, as they come, where they are wanted.

    Args:
        per_shard: Per shard ``[n]`` scores, such as an engine's results.
        candidates: The shards.
        out: Arrays to fill; new ones when ``None``.

    Returns:
        The filled arrays, float64.
    """
    filled = [np.empty(len(shard)) for shard in candidates] if out is None else out
    for array, values in zip(filled, per_shard, strict=True):
        array[:] = values
    return filled


def rank_by_scores(
    selector: Scorer,
    target: Rows,
    candidates: Sequence[Rows],
    limit: int,
    seed: int,
    engine: Engine,
) -> Ranking:
    """Rank by a selector's scores.

    Raises:
        ValueError: If the request cannot be answered (see `check_request`).
    """
    check_request(selector, target, candidates, limit)
    scored = selector.scores(target, candidates, seed, engine)
    ids, best = smallest(scored.values, [shard.ids for shard in candidates], limit)
    return Ranking(ids, best, diagnostics=scored.diagnostics)


def check_request(selector: Selector, target: Rows, candidates: Sequence[Rows], limit: int) -> None:
    """Refuse what no selector can answer, naming what is missing.

    Raises:
        ValueError: If there is no target or candidate row, a needed field is
            absent, embeddings are not finite or differ in width, or the budget
            exceeds the pool.
    """
    n_candidates = sum(len(shard) for shard in candidates)
    if len(target) == 0:
        raise ValueError(f"{selector.name}: the target is empty; give at least one text")
    if limit < 1:
        raise ValueError(f"{selector.name}: the budget must be at least 1, not {limit}")
    if limit > n_candidates:
        raise ValueError(
            f"{selector.name}: the budget {limit:,} is larger than the pool of "
            f"{n_candidates:,} candidates; lower the budget or add candidates"
        )
    if "embeddings" not in selector.requires:
        return
    widths = set()
    for name, shard in [("target", target), *(("candidates", s) for s in candidates)]:
        if shard.embeddings is None:
            raise ValueError(f"{selector.name}: the {name} have no embeddings; choose an embedder")
        widths.add(shard.embeddings.shape[1])
        if isinstance(shard.embeddings, FileArray):
            continue  # checked when they were written; reading all of them again takes long
        bad = ~np.isfinite(shard.embeddings).all(axis=1)
        if bad.any():
            row = shard.ids[int(np.argmax(bad))].as_py()
            raise ValueError(
                f"{selector.name}: the embedding of {name} row {row!r} is not finite "
                f"({int(bad.sum())} such rows); embed that text again or drop it"
            )
    if len(widths) > 1:
        raise ValueError(
            f"{selector.name}: target and candidate embeddings differ in width: {widths}"
        )
