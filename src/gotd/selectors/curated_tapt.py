"""Curated task-adaptive pre-training: the nearest neighbours of every target.

All first neighbours come first, then all second ones, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, check_request
from gotd.selectors.neighbours import nearest_neighbours


@dataclass(frozen=True)
class CuratedTAPT:
    """Rank candidates by the best place they take among any target's neighbours.

    The score is that place (1 for a first neighbour); within one place the smaller
    distance comes first, then the id. A row that two targets share is taken once, so
    a target in a crowd brings fewer rows of its own than one that stands alone:
    ``RoundRobin`` gives both the same number.

    Embeddings are whatever the arm is given. The original embeds by VAMPIRE, a
    variational model of word counts; the paper's appendix E by MiniLM.

    Args:
        duplicates: Keep repeated rows, as the published copy does, in which about
            half of a 50,000-row selection repeats. The ranking is then with
            replacement, and its distinct rows are fewer than the budget.
        normalise: Scale embeddings to unit length first (as the original does).

    Source: Gururangan et al. (2020), "Don't Stop Pretraining", §4.3 (kNN-TAPT);
    GOT-D (ICLR 2024) App. C.5, the TAPT/c rows.
    """

    key_name: ClassVar[str] = "CuratedTAPT"

    duplicates: bool = False
    normalise: bool = False

    name: ClassVar[str] = "curated_tapt"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by place among the neighbours; nothing is left to chance.

        Raises:
            ValueError: If the request cannot be met (see ``check_request``).
        """
        check_request(self, target, candidates, limit)
        n_candidates = sum(map(len, candidates))
        # Enough if no row is shared; doubled until the distinct rows suffice.
        k = min(n_candidates, -(-limit // len(target)))
        while True:
            found = nearest_neighbours(target, candidates, k, engine, normalise=self.normalise)
            place = np.broadcast_to(np.arange(1, k + 1), found.rows.shape).ravel()
            order = np.lexsort((found.order.ravel(), found.distances.ravel(), place))
            if not self.duplicates:
                # The first time that each row is met, in the order of the ranking.
                order = order[np.sort(np.unique(found.rows.ravel()[order], return_index=True)[1])]
            if len(order) >= limit:
                break
            k = min(n_candidates, 2 * k)
        chosen = order[:limit]
        rows = found.rows.ravel()[chosen]
        ids = pa.chunked_array([shard.ids for shard in candidates]).take(pa.array(rows))
        return Ranking(
            ids.combine_chunks(),
            place[chosen].astype(np.float64),
            with_replacement=self.duplicates,
            diagnostics={
                "neighbours_per_target": k,
                "distinct_rows": len(np.unique(rows)),
                "last_place": int(place[chosen[-1]]),
            },
        )
