"""LESS: the candidates whose gradient is most like that of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gotd.selectors.nearest import Nearest
from gotd.transport.cost import Cost


@dataclass(frozen=True)
class Less(Nearest):
    """Rank candidates by the largest cosine of their gradient and a target's.

    Gradients are those of the model that will be trained, after a short warm-up; see
    `gotd.embedding.gradient.GradientEncoder`. The score is one minus the cosine with the best
    target; in the source it is the best subtask. The seed has no effect.

    Args:
        cost: Of two gradients.
        whiten: This and the others: see `Comparison`.

    Source: Xia et al. (2024), LESS: selecting influential data for targeted instruction
    tuning.
    """

    key_name: ClassVar[str] = "Less"
    name: ClassVar[str] = "less"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings", "model"})
    space: ClassVar[str | None] = "gradient"

    cost: Cost = "cosine"
