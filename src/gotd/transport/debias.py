"""The potential of the candidates against themselves, for the debiased Sinkhorn divergence.

Entropy makes ``OT_eps(a, a)`` positive: a candidate with many neighbours gets a lower
potential, because its mass may move to them. Subtracting the self potential removes this
effect. The result is another method than GOT-D, which is biased. It was better where epsilon
is large (0.1 to 0.2 of the mean cost) and slightly worse at 0.05 and below.

Source: Feydy et al. (2019); LAVA (ICLR 2023) uses the debiased potentials.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from gotd.transport.blocks import Compute, full_float32
from gotd.transport.cost import cost_matrix
from gotd.transport.problem import NotConverged, Potentials, Problem
from gotd.transport.reference import gather, smallest_priority
from gotd.transport.semidual import score

SELF_ROWS, SELF_TOLERANCE, SELF_ITERATIONS = 4096, 1e-4, 1000


@full_float32()
def self_potential(
    problem: Problem,
    epsilon: float,
    priority: Iterable[np.ndarray],
    *,
    rows: int = SELF_ROWS,
    compute: Compute | None = None,
) -> Iterator[np.ndarray]:
    """Estimate the potential of the candidates in ``OT_eps(a, a)``.

    It is solved on a sample by the averaged fixed point ``f <- (f + T f) / 2``, then
    extended to all candidates by one pass. No row is compared with itself. Its zero cost
    would dominate the soft minimum of a row in the sample but not of other rows, so the
    values would depend on which rows were sampled.

    Args:
        problem: The candidates, their masses and the geometry; the target is not used.
        epsilon: Epsilon in cost units, the one of the solution to debias.
        priority: Per candidate array ``[n_k]`` distinct numbers, read once; the rows with
            the smallest are sampled.
        rows: Rows in the sample.
        compute: Precision, device, block size and map.

    Returns:
        Iterator over ``[n_k]`` float64, one per candidate array, up to one constant for
        all. The sample is solved at once, each array when it is requested.

    Raises:
        ValueError: If there are fewer than two candidates.
        NotConverged: If the fixed point is not reached.
    """
    if problem.n_candidates < 2:
        raise ValueError("debiasing needs at least two candidates; add candidates")
    lengths = [len(array) for array in problem.candidates]
    where, _ = smallest_priority(priority, min(rows, problem.n_candidates), lengths)
    # A row without mass has no effect on others.
    where = where[gather(problem.a, where) > 0]
    sample, a = gather(problem.candidates, where), gather(problem.a, where)
    a = a / a.sum()
    solution = _solve_on_sample(problem, sample, a, epsilon)

    def extend(number: int) -> np.ndarray:
        array = problem.candidates[number]
        if len(array) == 0:
            return np.empty(0)
        # Scores do not depend on the candidates' masses.
        alone = dataclasses.replace(
            problem, target=sample, target_mass=a, candidates=[array], candidate_mass=None
        )
        (values,), _ = score(alone, solution, compute)
        here = where[:, 0] == number
        values[where[here, 1]] = solution.target[here]
        return values

    return map(extend, range(len(lengths)))


def _solve_on_sample(
    problem: Problem, sample: np.ndarray, a: np.ndarray, epsilon: float
) -> Potentials:
    """Iterate ``f <- (f + T f) / 2`` on ``sample`` ``[n, d]`` with masses ``a`` ``[n]``."""
    x = problem.geometry.embed(torch.as_tensor(sample.astype(np.float64)))
    # One n_sample^2 matrix in float64: 128 MiB.
    base = torch.as_tensor(np.log(a)) - cost_matrix(x, x) / epsilon
    base.fill_diagonal_(-math.inf)
    f, mass = torch.zeros(len(a), dtype=torch.float64), torch.as_tensor(a)
    error = math.inf
    for _ in range(SELF_ITERATIONS):
        mapped = -epsilon * torch.logsumexp(base + f / epsilon, dim=1)
        error = float(mass @ (((f - mapped) / epsilon).exp() - 1.0).abs())
        f = 0.5 * (f + mapped)
        if error <= SELF_TOLERANCE:
            break
    solution = Potentials(
        candidate=(),
        target=f.numpy(),
        epsilon_absolute=epsilon,
        mean_cost=float("nan"),
        marginal_error=error,
        passes=1,
        converged=error <= SELF_TOLERANCE,
    )
    if not solution.converged:
        raise NotConverged(
            f"the self potential stopped at error {error:.2g}; use a larger epsilon "
            "or debias=false",
            solution,
        )
    return solution
