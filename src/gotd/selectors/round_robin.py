"""Targets take turns, each choosing the nearest candidate that is still free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import ClassVar

import numpy as np

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, Selector
from gotd.selectors.neighbours import Neighbours, enough_neighbours, neighbours_work, take_ids
from gotd.storage.work import Work


@dataclass(frozen=True)
class RoundRobin(Selector):
    """The same number of distinct candidates for every target.

    In each turn every target takes one row, the nearest that is not yet taken. Within a
    turn the pair with the smallest distance goes first (ties by candidate id), so the
    order of the targets does not matter. The score is the turn, counted from 1.

    Unlike in ``CuratedTAPT``, a target whose neighbour is taken goes on to the next one
    instead of losing its turn: a group of similar targets gets as many rows as it has
    members, and these are farther away.

    Args:
        normalise: Scale embeddings to unit length first.

    Source: the greedy selector of "A Critical Look at Targeted Instruction
    Selection" (ICML 2026), best there at small budgets.
    """

    key_name: ClassVar[str] = "RoundRobin"
    name: ClassVar[str] = "round_robin"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    normalise: bool = False

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by turn; the seed has no effect."""
        first, n_candidates = 2 * -(-limit // len(target)), sum(map(len, candidates))

        def turns_of(near: Neighbours) -> tuple[np.ndarray, np.ndarray] | None:
            return take_turns(near, limit, complete=near.k == n_candidates)

        near, (rows, turns) = enough_neighbours(
            target, candidates, first, engine, turns_of, normalise=self.normalise
        )
        diagnostics = {"neighbours_per_target": near.k, "turns": int(turns[-1])}
        return Ranking(take_ids(candidates, rows), turns, diagnostics=diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one search for all neighbours of the first lists."""
        return neighbours_work(n_candidates, n_targets, width, 2 * -(-limit // n_targets))


def take_turns(
    near: Neighbours, limit: int, *, complete: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Assign rows to the targets in turn.

    Args:
        near: The neighbours of every target.
        limit: Rows to take.
        complete: Whether the lists contain all candidates; a target at the end of its list
            then drops out, because no row is left.

    Returns:
        ``[limit]`` global rows and the turn of each, or ``None`` if a list of
        neighbours ended before ``limit`` rows were taken.
    """
    n_target, k = near.rows.shape
    rank = [0] * n_target
    taken: dict[int, float] = {}
    turn = 0.0
    while len(taken) < limit:
        turn += 1.0
        queue = [_next(near, i, rank[i]) for i in range(n_target) if rank[i] < k]
        if len(queue) < n_target and not complete:
            return None
        heapify(queue)
        while queue and len(taken) < limit:
            _, _, i = heappop(queue)
            row = int(near.rows[i, rank[i]])
            rank[i] += 1
            if row not in taken:
                taken[row] = turn
            elif rank[i] < k:
                heappush(queue, _next(near, i, rank[i]))
            elif not complete:
                return None
    return np.fromiter(taken, np.int64), np.fromiter(taken.values(), np.float64)


def _next(near: Neighbours, target: int, rank: int) -> tuple[float, int, int]:
    return float(near.distances[target, rank]), int(near.order[target, rank]), target
