"""Unbalanced transport: GOT-D where one side's masses may change at a price.

GOT-D must use every row of the pool and serve every target in full. A group of odd targets
then has high prices, and a group of odd candidates takes part of the target away from the
rows that fit it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from gotd.selectors.relaxed_transport import RelaxedTransport
from gotd.transport.relaxed import CandidatesKL, Relaxation, TargetKL


@dataclass(frozen=True)
class UnbalancedOT(RelaxedTransport):
    """Rank candidates by the gradient of transport with one relaxed marginal, lowest first.

    The masses of that side may differ from the given ones, and the cost has the term
    ``price * mean cost * KL(new masses | given masses)``. A high price gives GOT-D. A low one

    - for ``candidates`` lets every target take the rows nearest to it, so that rows which no
      target asks for have no effect;
    - for ``target`` serves those targets less that are hard to reach; without a price all targets
      count alike, as in `Nearest`.

    The derivation is in `gotd.transport.relaxed`.

    Args:
        relaxed: The side whose masses may change, ``candidates`` or ``target``.
        price: Price of a change, in mean costs.
        epsilon: This and the others: see `TransportSettings`.

    Source: Chizat et al. (2018), Scaling algorithms for unbalanced optimal transport
    problems; Sejourne et al. (2019), Sinkhorn divergences for unbalanced transport.
    """

    key_name: ClassVar[str] = "UnbalancedOT"
    version: ClassVar[int] = 2  # 2: corrections are changes of the stored plan of a pass
    name: ClassVar[str] = "unbalanced_ot"

    relaxed: Literal["candidates", "target"] = "candidates"
    price: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.price < float("inf"):
            raise ValueError(f"{self.name}: price must be positive and finite, not {self.price}")

    def relaxation(self, b: Tensor, epsilon: float, mean_cost: float) -> Relaxation:
        """Return the relaxation of one side by KL."""
        kind = CandidatesKL if self.relaxed == "candidates" else TargetKL
        return kind(b, epsilon, self.price * mean_cost)
