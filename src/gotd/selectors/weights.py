"""Weights of a whole pool from the scores of a selector: how often to draw each row.

The weight of a row is ``exp(-score / scale)``, divided by its mean over the rows that compete.
So 1 is a row of a uniform draw, and the weight over the sum of all weights is the probability.
Where a score is a logarithm of a density ratio, its scale is 1 and the weight is that ratio.
Distances and gradients have no such unit. Their scale is the standard deviation of the scores,
so the weights are a Gibbs distribution that does not depend on the unit of the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

MOST_SCORE = 1e11
"""A score above it marks a row that comes behind all others; its weight is 0."""
BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class Weighting:
    """How scores become weights.

    Args:
        scale: Score by which a weight falls to 1/e.
        least: Smallest score, whose weight is the largest one.
        factor: Weight of the row with the smallest score.
        rows: Rows that have a score.
        effective_rows: ``(sum w)^2 / sum w^2``: a uniform draw from so many rows would vary
            as much (Kish's effective sample size).
    """

    scale: float
    least: float
    factor: float
    rows: int
    effective_rows: float

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], scale: float | None) -> Weighting:
        """Compute the weighting of a pool in three passes over its scores.

        Args:
            scores: Per shard ``[n]`` float64, lower is better; memory maps are read in blocks.
            scale: As above; ``None``: the standard deviation of the scores.

        Raises:
            ValueError: If there is no score below `MOST_SCORE`, or one is NaN.
        """
        rows, used, total, least = 0, 0, 0.0, np.inf
        for block, ranked in _blocks(scores):
            rows, used = rows + len(block), used + len(ranked)
            total += float(ranked.sum())
            least = min(least, float(ranked.min(initial=np.inf)))
        if not used:
            raise ValueError("no candidate has a score, so none has a weight")
        if scale is None:
            mean = total / used
            spread = sum(float(np.square(ranked - mean).sum()) for _, ranked in _blocks(scores))
            scale = float(np.sqrt(spread / used)) or np.inf
        sums = np.zeros(2)
        for _, ranked in _blocks(scores):
            relative = np.exp((least - ranked) / scale)
            sums += relative.sum(), np.square(relative).sum()
        return cls(scale, least, rows / sums[0], rows, sums[0] ** 2 / sums[1])

    def weights(self, scores: np.ndarray) -> np.ndarray:
        """Return the weights of some rows, of mean 1 over all rows: float64 ``[n]``."""
        weights = self.factor * np.exp((self.least - np.minimum(scores, MOST_SCORE)) / self.scale)
        return np.where(scores < MOST_SCORE, weights, 0.0)


def _blocks(scores: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of scores, and of those the ones that rows with a weight have."""
    for shard in scores:
        for start in range(0, len(shard), BLOCK_ROWS):
            block = np.asarray(shard[start : start + BLOCK_ROWS], dtype=np.float64)
            if np.isnan(block).any():
                raise ValueError("a score is NaN; look for empty texts")
            yield block, block[block < MOST_SCORE]
