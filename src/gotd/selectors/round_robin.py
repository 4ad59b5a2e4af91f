"""Targets take turns, each choosing the nearest candidate that is still free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, check_request
from gotd.selectors.neighbours import Neighbours, nearest_neighbours


@dataclass(frozen=True)
class RoundRobin:
    """Give every target the same number of distinct candidates.

    In each turn every target takes one row, its nearest that nobody has taken yet.
    Within a turn the pair with the smallest distance goes first (ties by candidate
    id), so the order in which targets are listed does not matter. The score is the
    turn, counted from 1.

    Unlike ``CuratedTAPT``, a target whose neighbour is gone goes on to its next one
    instead of losing its turn: a crowd of alike targets is answered by as many rows
    as it has members, which reach farther out.

    Args:
        normalise: Scale embeddings to unit length first.

    Source: the greedy selector of "A Critical Look at Targeted Instruction
    Selection" (ICML 2026), best there at small budgets.
    """

    key_name: ClassVar[str] = "RoundRobin"

    normalise: bool = False

    name: ClassVar[str] = "round_robin"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by turn; nothing is left to chance.

        Raises:
            ValueError: If the request cannot be met (see ``check_request``).
        """
        check_request(self, target, candidates, limit)
        n_candidates = sum(map(len, candidates))
        k = min(n_candidates, 2 * -(-limit // len(target)))
        while True:
            found = nearest_neighbours(target, candidates, k, engine, normalise=self.normalise)
            taken = take_turns(found, limit, complete=k == n_candidates)
            if taken is not None:
                break
            k = min(n_candidates, 2 * k)
        rows, turns = taken
        ids = pa.chunked_array([shard.ids for shard in candidates]).take(pa.array(rows))
        diagnostics = {"neighbours_per_target": k, "turns": int(turns[-1])}
        return Ranking(ids.combine_chunks(), turns, diagnostics=diagnostics)


def take_turns(
    found: Neighbours, limit: int, *, complete: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """Let the targets take rows in turn.

    Args:
        found: The neighbours of every target.
        limit: Rows to take.
        complete: Whether the lists hold the whole pool; then a target at the end of
            its list drops out, because nothing is left.

    Returns:
        ``[limit]`` global rows and the turn of each, or ``None`` if a list of
        neighbours ended before ``limit`` rows were taken.
    """
    n_target, k = found.rows.shape
    place = [0] * n_target
    taken: dict[int, float] = {}
    turn = 0.0
    while len(taken) < limit:
        turn += 1.0
        queue = [_next(found, i, place[i]) for i in range(n_target) if place[i] < k]
        if len(queue) < n_target and not complete:
            return None
        heapify(queue)
        while queue and len(taken) < limit:
            _, _, i = heappop(queue)
            row = int(found.rows[i, place[i]])
            place[i] += 1
            if row not in taken:
                taken[row] = turn
            elif place[i] < k:
                heappush(queue, _next(found, i, place[i]))
            elif not complete:
                return None
    return np.fromiter(taken, np.int64), np.fromiter(taken.values(), np.float64)


def _next(found: Neighbours, target: int, place: int) -> tuple[float, int, int]:
    return float(found.distances[target, place]), int(found.order[target, place]), target
