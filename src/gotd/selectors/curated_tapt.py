"""Curated task-adaptive pre-training: the nearest neighbours of every target.

All first neighbours come first, then all second ones, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, Selector
from gotd.selectors.neighbours import growing_neighbours, neighbours_work, take_ids
from gotd.storage.work import Work


@dataclass(frozen=True)
class CuratedTAPT(Selector):
    """Rank candidates by their best neighbour rank over all targets.

    The score is that rank (1 for a first neighbour); within one rank the smaller distance
    comes first, then the id. A row that two targets share is selected once, so a target in
    a crowd contributes fewer rows than an isolated one: in ``RoundRobin`` both contribute
    the same number.

    Any embeddings will do. The original uses VAMPIRE, a variational model of word counts;
    the paper's appendix E uses MiniLM.

    Args:
        duplicates: Keep repeated rows, as the published copy does, in which about
            half of a 50,000-row selection repeats. The ranking is then with
            replacement, and its distinct rows are fewer than the budget.
        normalise: Scale embeddings to unit length first (as the original does).

    Source: Gururangan et al. (2020), "Don't Stop Pretraining", §4.3 (kNN-TAPT);
    GOT-D (ICLR 2024) App. C.5, the TAPT/c rows.
    """

    key_name: ClassVar[str] = "CuratedTAPT"
    name: ClassVar[str] = "curated_tapt"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    duplicates: bool = False
    normalise: bool = False

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by neighbour rank; the seed has no effect."""
        # Enough if no row is shared; doubled until the distinct rows suffice.
        first = -(-limit // len(target))
        for near in growing_neighbours(target, candidates, first, engine, self.normalise):
            rank = np.broadcast_to(np.arange(1, near.k + 1), near.rows.shape).ravel()
            rows = near.rows.ravel()
            order = np.lexsort((near.order.ravel(), near.distances.ravel(), rank))
            if not self.duplicates:
                # The first time that each row is met, in the order of the ranking.
                order = order[np.sort(np.unique(rows[order], return_index=True)[1])]
            if len(order) >= limit:
                break
        order = order[:limit]
        return Ranking(
            take_ids(candidates, rows[order]),
            rank[order].astype(np.float64),
            with_replacement=self.duplicates,
            diagnostics={
                "neighbours_per_target": near.k,
                "distinct_rows": len(np.unique(rows[order])),
                "last_neighbour": int(rank[order[-1]]),
            },
        )

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one search for all neighbours of the first lists."""
        return neighbours_work(n_candidates, n_targets, width, -(-limit // n_targets))
