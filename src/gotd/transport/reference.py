"""The fit of the target potential in memory: Sinkhorn on a sample of the candidates.

A few thousand candidates approximate the target potential; passes over all candidates
correct the error of the sample afterwards (`semidual`). The sample's kernel stays in memory,
so an iteration is two matrix-vector products.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Logits, Stream, smallest_weight
from gotd.transport.cost import squared_norms
from gotd.transport.problem import PIECE_ROWS, SMALL_PROBLEM

# The sampling error of the target marginal falls with the square root of rows per
# target: with ten, one or two corrections are needed; with less than five they stagnate.
ROWS_PER_TARGET, LEAST_ROWS_PER_TARGET, LEAST_ROWS = 10, 5, 10_000
RESIDENT_ENTRIES = 2**28

# Kernel entries below exp(-64) are dropped in float32. The kernel is computed again whenever
# the scaling has changed by exp(20), so that every dropped entry is negligible.
REBUILD_LOG_RANGE = 20.0
OVER_RELAXATION = 1.5


def reference_size(n_candidates: int, n_target: int, rows: int | None = None) -> int:
    """Return how many candidates to hold in memory during the fit.

    A small problem uses all of them and is solved exactly. Otherwise it is ten per target,
    or fewer (at least five) if the kernel would exceed 1 GiB. The number depends on the
    problem alone and not on the machine, as the ranking does.

    Args:
        n_candidates: Number of candidates.
        n_target: Number of targets.
        rows: The configured number, which replaces the rule.

    Raises:
        ValueError: If ``rows`` is not positive.
    """
    if rows is not None:
        if rows < 1:
            raise ValueError(f"reference_rows must be at least 1, not {rows}")
        return min(rows, n_candidates)
    if n_candidates * n_target <= SMALL_PROBLEM:
        return n_candidates
    fitting = max(RESIDENT_ENTRIES // n_target, LEAST_ROWS_PER_TARGET * n_target)
    return min(n_candidates, max(LEAST_ROWS, min(ROWS_PER_TARGET * n_target, fitting)))


def sample_bytes(stream: Stream, rows: int) -> int:
    """Return the bytes that the logits and the kernel of a sample of ``rows`` take."""
    return 2 * rows * len(stream.b) * stream.target.element_size()


def smallest_priority(
    priority: Iterable[np.ndarray], rows: int, lengths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the ``rows`` rows with the smallest priority.

    If the priorities are hashes of the rows' ids, this is a uniform sample. It depends
    neither on the order of the rows nor on their division into arrays.

    Args:
        priority: Per candidate array ``[n_k]`` distinct numbers; read once.
        rows: Number of rows to choose.
        lengths: Rows of each candidate array.

    Returns:
        ``[rows, 2]`` int64 pairs (array, row), in order of priority, and their ``[rows]``
        priorities.

    Raises:
        ValueError: If a priority is missing or superfluous.
    """
    smallest, where, seen = np.empty(0), np.empty((0, 2), dtype=np.int64), []
    for number, numbers in enumerate(priority):
        seen.append(len(numbers))
        first = _smallest(numbers, rows)
        where = np.concatenate([where, np.c_[np.full(len(first), number), first]])
        smallest = np.concatenate([smallest, numbers[first]])
        best = _smallest(smallest, rows)
        smallest, where = smallest[best], where[best]
    if seen != list(lengths):
        raise ValueError("priority must hold one number per candidate row")
    order = np.lexsort((where[:, 1], where[:, 0], smallest))
    return where[order], smallest[order]


def _smallest(numbers: np.ndarray, rows: int) -> np.ndarray:
    if len(numbers) <= rows:
        return np.arange(len(numbers))
    return np.argpartition(numbers, rows - 1)[:rows]


def sample_by_mass(
    priority: Iterable[np.ndarray], masses: Sequence[np.ndarray], rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sample rows with unequal masses: rows with more mass are more likely.

    A uniform sample would often miss a few rows of large mass. Here the rows with the
    smallest ``u_i / a_i`` are chosen. Let ``1 / tau`` be the smallest such number that is
    left out. A row of mass ``tau`` or more then keeps its mass, and the lighter rows share
    the remaining mass equally, so sums over rows are unbiased.

    Source: Duffield, Lund and Thorup (2007), priority sampling.

    Args:
        priority: Per candidate array ``[n_k]`` distinct uniform numbers ``u`` in (0, 1); read
            once.
        masses: Per candidate array ``[n_k]`` float64 masses ``a`` >= 0, not all 0.
        rows: Number of rows to choose, less than all.

    Returns:
        ``[rows, 2]`` int64 pairs (array, row), and ``[rows]`` float64 masses, whose sum is
        that of all masses.

    Raises:
        ValueError: If a priority is missing or superfluous.
    """
    where, keys = smallest_priority(_by_mass(priority, masses), rows + 1, list(map(len, masses)))
    where, tau = where[:-1], 1.0 / keys[-1]  # 0 if no row with mass was left out
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
            yield numbers  # the caller raises an error for the wrong length
            continue
        keys = np.full(len(mass), np.inf)
        yield np.divide(numbers, mass, out=keys, where=mass > 0)


def gather(arrays: Sequence[np.ndarray], where: np.ndarray) -> np.ndarray:
    """Copy rows of (memory-mapped) arrays, in the order of ``where``.

    Args:
        arrays: Arrays of ``[n_k, ...]``.
        where: ``[r, 2]`` int64 pairs (array, row).
    """
    out = np.empty((len(where), *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for number in np.unique(where[:, 0]):
        here = np.flatnonzero(where[:, 0] == number)
        # In file order, so that a memory map is read once from start to end.
        here = here[np.argsort(where[here, 1])]
        out[here] = arrays[number][where[here, 1]]
    return out


class Reference:
    """A sample of the candidates in memory, on which the target potential is fitted.

    Args:
        stream: The problem.
        epsilon: Absolute epsilon.
        where: ``[n_ref, 2]`` int64 pairs (array, row): the sampled rows.
        mass: ``[n_ref]`` float64 masses of these rows.

    Attributes:
        base: ``[n_ref, m]`` logits without a potential.
        squared: ``[n_ref]`` squared norms, the term that logits leave out.
        soft_max: ``[n_ref]`` float64 logarithms of the row sums of the present kernel.
        a: ``[n_ref]`` masses of the sample, summing to 1.
        is_complete: Whether the sample holds all candidates.
    """

    def __init__(self, stream: Stream, epsilon: float, where: np.ndarray, mass: np.ndarray) -> None:
        logits = Logits(stream, epsilon)
        self.is_complete = len(where) == stream.problem.n_candidates
        self.base = torch.empty(
            (len(where), len(stream.b)), dtype=stream.dtype, device=stream.device
        )
        self.squared = torch.empty(len(where), dtype=stream.dtype, device=stream.device)
        # In pieces: with few targets a sample may have millions of rows of hundreds of
        # numbers each.
        for start in range(0, len(where), PIECE_ROWS):
            rows = gather(stream.problem.candidates, where[start : start + PIECE_ROWS])
            x = stream.load(rows)
            self.base[start : start + PIECE_ROWS] = logits(x, exact=True)
            self.squared[start : start + PIECE_ROWS] = squared_norms(x)
        self.kernel = torch.empty_like(self.base)
        a = torch.as_tensor(mass, device=stream.device)
        self.a = a / a.sum()

    def fit(
        self, gamma: Tensor, wanted: Tensor, tolerance: float, max_iterations: int = 1000
    ) -> Tensor:
        """Fit the target potential for which the targets receive the masses ``wanted``.

        One iteration is ``gamma_j += omega (log wanted_j - log r_j)`` with
        ``r_j = sum_i a_i softmax_j(base_i + gamma)``: Sinkhorn with the candidate
        potential eliminated. ``omega`` is 1.5 once the error is below 0.5. If the error then
        grows, it is 1 for all further iterations.

        Args:
            gamma: ``[m]`` float64 start, ``g / eps + log b``.
            wanted: ``[m]`` float64 masses, summing to 1.
            tolerance: L1 error of ``r`` at which to stop.
            max_iterations: Largest number of iterations. To stop there is no error,
                since the passes over all candidates check the result.

        Returns:
            ``[m]`` float64 gamma.
        """
        done, previous, relaxed = 0, float("inf"), True
        while True:
            self.build_kernel(gamma)
            log_v = torch.zeros_like(gamma)
            while True:
                received = self._received(log_v)
                # Together, because a GPU has to wait for each transfer to the host.
                facts = (received - wanted).abs().sum(), log_v.max() - log_v.min()
                error, log_range = torch.stack(facts).tolist()
                if log_range > REBUILD_LOG_RANGE:
                    break
                if error <= tolerance or done >= max_iterations:
                    return gamma + log_v
                relaxed = relaxed and not (error < 0.5 and error > previous)
                omega = OVER_RELAXATION if relaxed and error < 0.5 else 1.0
                # A target without mass has r = 0 in float32: the clamp limits its step.
                step = (wanted.log() - received.log()).clamp(-REBUILD_LOG_RANGE, REBUILD_LOG_RANGE)
                log_v = log_v + omega * step
                previous, done = error, done + 1
            gamma = gamma + log_v

    def build_kernel(self, gamma: Tensor) -> None:
        """Compute the kernel of ``gamma``: the softmax of every row."""
        # In place, so that only the base and one kernel are in memory.
        torch.add(self.base, gamma.to(self.base.dtype), out=self.kernel)
        top = self.kernel.amax(dim=1, keepdim=True)
        self.kernel.sub_(top).exp_()
        sums = self.kernel.sum(dim=1, keepdim=True)
        self.soft_max = (top.double() + sums.double().log())[:, 0]
        self.kernel.div_(sums)
        torch.threshold_(self.kernel, smallest_weight(self.kernel.dtype), 0.0)

    def _received(self, log_v: Tensor) -> Tensor:
        v = log_v.exp().to(self.kernel.dtype)
        row_sums = self.kernel @ v
        return (v * (self.kernel.T @ (self.a.to(v.dtype) / row_sums))).double()
