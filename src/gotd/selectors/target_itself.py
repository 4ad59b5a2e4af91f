"""The target's own texts, all of them: the baseline for selecting from a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import FULL_TARGET, Out, Scores, ScoringSelector
from gotd.selectors.random import Random


@dataclass(frozen=True)
class TargetItself(ScoringSelector):
    """Every text of the target, in a random order.

    The paper lacks this selection and its reviewers asked for it: training on the 2,500
    target texts themselves.
    """

    key_name: ClassVar[str] = "TargetItself"
    name: ClassVar[str] = "target_itself"
    requires: ClassVar[frozenset[str]] = frozenset({FULL_TARGET})

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score the candidates, which are the target's texts, by a uniform number per id."""
        return Random().compute_scores(target, candidates, seed, engine, out)
