"""Nearest: the candidates closest to any target, whatever the pool already contains.

GOT-D's potential is a soft distance to the nearest target *minus that target's price*,
which is high where candidates lack. With all prices zero only the distance is left. So
every table has this selector next to GOT-D: the difference is what transport adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector
from gotd.selectors.transport_settings import Comparison
from gotd.transport.nearest import nearest_cost


@dataclass(frozen=True)
class Nearest(Comparison, ScoringSelector):
    """Rank candidates by ``min_j C_ij``, the cost to the nearest target, lowest first.

    Args:
        cost: ``squared_euclidean`` or ``cosine``, the same as GOT-D's.
        whiten: This and the others: see `Comparison`.
    """

    key_name: ClassVar[str] = "Nearest"
    name: ClassVar[str] = "nearest"

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the cost to the nearest target; the seed has no effect."""
        problem = self.problem(target, candidates)
        compute = self.compute(problem, engine)
        return Scores(nearest_cost(problem, compute, out), {"precision": compute.precision})
