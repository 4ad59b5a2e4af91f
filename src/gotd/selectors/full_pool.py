"""All candidates: the baseline of training on everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import FULL_POOL, Out, Scores, ScoringSelector
from gotd.selectors.random import Random


@dataclass(frozen=True)
class FullPool(ScoringSelector):
    """Every candidate, in a random order.

    Source: TSDS (NeurIPS 2024), the arm "Full" of its instruction tuning.
    """

    key_name: ClassVar[str] = "FullPool"
    name: ClassVar[str] = "full_pool"
    requires: ClassVar[frozenset[str]] = frozenset({FULL_POOL})
    reads_target: ClassVar[bool] = False

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score the candidates by a uniform number per id."""
        return Random().compute_scores(target, candidates, seed, engine, out)
