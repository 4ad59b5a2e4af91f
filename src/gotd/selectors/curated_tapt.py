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
from gotd.selectors.neighbours import Neighbours, enough_neighbours, neighbours_work, take_ids
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

        def order(near: Neighbours) -> np.ndarray | None:
            flat = np.lexsort([key.ravel() for key in (near.order, near.distances, near.rank)])
            if not self.duplicates:
                # The first time that each row is met, in the order of the ranking.
                rows = near.rows.ravel()[flat]
                flat = flat[np.sort(np.unique(rows, return_index=True)[1])]
            return flat[:limit] if len(flat) >= limit else None

        # Enough if no row is shared; doubled until the distinct rows suffice.
        first = -(-limit // len(target))
        near, best = enough_neighbours(
            target, candidates, first, engine, order, normalise=self.normalise
        )
        rows, rank = near.rows.ravel()[best], near.rank.ravel()[best]
        return Ranking(
            take_ids(candidates, rows),
            rank.astype(np.float64),
            with_replacement=self.duplicates,
            diagnostics={
                "neighbours_per_target": near.k,
                "distinct_rows": len(np.unique(rows)),
                "last_neighbour": int(rank[-1]),
            },
        )

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one search for all neighbours of the first lists."""
        return neighbours_work(n_candidates, n_targets, width, -(-limit // n_targets))
