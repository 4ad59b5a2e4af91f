"""Partial transport: GOT-D where only a share of the mass is sent, where it is cheapest.

Targets that no candidate is near need not be served, and candidates far from every target
need not take part. Both may be noise: odd rows of a target, and most of a large pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from gotd.selectors.relaxed_transport import RelaxedTransport
from gotd.transport.relaxed import Relaxation, Share


@dataclass(frozen=True)
class PartialOT(RelaxedTransport):
    """Rank candidates by the gradient of partial transport in their masses, lowest first.

    A plan sends the mass ``share`` in all. No row sends more than its own mass, and no target
    receives more than its own. With a share near 1 this is GOT-D. With a small one it is the
    distance to the nearest targets. The derivation is in `gotd.transport.relaxed`.

    Args:
        share: Mass that is sent, in (0, 1).
        epsilon: This and the others: see `TransportSettings`.

    Source: Caffarelli and McCann (2010) and Figalli (2010) for partial transport; Benamou et
    al. (2015) for its entropic form; Chapel, Alaya and Gasso (2020) for its use in learning.
    """

    key_name: ClassVar[str] = "PartialOT"
    version: ClassVar[int] = 2  # 2: corrections are changes of the stored plan of a pass
    name: ClassVar[str] = "partial_ot"

    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1:
            raise ValueError(f"{self.name}: share must be between 0 and 1, not {self.share}")

    def relaxation(self, b: Tensor, epsilon: float, mean_cost: float) -> Relaxation:
        """Return the bound of both sides' masses."""
        return Share(b, epsilon, self.share)
