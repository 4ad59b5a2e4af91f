"""Sums of a kernel between candidates and weighted points, block by block.

    h_i = sum_j w_j k(x_i, y_j)

These are all that the maximum mean discrepancy needs. Between masses ``a`` on ``x`` and ``b``
on ``y`` it is

    MMD^2 = sum_ii' a_i a_i' k(x_i, x_i') - 2 sum_ij a_i b_j k(x_i, y_j)
            + sum_jj' b_j b_j' k(y_j, y_j'),

and its derivative in ``a_i`` is twice the mean of ``k(x_i, .)`` over the candidates minus that
over the target.

Source: Gretton et al. (2012), A kernel two-sample test; Sejdinovic et al. (2013) for the
energy distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Block, Compute, Logits, Stream, full_float32
from gotd.transport.cost import squared_norms
from gotd.transport.problem import Problem

KernelName = Literal["rbf", "energy"]


@dataclass(frozen=True)
class Kernel:
    """A similarity of two rows with cost ``C``, a squared distance.

    Args:
        name: ``rbf`` for ``exp(-C / (2 width^2))``; ``energy`` for the negative distance,
            with which MMD^2 is the energy distance.
        width: Of ``rbf``, in the unit of distances.
    """

    name: KernelName
    width: float

    @property
    def own(self) -> float:
        """Return the similarity of a row to itself, the largest there is."""
        return 1.0 if self.name == "rbf" else 0.0

    @property
    def unit(self) -> float:
        """Return the cost that the kernel divides by."""
        return 2.0 * self.width**2 if self.name == "rbf" else 1.0

    def of(self, cost: Tensor) -> Tensor:
        """Compute similarities from costs in units of `unit`, in place."""
        return cost.neg_().exp_() if self.name == "rbf" else cost.sqrt_().neg_()

    def similarity(self, x: Tensor, logits: Logits) -> Tensor:
        """Compute ``[n, m]`` similarities of ``[n, d]`` rows that a stream loaded.

        Args:
            x: The rows.
            logits: Logits of the stream at an epsilon of `unit`.
        """
        # Rounding may make a cost of zero negative.
        return self.of((squared_norms(x)[:, None] / self.unit).sub(logits(x)).clamp_(min=0.0))


@full_float32()
def kernel_sums(
    problem: Problem,
    weights: np.ndarray,
    kernel: Kernel,
    compute: Compute | None = None,
    out: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, ...]:
    """Compute the weighted sum of similarities of every candidate.

    Args:
        problem: Candidates, points (its target) and geometry; masses and epsilon are not used.
        weights: ``[m]`` weights of the points, of either sign.
        kernel: The kernel.
        compute: Precision, device, block size and map.
        out: Per candidate array ``[n_k]`` float64, such as a file, filled with the sums.

    Returns:
        Per candidate array ``[n_k]`` float64.
    """
    stream = Stream(problem, compute or Compute())
    sums = stream.outputs(out)
    logits = Logits(stream, kernel.unit)
    w = torch.as_tensor(weights, dtype=stream.dtype, device=stream.device)

    def pass_block(block: Block) -> tuple[np.ndarray, int]:
        x, _ = stream.load_block(block)
        # Not a matrix-vector product: it may sum equal rows in different orders, and equal
        # rows must have equal sums.
        values = kernel.similarity(x, logits).mul_(w).sum(dim=1).double()
        return values.cpu().numpy(), 0

    stream.fill(sums, pass_block)
    return sums


def fit_kernel(problem: Problem, name: KernelName, rows: np.ndarray) -> Kernel:
    """Fit the width of a kernel: the median distance of some rows.

    Args:
        problem: Its geometry maps the rows.
        name: The kernel; ``energy`` has no width.
        rows: ``[n, d]`` embeddings of both sides; all pairs are compared.

    Raises:
        ValueError: If half of the pairs are equal rows and the width would be zero.
    """
    if name == "energy":
        return Kernel(name, 0.0)
    mapped = problem.geometry.embed(torch.as_tensor(np.asarray(rows, dtype=np.float64)))
    width = float(torch.nn.functional.pdist(mapped).median())
    if not width > 0:
        raise ValueError(
            "half of the pairs of rows have equal embeddings, so the median distance is zero; "
            "drop repeated rows, or use kernel=energy"
        )
    return Kernel(name, width)
