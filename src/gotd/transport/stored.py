"""The plan of a pass, kept in memory so that a correction needs no second matrix product.

A pass computes the plan ``P_ij = softmax_j(gamma_j - C_ij / eps)`` block by block. A change
``delta`` of ``gamma`` multiplies its columns, so with the entries at hand

    s_i = sum_j P_ij exp(delta_j),   f_i' = f_i - eps log s_i,
    r_j' = exp(delta_j) sum_i a_i P_ij / s_i

are two matrix-vector products. The entries are stored in float16, and the marginal error does
not show an error of ``r'`` that comes from their rounding. So only *changes* are taken from the
stored plan: ``r'`` is the mass of the pass plus the difference of two sums over the same rounded
entries. The error that is left falls with ``delta``. It is measured like that of any pass, see
`gotd.transport.passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Block

# Largest number of stored entries, two bytes each: half a GiB. It is the same on all machines, so
# a ranking does not depend on the machine.
MOST_ENTRIES = 2**28
# A row has 16 bytes beside its entries, its potential and its mass: as much as eight entries.
ROW_ENTRIES = 8

# Entries below 6e-8 are stored as 0. After a change of exp(6) they are still below 3e-5, and what
# is missing is part of the rounding that is measured.
LARGEST_CHANGE = 6.0

Stored = tuple[Block, Tensor, Tensor, Tensor]
"""A block, its ``[n, m]`` float16 entries, ``[n]`` float64 potentials and ``[n]`` masses."""


def fits(n_candidates: int, n_target: int) -> bool:
    """Whether the plan of a problem may be stored."""
    return n_candidates * (n_target + ROW_ENTRIES) <= MOST_ENTRIES


class StoredPlan:
    """Row-normalised plan entries of a pass over all candidates.

    Args:
        epsilon: Absolute epsilon.
        gamma: ``[m]`` float64 of the pass.
        weight: Maps ``[n]`` potentials to the share of its mass that a row sends; ``None``: all.
    """

    def __init__(
        self, epsilon: float, gamma: Tensor, weight: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.epsilon, self.gamma, self.weight = epsilon, gamma, weight
        self._blocks: list[Stored] = []
        self._received = torch.zeros_like(gamma)
        self._rounded: Tensor | None = None

    def add(self, block: Block, entries: Tensor, f: Tensor, mass: Tensor) -> None:
        """Store a block.

        Args:
            block: Its place.
            entries: ``[n, m]`` float16 plan entries; rows sum to 1.
            f: ``[n]`` float64 potentials of the pass.
            mass: ``[n]`` float64 masses, before ``weight``.
        """
        self._blocks.append((block, entries, f, mass))

    def complete(self, received: Tensor) -> None:
        """Set the ``[m]`` float64 masses that targets receive in the pass."""
        self._received = received

    def reaches(self, gamma: Tensor) -> bool:
        """Whether a change to ``gamma`` is small enough for the stored entries."""
        change = gamma - self.gamma
        return float(change.max() - change.min()) <= LARGEST_CHANGE

    def scan(self, gamma: Tensor, out: Sequence[np.ndarray]) -> Tensor:
        """Compute candidate potentials and received masses for another ``gamma``.

        Args:
            gamma: ``[m]`` float64, which `reaches` accepts.
            out: Per candidate array ``[n_k]`` float64, filled with the potential.

        Returns:
            ``[m]`` float64 mass that each target receives.
        """
        change = gamma - self.gamma
        # A constant leaves the plan as it is and shifts every potential.
        shift = change.mean()
        v = (change - shift).exp().float()
        received, rounded = torch.zeros_like(gamma), torch.zeros_like(gamma)
        for block, entries, f, mass in self._blocks:
            p = entries.float()
            ones, sums = p.sum(dim=1), p @ v
            moved = f - self.epsilon * (sums.double().log() - ones.double().log() + shift)
            received += self._sent(p, mass, moved, sums)
            if self._rounded is None:
                rounded += self._sent(p, mass, f, ones)
            out[block.array][block.start : block.stop] = moved.cpu().numpy()
        if self._rounded is None:
            self._rounded = rounded
        return (self._received + (v * received - self._rounded)).clamp(min=0.0)

    def _sent(self, p: Tensor, mass: Tensor, f: Tensor, sums: Tensor) -> Tensor:
        mass = mass if self.weight is None else mass * self.weight(f)
        return (p.T @ (mass.float() / sums)).double()
