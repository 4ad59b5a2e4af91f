"""Intervals over seeds, paired tests, and the smallest difference they could have detected.

The unit of chance is the seed. In the generated benchmark a seed draws a new world, its base
model included; on real data it draws the rows held out for the model choice, the labelled
subset where labels are limited, the head and the training order. Either way cells that share
a seed are not independent. So tests and intervals over several tasks first average within a
seed and then compare seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

DRAWS = 100_000  # all 2^n sign patterns are enumerated up to n = 16
RESAMPLES = 10_000
LEVEL, POWER = 0.05, 0.8  # of a test


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval.

    Args:
        mean: Mean over the ``n`` values; NaN when there are none.
        low: Lower end; NaN when ``n < 2``, because one value says nothing about spread.
        high: Upper end; likewise.
        n: How many values went in.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Return half the length of the interval; NaN when there is none."""
        return (self.high - self.low) / 2


def decimals(intervals: Iterable[Interval], factor: float) -> int:
    """Return one decimal where intervals are wider than a point, else two."""
    widths = [i.half_width * factor for i in intervals if not np.isnan(i.half_width)]
    return 1 if widths and factor > 1 and float(np.median(widths)) >= 1 else 2


def format_interval(interval: Interval, expected: int, factor: float, digits: int) -> str:
    """Format ``mean ± half-width``; mark what is incomplete; leave the unmeasured empty.

    Args:
        interval: Mean and interval in metric units.
        expected: Seeds a complete cell has; zero when the cell was never asked for.
        factor: 100 for scores, 1 for perplexities.
        digits: Decimals.
    """
    if expected == 0:
        return ""
    mark = "" if interval.n == expected else f" ({interval.n}/{expected})"
    if interval.n == 0:
        return "–" + mark
    text = f"{interval.mean * factor:.{digits}f}"
    if not np.isnan(interval.half_width):
        text += f" ± {interval.half_width * factor:.{digits}f}"
    return text + mark


@dataclass(frozen=True)
class PairedTest:
    """The test of paired differences between two arms.

    Args:
        difference: Mean difference with its t-interval over pairs.
        p_value: Two-sided sign-flip p; NaN without pairs.
        floor: Smallest p this many pairs can give, ``2 / 2^n``.
        detectable: Smallest true difference a paired t-test would find with power 0.8 at
            the spread seen here; NaN when ``n < 2``.
    """

    difference: Interval
    p_value: float
    floor: float
    detectable: float

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.difference.n


def t_interval(values: Sequence[float] | Floats) -> Interval:
    """Compute the mean and its 95 % t-interval, ``mean ± t_{n-1} s / sqrt(n)``.

    Args:
        values: One value per independent unit (a seed, which in the generated benchmark is
            a world); NaN marks a missing one and is left out, ``n`` counts the others.
    """
    present = _present(values)
    n = len(present)
    mean = float(present.mean()) if n else np.nan
    if n < 2:
        return Interval(mean, np.nan, np.nan, n)
    half = float(stats.t.ppf(0.975, n - 1) * present.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def _present(values: Sequence[float] | Floats) -> Floats:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[~np.isnan(array)]


def interquartile_mean(cells: Floats, axis: int = -1) -> Floats:
    """Average the middle half along an axis, so that one odd cell has no influence."""
    return np.asarray(stats.trim_mean(cells, 0.25, axis=axis))


def stratified_bootstrap(
    scores: Floats,
    rng: np.random.Generator,
    statistic: Callable[..., Floats] = np.mean,
    whole_seeds: bool = False,
) -> Interval:
    """Resample an aggregate over tasks with the tasks held fixed.

    Every resample keeps all tasks and draws, within each, as many seeds as there are. This
    treats the tasks as independent given the seeds' draw; where a seed is a world that all
    tasks share, complete rows must be resampled or the interval comes out too short.
    Percentile intervals from few seeds are short anyway (with five seeds of one task they
    cover about 83 % where 95 % are meant): read the t-interval first.

    Args:
        scores: ``[n_seed, n_task]`` without gaps.
        rng: Source of the resamples.
        statistic: Reduces ``[…, n_seed * n_task]`` along ``axis``.
        whole_seeds: Draw rows (a seed with all its tasks) instead of cells.

    Raises:
        ValueError: If a cell is missing; aggregate over complete seeds only.

    Source: stratified bootstrap of rliable (Agarwal et al. 2021), with an explicit generator.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2:
        raise ValueError(f"scores must be [n_seed, n_task], not of shape {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("scores have gaps; aggregate over seeds for which every task is done")
    n_seed, n_task = scores.shape
    if scores.size == 0:
        return Interval(np.nan, np.nan, np.nan, n_seed)
    centre = float(statistic(scores.ravel(), axis=-1))
    if n_seed == 1:
        return Interval(centre, np.nan, np.nan, 1)
    seeds = rng.integers(n_seed, size=(RESAMPLES, n_seed, 1 if whole_seeds else n_task))
    resamples = scores[seeds, np.arange(n_task)].reshape(RESAMPLES, -1)
    low, high = np.quantile(statistic(resamples, axis=-1), [0.025, 0.975])
    return Interval(centre, float(low), float(high), n_seed)


def p_floor(n: int) -> float:
    """Return the smallest two-sided p that ``n`` sign flips can give, ``2 / 2^n``."""
    return 1.0 if n < 1 else 2.0 / 2.0**n


def sign_flip_p(differences: Sequence[float] | Floats, rng: np.random.Generator) -> float:
    """Test by sign flips whether paired differences are centred on zero (two-sided).

    Under the null each difference is as likely as its negative. The statistic is
    ``|mean|``; all ``2^n`` patterns are enumerated while they are at most ``DRAWS``, beyond
    that ``(1 + hits) / (1 + DRAWS)`` over random patterns, which is valid and never zero.

    Args:
        differences: One per independent pair; NaN marks a missing pair and is left out.
        rng: Source of the random patterns; unused when the test is exact.
    """
    present = _present(differences)
    if len(present) < 2:  # one difference is as large as its negative
        return 1.0 if len(present) else float("nan")
    most = float(np.abs(present).sum()) or 1.0

    def size(values: Floats, axis: int) -> Floats:
        # Sums that are equal on paper may differ in the last bits; rounding makes them ties.
        return np.round(np.abs(values.sum(axis=axis)) / most, 9)

    test = stats.permutation_test(
        (present,),
        size,
        permutation_type="samples",
        vectorized=True,
        n_resamples=DRAWS,
        batch=4096,
        alternative="greater",
        rng=rng,
    )
    return float(test.pvalue)


def detectable_effect(spread: float, n: int) -> float:
    """Compute the smallest true mean difference a paired t-test would detect.

    Solves ``P(T > t_{n-1, 0.975}) = 0.8`` for the non-centrality ``delta * sqrt(n) / spread``
    of a non-central t with ``n - 1`` degrees of freedom: power 0.8 at the two-sided level 0.05,
    before any correction for multiplicity. Significant on the wrong side is no detection.

    Args:
        spread: Standard deviation of the paired differences, in the unit of the answer.
        n: Number of pairs.

    Returns:
        The difference, in the unit of ``spread``; NaN when ``n < 2``.
    """
    if n < 2 or np.isnan(spread):
        return float("nan")
    shift = special.nctdtrinc(n - 1, 1 - POWER, stats.t.ppf(1 - LEVEL / 2, n - 1))
    return float(shift * spread / np.sqrt(n))


def paired_test(differences: Sequence[float] | Floats, rng: np.random.Generator) -> PairedTest:
    """Test paired differences, one per independent unit.

    Args:
        differences: Arm minus reference, NaN where either is missing.
        rng: For the permutation test when it cannot be exact.
    """
    present = _present(differences)
    n = len(present)
    spread = float(present.std(ddof=1)) if n > 1 else float("nan")
    p_value, detectable = sign_flip_p(present, rng), detectable_effect(spread, n)
    return PairedTest(t_interval(present), p_value, p_floor(n), detectable)


def seed_differences(arm: Floats, reference: Floats) -> Floats:
    """Average paired differences over tasks within each seed.

    A seed counts only when every task is done for both arms; otherwise its entry is NaN,
    since a mean over fewer tasks is another quantity.

    Args:
        arm: ``[n_task, n_seed]`` scores, NaN where not done.
        reference: ``[n_task, n_seed]`` scores of the arm compared against.

    Returns:
        ``[n_seed]`` differences.
    """
    return (np.asarray(arm, np.float64) - np.asarray(reference, np.float64)).mean(axis=0)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Compute p-values that are adjusted for multiplicity by Holm's step-down method.

    The k-th smallest of m is multiplied by ``m - k + 1``, then made non-decreasing and cut
    at 1. NaN (nothing to test) stays NaN and does not count towards m.

    Source: Holm (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted
