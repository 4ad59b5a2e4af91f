"""The fit in memory: Sinkhorn on a sample of the candidates.

A few thousand candidates are enough to know the target potential nearly; what the
sample gets wrong is corrected afterwards by passes over everybody (`semidual`). The
sample's kernel stays resident, so an iteration is two matrix-vector products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Logits, Stream, smallest_weight
from gotd.transport.problem import PIECE_ROWS, SMALL_PROBLEM

# The sampling error of the target marginal falls with the square root of rows per
# target: ten per target leave one or two corrections, under five they stagnate.
ROWS_PER_TARGET, LEAST_ROWS_PER_TARGET, LEAST_ROWS = 10, 5, 10_000
RESIDENT_ENTRIES = 2**28

# Kernel entries below exp(-64) are dropped in float32; rebuilding the kernel whenever
# the scaling has moved by exp(20) keeps every lost entry negligible.
REBUILD_LOG_RANGE = 20.0
OVER_RELAXATION = 1.5


def reference_size(n_candidates: int, n_target: int, rows: int | None = None) -> int:
    """Decide how many candidates to hold in memory during the fit.

    All of them when the problem is small, so that it is solved exactly; otherwise ten
    per target, fewer (never under five) once the kernel would exceed 1 GiB. Depends on
    the problem alone and not on the machine, as the ranking does.

    Args:
        n_candidates: Candidates in all.
        n_target: Targets.
        rows: A wish that overrides the rule.

    Raises:
        ValueError: If the wish is not positive.
    """
    if rows is not None:
        if rows < 1:
            raise ValueError(f"reference_rows must be at least 1, not {rows}")
        return min(rows, n_candidates)
    if n_candidates * n_target <= SMALL_PROBLEM:
        return n_candidates
    fitting = max(RESIDENT_ENTRIES // n_target, LEAST_ROWS_PER_TARGET * n_target)
    return min(n_candidates, max(LEAST_ROWS, min(ROWS_PER_TARGET * n_target, fitting)))


def smallest_priority(
    priority: Iterable[np.ndarray], rows: int, lengths: Sequence[int]
) -> np.ndarray:
    """Choose the ``rows`` rows with the smallest priority.

    With priorities that are a hash of the row's id this is a uniform sample which
    depends neither on the order of the rows nor on how they are cut into arrays.

    Args:
        priority: Per candidate array ``[n_k]`` distinct numbers; read once.
        rows: How many rows to take.
        lengths: Rows of each candidate array.

    Returns:
        ``[rows, 2]`` int64 pairs (array, row), in order of priority.

    Raises:
        ValueError: If a priority is missing or superfluous.
    """
    return _smallest_of_all(priority, rows, lengths)[0]


def sample_by_mass(
    priority: Iterable[np.ndarray], masses: Sequence[np.ndarray], rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows that stand for unequal masses: the more mass, the likelier.

    A uniform sample would miss few rows of great mass, and stand for another problem. Here
    the rows with the smallest ``u_i / a_i`` are taken. With ``1 / tau`` the smallest such
    number left out, a row of mass ``tau`` or more counts what it has; the lighter ones share
    what is left equally, which keeps sums over rows on average.

    Source: Duffield, Lund and Thorup (2007), priority sampling.

    Args:
        priority: Per candidate array ``[n_k]`` distinct uniform numbers ``u`` in (0, 1); read
            once.
        masses: Per candidate array ``[n_k]`` float64 masses ``a`` >= 0, not all 0.
        rows: How many rows to take, fewer than there are.

    Returns:
        ``[rows, 2]`` int64 pairs (array, row), and ``[rows]`` float64 masses with the sum of
        all.

    Raises:
        ValueError: If a priority is missing or superfluous.
    """
    where, keys = _smallest_of_all(_by_mass(priority, masses), rows + 1, list(map(len, masses)))
    where, tau = where[:-1], 1.0 / keys[-1]  # 0 where nothing with mass was left out
    mass = gather(masses, where)
    light = mass < tau
    if light.any():
        left = sum(float(part.sum()) for part in masses) - mass[~light].sum()
        mass[light] = left / light.sum()
    return where, mass


def _by_mass(priority: Iterable[np.ndarray], masses: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    own = iter(masses)
    for numbers in priority:
        mass = next(own, numbers)
        if len(mass) != len(numbers):
            yield numbers  # refused by who counts them
            continue
        keys = np.full(len(mass), np.inf)
        yield np.divide(numbers, mass, out=keys, where=mass > 0)


def _smallest_of_all(
    priority: Iterable[np.ndarray], rows: int, lengths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Give where the smallest numbers stand, and the numbers, in their order."""
    kept, where, seen = np.empty(0), np.empty((0, 2), dtype=np.int64), []
    for number, numbers in enumerate(priority):
        seen.append(len(numbers))
        first = _smallest(numbers, rows)
        where = np.concatenate([where, np.c_[np.full(len(first), number), first]])
        kept = np.concatenate([kept, numbers[first]])
        best = _smallest(kept, rows)
        kept, where = kept[best], where[best]
    if seen != list(lengths):
        raise ValueError("priority must hold one number per candidate row")
    order = np.lexsort((where[:, 1], where[:, 0], kept))
    return where[order], kept[order]


def _smallest(numbers: np.ndarray, rows: int) -> np.ndarray:
    if len(numbers) <= rows:
        return np.arange(len(numbers))
    return np.argpartition(numbers, rows - 1)[:rows]


def gather(arrays: Sequence[np.ndarray], where: np.ndarray) -> np.ndarray:
    """Copy rows out of (memory-mapped) arrays, in the order of ``where``.

    Args:
        arrays: Arrays of ``[n_k, ...]``.
        where: ``[r, 2]`` int64 pairs (array, row).
    """
    out = np.empty((len(where), *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for number in np.unique(where[:, 0]):
        here = np.flatnonzero(where[:, 0] == number)
        # In file order, so that a memory map is read once from front to back.
        here = here[np.argsort(where[here, 1])]
        out[here] = arrays[number][where[here, 1]]
    return out


class Reference:
    """A sample of the candidates, ready for many fits.

    Args:
        stream: The whole problem.
        epsilon: Absolute epsilon.
        where: ``[n_ref, 2]`` int64 pairs (array, row): the sampled rows.
        mass: ``[n_ref]`` float64 masses they count with.

    Attributes:
        base: ``[n_ref, m]`` logits without a potential.
        a: ``[n_ref]`` masses of the sample, summing to 1.
    """

    def __init__(self, stream: Stream, epsilon: float, where: np.ndarray, mass: np.ndarray) -> None:
        logits = Logits(stream, epsilon)
        self.base = torch.empty(
            (len(where), len(stream.b)), dtype=stream.dtype, device=stream.device
        )
        # In pieces: few targets allow for a sample of millions of rows, each of hundreds
        # of numbers.
        for start in range(0, len(where), PIECE_ROWS):
            rows = gather(stream.problem.candidates, where[start : start + PIECE_ROWS])
            self.base[start : start + PIECE_ROWS] = logits(stream.load(rows), exact=True)
        self.kernel = torch.empty_like(self.base)
        a = torch.as_tensor(mass, device=stream.device)
        self.a = a / a.sum()

    def fit(
        self, gamma: Tensor, wanted: Tensor, tolerance: float, max_iterations: int = 1000
    ) -> Tensor:
        """Find the target potential under which the sample covers ``wanted``.

        One iteration is ``gamma_j += omega (log wanted_j - log r_j)`` with
        ``r_j = sum_i a_i softmax_j(base_i + gamma)``: Sinkhorn with the candidate
        potential eliminated. ``omega`` is 1.5 once the error is below 0.5, and 1 for
        good when that made it grow.

        Args:
            gamma: ``[m]`` float64 start, ``g / eps + log b``.
            wanted: ``[m]`` float64 masses asked for, summing to 1.
            tolerance: L1 error of ``r`` at which to stop.
            max_iterations: Stop here at the latest; the passes over all candidates
                judge the result, so falling short is no error.

        Returns:
            ``[m]`` float64 gamma.
        """
        done, previous, relaxed = 0, float("inf"), True
        while True:
            self._build_kernel(gamma)
            log_v = torch.zeros_like(gamma)
            while float(log_v.max() - log_v.min()) <= REBUILD_LOG_RANGE:
                received = self._received(log_v)
                error = float((received - wanted).abs().sum())
                if error <= tolerance or done >= max_iterations:
                    return gamma + log_v
                relaxed = relaxed and not (error < 0.5 and error > previous)
                omega = OVER_RELAXATION if relaxed and error < 0.5 else 1.0
                # A target that nobody reaches yet has r = 0 in float32: walk towards it.
                step = (wanted.log() - received.log()).clamp(-REBUILD_LOG_RANGE, REBUILD_LOG_RANGE)
                log_v = log_v + omega * step
                previous, done = error, done + 1
            gamma = gamma + log_v

    def _build_kernel(self, gamma: Tensor) -> None:
        # In place: only the base and one kernel are ever resident.
        torch.add(self.base, gamma.to(self.base.dtype), out=self.kernel)
        self.kernel.sub_(self.kernel.amax(dim=1, keepdim=True)).exp_()
        self.kernel.div_(self.kernel.sum(dim=1, keepdim=True))
        torch.threshold_(self.kernel, smallest_weight(self.kernel.dtype), 0.0)

    def _received(self, log_v: Tensor) -> Tensor:
        v = log_v.exp().to(self.kernel.dtype)
        row_sums = self.kernel @ v
        return (v * (self.kernel.T @ (self.a.to(v.dtype) / row_sums))).double()
