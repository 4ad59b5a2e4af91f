"""The interface to POT (Python Optimal Transport), a reference in tests and a solver.

The units and conventions of POT's potentials depend on the solver: duals for the linear
program, logarithms of scalings for Sinkhorn, which contain the masses. The functions here
return potentials in cost units, fixed by ``<b, g> = 0``. POT is imported inside the functions
because its import is slow.

Source: Flamary et al. (2021), POT; Bonneel et al. (2011) for the exact solver.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from gotd.transport.problem import NotConverged, Potentials, Problem, fix_gauge, split_rows

Method = Literal["sinkhorn", "exact"]


def exact_potentials(
    cost: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve transport without regularisation by the network simplex.

    Trap: the duals of a linear program need not be unique. Compare values, or differences
    in directions in which the duals are unique.

    Args:
        cost: ``[n, m]`` costs.
        a: ``[n]`` candidate masses, summing to 1.
        b: ``[m]`` target masses, summing to 1.

    Returns:
        ``[n]`` f and ``[m]`` g, float64, cost units, ``<b, g> = 0``.
    """
    import ot

    _, log = ot.emd(a, b, np.ascontiguousarray(cost, dtype=np.float64), log=True)
    f, g = np.asarray(log["u"]), np.asarray(log["v"])
    shift = float(b @ g)
    return f + shift, g - shift


def sinkhorn_potentials(
    cost: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    epsilon: float,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 10_000,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve entropic transport by POT's log-domain Sinkhorn.

    POT's plan is ``exp(log_u + log_v - C / eps)``; ours has the factor ``a b^T``. So
    ``f = eps (log_u - log a)``. With unequal masses the difference reorders candidates.

    Args:
        cost: ``[n, m]`` costs.
        a: ``[n]`` positive candidate masses, summing to 1.
        b: ``[m]`` positive target masses, summing to 1.
        epsilon: Regularisation in cost units.
        tolerance: POT's own threshold, an L2 error of the target marginal.
        max_iterations: Largest number of iterations.

    Returns:
        ``[n]`` f and ``[m]`` g, float64, cost units, ``<b, g> = 0``.
    """
    import ot

    _, log = ot.sinkhorn(
        a,
        b,
        np.ascontiguousarray(cost, dtype=np.float64),
        epsilon,
        method="sinkhorn_log",
        stopThr=tolerance,
        numItermax=max_iterations,
        log=True,
        warn=False,
    )
    f = epsilon * (np.asarray(log["log_u"]) - np.log(a))
    g = epsilon * (np.asarray(log["log_v"]) - np.log(b))
    shift = float(b @ g)
    return f + shift, g - shift


def solve_pot(
    problem: Problem,
    *,
    method: Method = "sinkhorn",
    tolerance: float = 5e-3,
    max_iterations: int = 10_000,
) -> Potentials:
    """Solve a problem that fits in memory with POT.

    Args:
        problem: The problem; candidate masses must be positive.
        method: ``sinkhorn`` at the problem's epsilon, or ``exact`` without regularisation.
        tolerance: Marginal error (L1) to reach.
        max_iterations: Largest number of Sinkhorn iterations.

    Raises:
        NotConverged: If the marginal error exceeds the tolerance.
        ValueError: If the problem is too large, or the method unknown.
    """
    if method not in ("sinkhorn", "exact"):
        raise ValueError(f"method must be sinkhorn or exact, not {method!r}")
    costs, epsilon, mean = problem.dense()
    cost, a, b = costs.numpy(), np.concatenate(problem.a), problem.b
    if method == "exact":
        f, g = exact_potentials(cost, a, b)
        error = 0.0
    else:
        # POT measures an L2 error; divided by sqrt(m) it bounds the L1 error.
        f, g = sinkhorn_potentials(
            cost,
            a,
            b,
            epsilon,
            tolerance=tolerance / np.sqrt(len(b)),
            max_iterations=max_iterations,
        )
        error = _marginal_error(cost, g, a, b, epsilon)
    f_parts = split_rows(problem, f)
    g, value = fix_gauge(problem, f_parts, g)
    potentials = Potentials(
        candidate=f_parts,
        target=g,
        epsilon_absolute=epsilon if method == "sinkhorn" else 0.0,
        mean_cost=mean,
        marginal_error=error,
        passes=0,
        converged=error <= tolerance,
        reference_rows=problem.n_candidates,
        value=value,
    )
    if not potentials.converged:
        raise NotConverged(
            f"POT's Sinkhorn stopped at marginal error {error:.2g} after at most "
            f"{max_iterations:,} iterations; the tolerance is {tolerance:.2g}. Use a larger "
            "epsilon or a looser tolerance",
            potentials,
        )
    return potentials


def _marginal_error(
    cost: np.ndarray, g: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float
) -> float:
    logits = np.log(b) + (g - cost) / epsilon
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(logits)
    received = a @ (weights / weights.sum(axis=1, keepdims=True))
    return float(np.abs(received - b).sum())
