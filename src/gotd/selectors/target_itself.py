"""The target's own texts, all of them: what selecting from a pool has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking
from gotd.selectors.random import Random

WHOLE_TARGET = "the target as candidates"
"""In ``requires``: the candidates are the target's texts, and no budget cuts them."""


@dataclass(frozen=True)
class TargetItself:
    """Take every text of the target, in a random order.

    An arm that the paper lacks and its reviewers asked for: training on the 2,500
    target texts themselves.
    """

    key_name: ClassVar[str] = "TargetItself"

    name: ClassVar[str] = "target_itself"
    requires: ClassVar[frozenset[str]] = frozenset({WHOLE_TARGET})

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank the candidates, which are the target's texts, by a uniform number per id.

        Raises:
            ValueError: If ``limit`` exceeds the target.
        """
        return Random().rank(target, candidates, limit, seed, engine)
