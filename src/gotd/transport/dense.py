"""Solvers that hold the complete cost matrix in double precision, for problems that fit in memory.

`solve_dense` is log-domain Sinkhorn, written for clarity; the other solvers are tested against it.
`solve_pot` is the same problem solved by POT (Python Optimal Transport), another implementation.
Both are for up to some ten million pairs; `semidual` solves the same problem at any size.

Source: Cuturi (2013); Thibault et al. (2021) for over-relaxation; Peyre and Cuturi,
Computational Optimal Transport (2019), section 4.4 for the log domain; Flamary et al. (2021), POT.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gotd.transport.problem import NotConverged, Potentials, Problem, potentials_of


def soft_minimum(cost: Tensor, g: Tensor, log_b: Tensor, epsilon: float) -> Tensor:
    """Return the best candidate potential for ``g``: the entropic c-transform.

    ``f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps)``; as epsilon falls to zero it
    becomes ``min_j C_ij - g_j``.
    """
    return -epsilon * torch.logsumexp(log_b + (g - cost) / epsilon, dim=1)


def sinkhorn(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    epsilon: float,
    tolerance: float = 1e-9,
    relaxation: float = 1.0,
    max_iterations: int = 20_000,
) -> tuple[Tensor, Tensor, list[float]]:
    """Iterate ``g_j += relaxation * eps * log(b_j / r_j)`` until ``r`` is ``b``.

    ``r_j = sum_i P_ij`` is what target ``j`` receives when every candidate potential is
    the soft minimum for the present ``g``. Relaxation 1 is Sinkhorn; up to 2 it is
    faster where it converges.

    Args:
        cost: ``[n, m]`` float64 costs.
        a: ``[n]`` float64 candidate masses, summing to 1; zeros are allowed.
        b: ``[m]`` float64 positive target masses, summing to 1.
        epsilon: Regularisation in cost units.
        tolerance: L1 error of the target marginal at which to stop.
        relaxation: Step length in (0, 2).
        max_iterations: Largest number of iterations.

    Returns:
        ``[n]`` float64 candidate potential, exact for the target potential; ``[m]`` float64
        target potential ``g`` with ``<b, g> = 0``; the L1 error of the target marginal at the
        start and after each iteration.

    Raises:
        ValueError: If the relaxation is out of its range.
    """
    if not 0.0 < relaxation < 2.0:
        raise ValueError(f"relaxation must lie between 0 and 2, not {relaxation}")
    log_b, g, history = b.log(), torch.zeros_like(b), []
    while True:
        f = soft_minimum(cost, g, log_b, epsilon)
        # In logarithms, so that the step is finite for a target that receives 1e-200.
        log_r = torch.logsumexp(a.log()[:, None] + (f[:, None] - cost) / epsilon, dim=0)
        log_r = log_r + log_b + g / epsilon
        history.append(float((log_r.exp() - b).abs().sum()))
        if history[-1] <= tolerance or len(history) > max_iterations:
            shift = b @ g
            return f + shift, g - shift, history
        g = g + relaxation * epsilon * (log_b - log_r)


def solve_dense(
    problem: Problem, *, tolerance: float = 1e-9, max_iterations: int = 20_000
) -> Potentials:
    """Solve a small problem by `sinkhorn`, over-relaxed.

    Raises:
        NotConverged: If the tolerance is missed.
        ValueError: If the problem is too large for memory.
    """
    cost, epsilon, mean = problem.dense()
    a, b = torch.as_tensor(np.concatenate(problem.a)), torch.as_tensor(problem.b)
    f, g, history = sinkhorn(cost, a, b, epsilon, tolerance, 1.5, max_iterations)
    return _checked(
        problem,
        f.numpy(),
        g.numpy(),
        tolerance,
        ("dense Sinkhorn", f"{len(history) - 1:,}", "a larger epsilon, a relaxation nearer 1"),
        epsilon_absolute=epsilon,
        mean_cost=mean,
        marginal_error=history[-1],
        passes=len(history),
        history=tuple(history),
    )


def solve_pot(
    problem: Problem, *, tolerance: float = 5e-3, max_iterations: int = 10_000
) -> Potentials:
    """Solve a problem that fits in memory by POT's log-domain Sinkhorn.

    POT returns logarithms of scalings: its plan is ``exp(log_u + log_v - C / eps)``; ours has
    the factor ``a b^T``. So ``f = eps (log_u - log a)``. With unequal masses the difference
    reorders candidates.

    Args:
        problem: The problem; candidate masses must be positive.
        tolerance: Marginal error (L1) to reach.
        max_iterations: Largest number of iterations.

    Raises:
        NotConverged: If the marginal error exceeds the tolerance.
        ValueError: If the problem is too large.
    """
    import ot  # here, because it is slow to import

    costs, epsilon, mean = problem.dense()
    cost, a, b = np.ascontiguousarray(costs.numpy()), np.concatenate(problem.a), problem.b
    _, log = ot.sinkhorn(
        a,
        b,
        cost,
        epsilon,
        method="sinkhorn_log",
        # POT measures an L2 error; divided by sqrt(m) it bounds the L1 error.
        stopThr=tolerance / np.sqrt(len(b)),
        numItermax=max_iterations,
        log=True,
        warn=False,
    )
    f = epsilon * (np.asarray(log["log_u"]) - np.log(a))
    g = epsilon * (np.asarray(log["log_v"]) - np.log(b))
    received = a @ torch.softmax(torch.from_numpy(np.log(b) + (g - cost) / epsilon), 1).numpy()
    return _checked(
        problem,
        f,
        g,
        tolerance,
        ("POT's Sinkhorn", f"at most {max_iterations:,}", "a larger epsilon"),
        epsilon_absolute=epsilon,
        mean_cost=mean,
        marginal_error=float(np.abs(received - b).sum()),
        passes=0,
    )


def _checked(
    problem: Problem,
    f: np.ndarray,
    g: np.ndarray,
    tolerance: float,
    words: tuple[str, str, str],
    **certificate: Any,
) -> Potentials:
    """Return a solution, or raise if it misses the tolerance.

    Args:
        problem: The problem.
        f: ``[n]`` candidate potential, of all arrays together.
        g: ``[m]`` target potential.
        tolerance: Largest marginal error.
        words: For the error: the solver, its iterations, and what helps.
        certificate: Fields of `Potentials`.
    """
    ends = np.cumsum([len(array) for array in problem.candidates])[:-1]
    error = certificate["marginal_error"]
    potentials = potentials_of(
        problem,
        tuple(np.split(f, ends)),
        g,
        converged=error <= tolerance,
        reference_rows=problem.n_candidates,
        **certificate,
    )
    if not potentials.converged:
        solver, iterations, remedy = words
        raise NotConverged(
            f"{solver} stopped at marginal error {error:.2g} after {iterations} iterations; the "
            f"tolerance is {tolerance:.2g}. Use {remedy} or a looser tolerance",
            potentials,
        )
    return potentials
