"""The cost between two texts: a squared distance after a map of the rows.

Every cost here is ``C_ij = |phi(x_i) - phi(y_j)|^2`` for a row map ``phi`` that is the
same for candidates and targets. So one matrix product gives a block of costs, and the mean
cost needs only means and norms. GOT-D's published cost is the squared Euclidean distance of
raw embeddings (OTT's default; the paper does not state it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Cost = Literal["squared_euclidean", "cosine"]

# Directions in which the candidates hardly vary are noise. Without a floor, whitening
# would scale them up until they dominate all distances.
VARIANCE_FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class Whitening:
    """A linear map after which the candidates have equal variance in all directions.

    It is fitted on the candidates and applied to both sides. No mean is subtracted: a common
    shift does not change distances, and separate shifts would remove the difference that
    transport measures.

    Args:
        matrix: ``[d, d]`` float64; rows are mapped by ``x @ matrix``.
    """

    matrix: np.ndarray

    @classmethod
    def fit(cls, candidates: Sequence[np.ndarray], block_rows: int = 8192) -> Whitening:
        """Fit ``V diag(1 / sqrt(lambda + floor))`` to the candidates' covariance.

        Args:
            candidates: Arrays of ``[n_k, d]`` embeddings.
            block_rows: Rows that are read at once.

        Raises:
            ValueError: If all candidates are equal.
        """
        width = candidates[0].shape[1]
        count, total, gram = 0, np.zeros(width), np.zeros((width, width))
        # Any common origin is valid; one near the data reduces rounding errors.
        origin = np.asarray(candidates[0][:block_rows], dtype=np.float64).mean(axis=0)
        for array in candidates:
            for start in range(0, len(array), block_rows):
                rows = np.asarray(array[start : start + block_rows], dtype=np.float64) - origin
                count += len(rows)
                total += rows.sum(axis=0)
                gram += rows.T @ rows
        mean = total / count
        variance, directions = np.linalg.eigh(gram / count - np.outer(mean, mean))
        variance = np.clip(variance, 0.0, None)
        if variance.sum() <= 0.0:
            raise ValueError("all candidate embeddings are equal; whitening needs some variance")
        return cls(directions / np.sqrt(variance + VARIANCE_FLOOR * variance.mean()))


@dataclass(frozen=True, eq=False)
class Geometry:
    """The row map that turns a cost into a squared Euclidean distance.

    Args:
        cost: ``squared_euclidean`` for ``|x - y|^2``; ``cosine`` for
            ``1 - <x, y> / (|x| |y|)``, half the squared distance of the unit vectors.
        whitening: Linear map applied first, to both sides.
    """

    cost: Cost = "squared_euclidean"
    whitening: Whitening | None = None

    def __post_init__(self) -> None:
        if self.cost not in ("squared_euclidean", "cosine"):
            raise ValueError(f"cost must be squared_euclidean or cosine, not {self.cost!r}")

    def embed(self, rows: Tensor) -> Tensor:
        """Map ``[n, d]`` rows so that costs are squared distances of the result.

        Raises:
            ValueError: If the cost is cosine and a row is zero.
        """
        if self.whitening is not None:
            rows = rows @ torch.as_tensor(self.whitening.matrix, dtype=rows.dtype).to(rows.device)
        if self.cost == "squared_euclidean":
            return rows
        norms = rows.norm(dim=1, keepdim=True)
        if not bool((norms > 0).all()):
            raise ValueError(
                f"{int((norms == 0).sum())} embeddings are zero and have no direction; "
                "drop those rows or use cost=squared_euclidean"
            )
        return rows / (math.sqrt(2.0) * norms)


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums that determine a mean squared distance, kept in float64.

    Args:
        mass: Sum of the masses.
        first: ``[d]`` mass-weighted sum of the rows.
        second: Mass-weighted sum of the squared norms.
    """

    mass: float = 0.0
    first: np.ndarray = field(default_factory=lambda: np.zeros(1))
    second: float = 0.0

    @classmethod
    def of(cls, rows: Tensor, mass: Tensor) -> Moments:
        """Sum ``[n, d]`` rows with ``[n]`` masses."""
        weights = mass.to(rows.dtype)
        squared = squared_norms(rows).double()
        first = (weights @ rows).double().cpu().numpy()
        return cls(float(mass.sum()), first, float(mass.double() @ squared))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.mass + other.mass, self.first + other.first, self.second + other.second)


def squared_norms(rows: Tensor) -> Tensor:
    """Return ``[n]`` squared norms without a temporary copy of the rows."""
    return torch.linalg.vector_norm(rows, dim=1).square()


def mean_cost(candidates: Moments, target: Moments) -> float:
    """Compute the mean cost over all pairs from moments, without the pairs.

    ``sum_ij a_i b_j |x_i - y_j|^2 = E|x|^2 + E|y|^2 - 2 <E x, E y>``, exact in
    ``O((n + m) d)``.

    Args:
        candidates: Moments of the mapped candidates.
        target: Moments of the mapped targets, about the same origin.
    """
    x, y = candidates.first / candidates.mass, target.first / target.mass
    return candidates.second / candidates.mass + target.second / target.mass - 2.0 * float(x @ y)


def cost_matrix(candidates: Tensor, target: Tensor) -> Tensor:
    """Compute all costs of mapped rows, for problems that fit in memory.

    Args:
        candidates: ``[n, d]`` mapped candidates.
        target: ``[m, d]`` mapped targets.

    Returns:
        ``[n, m]`` costs; candidates are the rows.
    """
    # A common shift reduces rounding errors: embeddings are often far from the origin.
    center = target.mean(dim=0)
    x, y = candidates - center, target - center
    cost = squared_norms(x)[:, None] + squared_norms(y)[None, :] - 2.0 * (x @ y.T)
    return cost.clamp_(min=0.0)
