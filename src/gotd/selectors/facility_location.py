"""Facility location: a few candidates that stand for all targets, then a few more.

A target is covered by the most similar row that is taken, so a second row like the first
gains nothing. The greedy method takes the row that gains most. It is at least 63 % as good
as the best choice, because gains only fall (Nemhauser et al. 1978).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import ClassVar

import numpy as np

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, Selector
from gotd.selectors.compiled import compiled
from gotd.selectors.neighbours import (
    Neighbours,
    nearest_neighbours,
    neighbours_work,
    take_ids,
)
from gotd.storage.checks import check_at_least
from gotd.storage.work import Work

LIST_ROWS = 256
"""Neighbours per target that are looked up at once, for several rounds."""

ROWS_PER_SEARCH = 2000
"""Rows that are taken between two searches (measured: 1,700 to 4,000 of 50,000)."""


@dataclass(frozen=True)
class FacilityLocation(Selector):
    """Rank candidates by greedy maximisation of how well they cover the target.

    The rows ``S`` of a round maximise

        F(S) = sum_j max_{i in S} s_ij,    s_ij = exp(-d_ij / w),

    over targets ``j``, where ``s_ij`` is 0 unless ``i`` is one of the ``neighbours`` nearest
    candidates of ``j`` that no earlier round took. ``d`` is the squared distance and ``w``
    its mean over the neighbours of the first round. When no row adds to ``F``, the next
    round covers the target again, with the rows that are left.

    So a group of similar targets gets few rows per round, and a target alone gets one. Ties
    are broken by id. The score is the step, counted from 1; every budget is a prefix of a
    larger one. The seed has no effect.

    Args:
        neighbours: Candidates per target that can cover it in a round.
        normalise: Scale embeddings to unit length first.

    Source: Nemhauser, Wolsey and Fisher (1978); Minoux (1978) for the lazy evaluation; Wei,
    Iyer and Bilmes (2015), "Submodularity in data subset selection and active learning", for
    the sparse graph. The rounds are ours.
    """

    key_name: ClassVar[str] = "FacilityLocation"
    name: ClassVar[str] = "facility_location"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    neighbours: int = 30
    normalise: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "neighbours", prefix=f"{self.name}: ")

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank round by round; the nearest rows that are left are searched when lists end."""
        n = sum(map(len, candidates))
        free = np.ones(n, dtype=bool)
        masks = np.split(free, np.cumsum([len(shard) for shard in candidates])[:-1])
        chosen: list[np.ndarray] = []
        near, width, left, searches = None, None, n, 0
        while n - left < limit:
            most = min(self.neighbours, left)
            if near is None or (free[near.rows].sum(axis=1) < most).any():
                k = min(left, max(LIST_ROWS, 2 * most))
                near = nearest_neighbours(
                    target, candidates, k, engine, normalise=self.normalise, among=masks
                )
                searches += 1
            graph = _first_free(near, free, most)
            width = width or float(graph.distances.mean()) or 1.0
            # Not zero, so that every target is covered, however far its neighbours are.
            similarity = np.exp(-graph.distances / width).clip(min=np.finfo(np.float64).tiny)
            rows = cover(similarity, graph.rows, graph.order)
            free[rows] = False
            left -= len(rows)
            chosen.append(rows)
        diagnostics = {"rounds": len(chosen), "searches": searches, "similarity_width": width}
        ids = take_ids(candidates, np.concatenate(chosen)[:limit])
        return Ranking(ids, np.arange(1.0, limit + 1.0), diagnostics=diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of the searches."""
        once = neighbours_work(n_candidates, n_targets, width, LIST_ROWS)
        searches = 1 + limit / ROWS_PER_SEARCH
        return Work(flops=searches * once.flops, memory_bytes=once.memory_bytes + n_candidates)


def cover(similarity: np.ndarray, rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Take rows greedily until no other adds to ``sum_j max_i s_ij``.

    Args:
        similarity: ``[m, k]`` float64 positive similarities of each target and its rows.
        rows: ``[m, k]`` int64 these rows.
        order: ``[m, k]`` int64 positions of the rows sorted by id, to break ties.

    Returns:
        ``[r]`` int64 rows in the order in which they are taken.
    """
    m, k = rows.shape
    _, first, number = np.unique(order, return_index=True, return_inverse=True)
    by_row = np.argsort(number.ravel(), kind="stable")
    starts = np.searchsorted(number.ravel()[by_row], np.arange(len(first) + 1))
    taken = _greedy(similarity.ravel()[by_row], np.repeat(np.arange(m), k)[by_row], starts, m)
    return rows.ravel()[first][taken]


def _first_free(near: Neighbours, free: np.ndarray, k: int) -> Neighbours:
    """Return each target's ``k`` nearest rows that are free; every list has as many."""
    mask = free[near.rows]
    mask &= np.cumsum(mask, axis=1) <= k
    parts = (near.distances, near.rows, near.order)
    return Neighbours(*(part[mask].reshape(-1, k) for part in parts))


@compiled(nogil=True)
def _greedy(
    similarity: np.ndarray, target: np.ndarray, starts: np.ndarray, n_target: int
) -> np.ndarray:
    """Run lazy greedy on entries sorted by row; a row's gain never rises as others are taken."""
    n = len(starts) - 1
    covered, taken, count = np.zeros(n_target), np.empty(n, np.int64), 0
    computed = np.zeros(n, np.int64)  # rows taken when the gain was computed
    heap = [(-similarity[starts[row] : starts[row + 1]].sum(), row) for row in range(n)]
    heapify(heap)
    while len(heap) > 0:
        _, row = heappop(heap)
        entries = range(starts[row], starts[row + 1])
        if computed[row] == count:
            for entry in entries:
                covered[target[entry]] = max(covered[target[entry]], similarity[entry])
            taken[count] = row
            count += 1
            continue
        gain = 0.0
        for entry in entries:
            gain += max(0.0, similarity[entry] - covered[target[entry]])
        computed[row] = count
        if gain > 0.0:
            heappush(heap, (-gain, row))
    return taken[:count]
