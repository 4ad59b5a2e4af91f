"""The interface to POT (Python Optimal Transport), another implementation of Sinkhorn.

POT returns logarithms of scalings, which contain the masses. `solve_pot` returns potentials
in cost units, as the other solvers do. POT is imported inside the function because its import
is slow.

Source: Flamary et al. (2021), POT.
"""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from gotd.transport.problem import NotConverged, Potentials, Problem, potentials_of, split_rows


def solve_pot(
    problem: Problem, *, tolerance: float = 5e-3, max_iterations: int = 10_000
) -> Potentials:
    """Solve a problem that fits in memory by POT's log-domain Sinkhorn.

    POT's plan is ``exp(log_u + log_v - C / eps)``; ours has the factor ``a b^T``. So
    ``f = eps (log_u - log a)``. With unequal masses the difference reorders candidates.

    Args:
        problem: The problem; candidate masses must be positive.
        tolerance: Marginal error (L1) to reach.
        max_iterations: Largest number of iterations.

    Raises:
        NotConverged: If the marginal error exceeds the tolerance.
        ValueError: If the problem is too large.
    """
    import ot

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
    received = a @ softmax(np.log(b) + (g - cost) / epsilon, axis=1)
    error = float(np.abs(received - b).sum())
    potentials = potentials_of(
        problem,
        split_rows(problem, f),
        g,
        epsilon_absolute=epsilon,
        mean_cost=mean,
        marginal_error=error,
        passes=0,
        converged=error <= tolerance,
        reference_rows=problem.n_candidates,
    )
    if not potentials.converged:
        raise NotConverged(
            f"POT's Sinkhorn stopped at marginal error {error:.2g} after at most "
            f"{max_iterations:,} iterations; the tolerance is {tolerance:.2g}. Use a larger "
            "epsilon or a looser tolerance",
            potentials,
        )
    return potentials
