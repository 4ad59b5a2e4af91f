"""RDS+: every target in turn takes the candidate that its own model finds most similar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from gotd.selectors.round_robin import RoundRobin


@dataclass(frozen=True)
class RDSPlus(RoundRobin):
    """Rank candidates by turns of the targets, in the space of the model that will be trained.

    A text is the mean of its last hidden states, weighted by their positions, so that later
    tokens, which have read more, count more. Similarity is the cosine. The seed has no effect.

    Args:
        normalise: Scale embeddings to unit length first, as the cosine does.

    Source: Ivison et al. (2025), Large-scale data selection for instruction tuning;
    Muennighoff (2022), SGPT, for the weights.
    """

    key_name: ClassVar[str] = "RDSPlus"
    name: ClassVar[str] = "rds_plus"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings", "model"})
    space: ClassVar[str | None] = "hidden_weighted"

    normalise: bool = True
