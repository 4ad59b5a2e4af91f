"""The semi-dual solver: potentials for millions of candidates from a fit on a sample.

For a given target potential the best candidate potential is a soft minimum,

    f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps),

so the only unknown is ``g``, one number per target. It is fitted on a sample of the
candidates in memory. A pass over all candidates then computes every ``f_i`` and the mass
``r_j`` that each target receives, from one matrix product. If ``r`` differs from ``b``, the
sample is fitted again, to the marginal ``b' <- b' b / r``. This corrects the error of the
sample, and the next pass checks the result. ``|r - b|_1`` is the certificate. Where the plan of
the first pass fits in memory, the next ones are changes of it (`gotd.transport.stored`).

Source: GOT-D (ICLR 2024) section 2.3 for the problem; Genevay et al. (2016) for the
semi-dual; the correction is a multi-fidelity fixed point in the marginals.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Compute, Stream, full_float32
from gotd.transport.passes import Passes, scan
from gotd.transport.problem import NotConverged, Potentials, Problem, potentials_of
from gotd.transport.reference import (
    Reference,
    gather,
    reference_size,
    sample_by_mass,
    sample_bytes,
    smallest_priority,
)

OnFailure = Literal["raise", "warn"]

# Largest factor by which one correction changes a target's demand. The first ratios of
# targets that receive little mass are mostly noise.
LARGEST_CORRECTION = 5.0

# A correction divides the error by ten or more. So the pass after one whose error is at most
# this many tolerances is expected to be the last.
LAST_IS_NEAR = 10.0


@full_float32()
# long: half of it documents the arguments; the rest is one sequence of calls
def solve_semidual(
    problem: Problem,
    priority: Iterable[np.ndarray] | None = None,
    *,
    tolerance: float = 5e-3,
    max_passes: int = 10,
    reference_rows: int | None = None,
    start: np.ndarray | None = None,
    on_failure: OnFailure = "raise",
    compute: Compute | None = None,
    out: Sequence[np.ndarray] | None = None,
) -> Potentials:
    """Solve entropic transport for any number of candidates in ``O(n + m)`` memory.

    Args:
        problem: Candidates, targets, masses, cost and epsilon.
        priority: Per candidate array ``[n_k]`` distinct numbers, uniform in (0, 1) and
            independent of the embeddings, such as a hash of the id. The rows with the
            smallest, by mass, are the reference sample. Read once. Not needed if the sample
            holds all rows.
        tolerance: Marginal error to reach. 5e-3 preserves rankings, 5e-4 is strict; about
            1e-5 is the smallest that float32 can reach.
        max_passes: Largest number of passes over all candidates, changes of a stored plan
            included. One more is made if the last was not the best.
        reference_rows: Rows of the sample; ``None`` for all of a small problem, else ten
            per target. With all rows the fit is the exact solution.
        start: ``[m]`` initial target potential, such as that of a similar problem; it
            shortens the fit and does not change the solution.
        on_failure: ``raise`` or ``warn`` when the tolerance is missed.
        compute: Precision, device, block size and map.
        out: Per candidate array ``[n_k]`` float64, such as a file, filled with ``f``. With
            files, memory does not grow with the number of candidates.

    Returns:
        Potentials of the best pass.

    Raises:
        NotConverged: If the tolerance is missed; holds the best potentials.
        ValueError: If a sample is needed and ``priority`` is missing, or an array does
            not fit the problem.
    """
    if on_failure not in ("raise", "warn"):
        raise ValueError(f"on_failure must be raise or warn, not {on_failure!r}")
    if max_passes < 1 or not tolerance > 0:
        raise ValueError("max_passes must be at least 1 and tolerance positive")
    if start is not None and start.shape != (problem.n_target,):
        raise ValueError(f"start must hold one number per target row, not {start.shape}")
    stream = Stream(problem, compute or Compute())
    rows = reference_size(problem.n_candidates, problem.n_target, reference_rows)
    stream.keep_blocks(reserve=sample_bytes(stream, rows))
    mean = stream.mean_cost()
    epsilon = problem.epsilon_in_cost_units(mean)
    where, mass = reference_sample(problem, priority, rows)
    reference = Reference(stream, epsilon, where, mass)
    # An exact fit needs no correction.
    stores = max_passes > 1 and not reference.is_complete
    passes = Passes(stream, epsilon, where, mass, stores=stores)
    f = stream.outputs(out)
    g = np.zeros(problem.n_target) if start is None else start
    gamma, received, history = _correct(
        passes,
        reference,
        stream.b.log() + torch.as_tensor(g / epsilon, device=stream.device),
        stream.b,
        f,
        tolerance=tolerance,
        max_passes=max_passes,
    )
    error = float((received - stream.b).abs().sum())
    potentials = potentials_of(
        problem,
        f,
        epsilon * (gamma.cpu().numpy() - np.log(problem.b)),
        epsilon_absolute=epsilon,
        mean_cost=mean,
        marginal_error=error,
        passes=passes.done,
        converged=error <= tolerance,
        history=tuple(history),
        reference_rows=rows,
        precision=passes.precision,
        rounding=passes.rounding,
    )
    if not potentials.converged:
        report_failure(problem, potentials, tolerance, on_failure)
    return potentials


def _correct(
    passes: Passes,
    reference: Reference,
    gamma: Tensor,
    b: Tensor,
    out: Sequence[np.ndarray],
    *,
    tolerance: float,
    max_passes: int,
) -> tuple[Tensor, Tensor, list[float]]:
    """Iterate fits on the sample and passes over all candidates until the error is small.

    Returns:
        Gamma of the best pass, whose ``f`` is in ``out``, the masses that targets receive, and
        every pass's error. An error above the tolerance may be one of reduced precision.
    """
    wanted = b
    best_wanted, best_gamma, best_received, history = wanted, gamma, b, []
    step, exact = 1.0, True

    def error_of(received: Tensor) -> float:
        return float((received - b).abs().sum())

    for number in range(max_passes):
        gamma = reference.fit(gamma, wanted, tolerance / 10.0)
        near = bool(history) and history[-1] <= LAST_IS_NEAR * tolerance
        exact = passes.certifies or reference.is_complete or near
        received = passes.scan(gamma, out, exact)
        if error_of(received) <= tolerance:
            received, exact = passes.certify(gamma, out, received, error_of, exact), True
        error = error_of(received)
        if not history or error < min(history):
            best_wanted, best_gamma, best_received = wanted, gamma, received
            # The error fell, so return to full steps.
            step = min(1.0, 2.0 * step) if number else step
        else:
            step /= 2.0
        history.append(error)
        if error <= tolerance:
            break
        ratio = (b / best_received).clamp(1.0 / LARGEST_CORRECTION, LARGEST_CORRECTION)
        wanted = best_wanted * ratio**step
        wanted, gamma = wanted / wanted.sum(), best_gamma
    if history[-1] > tolerance:
        if exact and history[-1] > min(history):
            # `out` holds the last pass, which was worse: repeat the best one.
            best_received = passes.scan(best_gamma, out)
        best_received = passes.certify(best_gamma, out, best_received, error_of, exact)
    return best_gamma, best_received, history


def reference_sample(
    problem: Problem, priority: Iterable[np.ndarray] | None, rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the reference sample and their masses."""
    lengths = [len(array) for array in problem.candidates]
    if rows == problem.n_candidates:
        where = np.concatenate([np.c_[np.full(n, k), np.arange(n)] for k, n in enumerate(lengths)])
        return where, gather(problem.a, where)
    if priority is None:
        raise ValueError(
            f"a reference sample of {rows:,} of {problem.n_candidates:,} candidates needs "
            "priority: one uniform number per row, for instance a hash of its id"
        )
    if problem.candidate_mass is not None:
        return sample_by_mass(priority, problem.a, rows)
    where, _ = smallest_priority(priority, rows, lengths)
    return where, gather(problem.a, where)


def report_failure(
    problem: Problem, potentials: Potentials, tolerance: float, on_failure: OnFailure
) -> None:
    """Raise, or warn, that a solve has missed its tolerance; the message says what helps."""
    share = potentials.epsilon_absolute / max(potentials.mean_cost, 1e-300)
    rows = potentials.reference_rows
    more_rows = f"reference_rows above {rows:,}, " if rows < problem.n_candidates else ""
    message = (
        f"the transport solve stopped at marginal error {potentials.marginal_error:.2g} after "
        f"{potentials.passes} passes; the tolerance is {tolerance:.2g}. Try {more_rows}more "
        f"max_passes, a larger epsilon (now {share:.3g} of the mean cost), or accept a looser "
        "tolerance"
    )
    if on_failure == "raise":
        raise NotConverged(message, potentials)
    warnings.warn(message, RuntimeWarning, stacklevel=4)


@full_float32()
def score(
    problem: Problem,
    potentials: Potentials,
    compute: Compute | None = None,
    out: Sequence[np.ndarray] | None = None,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Compute the potential of candidates that were not part of the solve.

    ``f`` depends on the target potential alone, so one pass is enough.

    Args:
        problem: The new candidates, with the target, target masses and geometry of the
            solved problem. Its own epsilon is not used.
        potentials: The solution.
        compute: Precision, device, block size and map.
        out: Per candidate array ``[n_k]`` float64, such as a file, filled with ``f``.

    Returns:
        Per candidate array ``[n_k]`` float64 ``f``, in the gauge of ``potentials``, and
        ``[m]`` float64 shares of these candidates' mass that each target receives.

    Raises:
        ValueError: If the number of targets differs from the potential's.
    """
    if problem.n_target != len(potentials.target):
        raise ValueError(
            f"the potential is for {len(potentials.target)} targets, not {problem.n_target}"
        )
    stream = Stream(problem, compute or Compute())
    epsilon = potentials.epsilon_absolute
    gamma = torch.as_tensor(potentials.target / epsilon + np.log(problem.b), device=stream.device)
    f = stream.outputs(out)
    received = scan(stream, epsilon, gamma, f)
    return f, received.cpu().numpy()
