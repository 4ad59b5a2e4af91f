"""Entropic transport in memory and double precision, a reference for the other solvers.

It is log-domain Sinkhorn, written for clarity. It needs the complete cost matrix, so it is
for problems of up to some ten million pairs; `semidual` solves the same problem at any size.

Source: Cuturi (2013); Thibault et al. (2021) for over-relaxation; Peyre and Cuturi,
Computational Optimal Transport (2019), section 4.4 for the log domain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gotd.transport.problem import NotConverged, Potentials, Problem, potentials_of, split_rows


@dataclass(frozen=True, eq=False)
class DenseSolution:
    """Potentials of one cost matrix.

    Args:
        f: ``[n]`` float64 candidate potential, exact for ``g``.
        g: ``[m]`` float64 target potential, with ``<b, g> = 0``.
        marginal_error: L1 error of the target marginal.
        iterations: Iterations taken.
        history: The marginal error before each iteration.
    """

    f: Tensor
    g: Tensor
    marginal_error: float
    iterations: int
    history: tuple[float, ...]


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
    *,
    tolerance: float = 1e-9,
    relaxation: float = 1.0,
    max_iterations: int = 20_000,
) -> DenseSolution:
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
        max_iterations: Largest number of iterations; the solution has the number taken.

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
            return DenseSolution(f + shift, g - shift, history[-1], len(history) - 1, (*history,))
        g = g + relaxation * epsilon * (log_b - log_r)


def solve_dense(
    problem: Problem,
    *,
    tolerance: float = 1e-9,
    relaxation: float = 1.5,
    max_iterations: int = 20_000,
) -> Potentials:
    """Solve a small problem by `sinkhorn`.

    Raises:
        NotConverged: If the tolerance is missed.
        ValueError: If the problem is too large for memory.
    """
    cost, epsilon, mean = problem.dense()
    a, b = torch.as_tensor(np.concatenate(problem.a)), torch.as_tensor(problem.b)
    solution = sinkhorn(
        cost,
        a,
        b,
        epsilon,
        tolerance=tolerance,
        relaxation=relaxation,
        max_iterations=max_iterations,
    )
    potentials = potentials_of(
        problem,
        split_rows(problem, solution.f.numpy()),
        solution.g.numpy(),
        epsilon_absolute=epsilon,
        mean_cost=mean,
        marginal_error=solution.marginal_error,
        passes=solution.iterations + 1,
        converged=solution.marginal_error <= tolerance,
        history=solution.history,
        reference_rows=problem.n_candidates,
    )
    if not potentials.converged:
        raise NotConverged(
            f"dense Sinkhorn stopped at marginal error {solution.marginal_error:.2g} after "
            f"{solution.iterations:,} iterations; the tolerance is {tolerance:.2g}. Use a larger "
            "epsilon, a relaxation nearer 1 or a looser tolerance",
            potentials,
        )
    return potentials
