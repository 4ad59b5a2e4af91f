"""Proofs that candidates are inside or outside the best k of the exact problem.

Newton's method in float64 goes on from a solution until the bound of `curvature` on the error of
all scores is as small as their rounding. What is proven follows from the scores and that bound:
a selected row is inside if it is better than the best row not selected by more than the bound.

Without asking for a proof, the better solution is only compared with the one in use. So the
share of a selection that is proven is known, and no score changes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Block, Compute, Logits, Stream
from gotd.transport.cost import squared_norms
from gotd.transport.curvature import Curvature, oscillation
from gotd.transport.passes import scan
from gotd.transport.problem import Potentials, Problem, potentials_of

UNIT = 2.0**-53
"""Relative error of one operation in float64."""

MOST_PASSES = 30
"""Of one proof. Each divides the error by five or more, or is the last."""

FAR = 0.5
"""Length of a step from which the Hessian at its end differs too much from that at its start."""

LEAST_GAIN = 5.0
"""A pass that divides the error by less is followed by a new Hessian."""

CHEAP = 2**35
"""Products of a Hessian and its pass up to which a solution is examined unasked; about a second."""

CLOSE = 0.01
"""Bound of the better solution that a solution is compared with, as a share of its own."""


_Sums = tuple[Tensor, Tensor, float]
"""``[m]`` received masses, ``[m, m]`` products of the plan, and the largest squared norm."""


def _add(one: _Sums, other: _Sums) -> _Sums:
    return one[0].add_(other[0]), one[1].add_(other[1]), max(one[2], other[2])


@dataclass(frozen=True)
class Proof:
    """How far scores can be from exact ones, in the unit of the scores.

    Args:
        width: All scores less the exact ones lie in an interval of this width; infinite
            where nothing could be proven.
        rounding: Largest rounding error of a score.
        passes: Passes over all candidates that the proof took.
        hessians: Passes that also computed a Hessian.
    """

    width: float
    rounding: float
    passes: int = 0
    hessians: int = 0


class Prover:
    """Newton's method in float64, with a bound on the error of every potential on its way.

    Args:
        problem: The problem.
        epsilon: Absolute epsilon.
        compute: Device, block size and map; the precision is float64.

    Attributes:
        passes: Passes over all candidates so far.
        hessians: Those that also computed a Hessian.
        rounding: Largest rounding error of a candidate's potential.
        error: Marginal error (L1) of the last pass.
    """

    def __init__(self, problem: Problem, epsilon: float, compute: Compute) -> None:
        self.stream = Stream(problem, dataclasses.replace(compute, precision="float64"))
        self.stream.keep_blocks()
        self.epsilon = epsilon
        self.passes, self.hessians, self.rounding = 0, 0, math.inf
        self.error = math.nan

    def approach(
        self, gamma: Tensor, out: Sequence[np.ndarray], share: float = 0.0
    ) -> tuple[Tensor, float]:
        """Improve a potential until its bound is small, or at rounding.

        Args:
            gamma: ``[m]`` float64 start.
            out: Per candidate array ``[n_k]`` float64, filled with the best ``f``.
            share: Bound at which to stop, as a share of the first finite one.

        Returns:
            ``[m]`` float64 best gamma, and the width of the interval in cost units in which
            all errors of ``out`` lie.
        """
        curvature, rho = self._pass_with_hessian(gamma, out)
        best, width, filled = gamma, self._width(curvature, gamma, rho), gamma
        goal = share * width if math.isfinite(width) else 0.0
        while curvature is not None and self.passes < MOST_PASSES:
            floor = 2.0 * self.epsilon * curvature.spread * curvature.slack
            if math.isfinite(width) and width <= max(goal, self.rounding, floor):
                break
            step = curvature.step(rho)
            moved = gamma + step
            if oscillation(step) > FAR:
                curvature, rho = self._pass_with_hessian(moved, out)
                gamma = filled = moved
            else:
                missing, filled = self._pass(moved, out), moved
                before, after = curvature.decrement(rho), curvature.decrement(missing)
                if after < before:
                    gamma, rho = moved, missing
                if LEAST_GAIN * after > before:
                    if curvature.gamma is gamma:
                        break  # Not even a Hessian of this place helps.
                    curvature, rho = self._pass_with_hessian(gamma, out)
                    filled = gamma
            reached = self._width(curvature, gamma, rho)
            if reached <= width:
                goal = share * reached if math.isinf(width) else goal
                best, width = gamma, reached
        if filled is not best:
            self._pass(best, out)
        return best, width

    def proof(self, width: float) -> Proof:
        """Return the proof for potentials whose errors lie in an interval of ``width``."""
        return Proof(width, self.rounding, self.passes, self.hessians)

    def _width(self, curvature: Curvature | None, gamma: Tensor, rho: Tensor) -> float:
        return math.inf if curvature is None else self.epsilon * curvature.radius(gamma, rho)

    def _pass(self, gamma: Tensor, out: Sequence[np.ndarray]) -> Tensor:
        """Fill ``out`` with ``f`` and return ``b - r``."""
        self.passes += 1
        rho = self.stream.b - scan(self.stream, self.epsilon, gamma, out)
        self.error = float(rho.abs().sum())
        return rho

    def _pass_with_hessian(
        self, gamma: Tensor, out: Sequence[np.ndarray]
    ) -> tuple[Curvature | None, Tensor]:
        """Fill ``out`` with ``f``; return the curvature and ``b - r``."""
        self.passes, self.hessians = self.passes + 1, self.hessians + 1
        stream, logits = self.stream, Logits(self.stream, self.epsilon)

        def pass_block(block: Block) -> tuple[np.ndarray, _Sums]:
            x, mass = stream.load_block(block)
            z = logits(x, gamma)
            squared, soft_max = squared_norms(x), torch.logsumexp(z, dim=1)
            p = z.sub_(soft_max[:, None]).exp_()
            received = p.T @ mass
            p.mul_(mass.sqrt()[:, None])
            f = squared - self.epsilon * soft_max
            return f.cpu().numpy(), (received, p.T @ p, float(squared.max()))

        received, second, largest = stream.fill(out, pass_block, _add)
        eta = self._rounding_of_a_weight(gamma, math.sqrt(largest))
        width = self.stream.target.shape[1]
        self.rounding = self.epsilon * eta + UNIT * (width + 4) * largest
        rho = stream.b - received
        self.error = float(rho.abs().sum())
        return Curvature.of(gamma, received, second, eta), rho

    def _rounding_of_a_weight(self, gamma: Tensor, longest: float) -> float:
        """Bound the relative error of ``p_ij`` and of sums over it.

        Args:
            gamma: ``[m]`` float64.
            longest: Largest norm of a candidate.
        """
        squared = float(self.stream.target_squared.max())
        width, m = self.stream.target.shape[1], len(gamma)
        logit = (2.0 * longest * math.sqrt(squared) + squared) / self.epsilon
        logit += float(gamma.abs().max())
        rows = max(block.stop - block.start for block in self.stream.blocks)
        terms = (width + 8) * logit + m + rows + len(self.stream.blocks)
        return 2.0 * UNIT * terms


def is_cheap(problem: Problem) -> bool:
    """Return whether the proof of a problem takes little time beside its solve."""
    n, m = problem.n_candidates, problem.n_target
    return n * m * (m + problem.target.shape[1]) <= CHEAP


def prove(
    problem: Problem, potentials: Potentials, compute: Compute | None = None
) -> tuple[Potentials, Proof]:
    """Solve on from a solution until float64 can prove no more.

    Args:
        problem: The solved problem.
        potentials: Its solution; the arrays of ``f`` are overwritten.
        compute: Device, block size and map.

    Returns:
        The better solution, and how far its ``f`` can be from the exact one.
    """
    prover, gamma = _prover(problem, potentials, compute)
    # Plain arrays: this process has already changed them, which another machine may not see.
    values = [np.asarray(array) for array in potentials.candidate]
    gamma, width = prover.approach(gamma, values)
    solved = potentials_of(
        problem,
        potentials.candidate,
        potentials.epsilon_absolute * (gamma.cpu().numpy() - np.log(problem.b)),
        epsilon_absolute=potentials.epsilon_absolute,
        mean_cost=potentials.mean_cost,
        marginal_error=prover.error,
        passes=potentials.passes + prover.passes,
        converged=potentials.converged,
        history=(*potentials.history, prover.error),
        reference_rows=potentials.reference_rows,
    )
    return solved, prover.proof(width)


def examine(problem: Problem, potentials: Potentials, compute: Compute | None = None) -> Proof:
    """Bound how far the potentials of a solution can be from the exact ones.

    A better solution is computed and compared with the given one, which stays as it is.
    So the bound is the largest actual difference, plus the bound of the better solution.

    Args:
        problem: The solved problem.
        potentials: Its solution.
        compute: Device, block size and map.
    """
    prover, gamma = _prover(problem, potentials, compute)
    better = prover.stream.outputs(None)
    _, width = prover.approach(gamma, better, CLOSE)
    most, least = -math.inf, math.inf
    for new, old in zip(better, potentials.candidate, strict=True):
        if len(new):
            difference = new - old
            most, least = max(most, difference.max()), min(least, difference.min())
    return prover.proof(width + float(most - least))


def _prover(
    problem: Problem, potentials: Potentials, compute: Compute | None
) -> tuple[Prover, Tensor]:
    prover = Prover(problem, potentials.epsilon_absolute, compute or Compute())
    g = torch.as_tensor(potentials.target, device=prover.stream.device)
    return prover, prover.stream.b.log() + g / prover.epsilon


@dataclass(frozen=True)
class Proven:
    """Rows of which it is known on which side of the best ``k`` they are.

    Args:
        inside: Selected rows that are surely among the exact best ``k``.
        outside: Other rows that surely are not.
        left: Rows that are neither, ties aside.
        ties: Rows that are neither because float64 cannot tell them from the boundary.
    """

    inside: int
    outside: int
    left: int
    ties: int


def count_proven(
    values: Sequence[np.ndarray], k: int, width: float, rounding: float = 0.0
) -> Proven:
    """Count the candidates whose side of the best ``k`` is proven.

    A selected row is surely inside if even the best row that was not selected is farther
    than ``width``: then fewer than ``k`` rows can be better. The other side is alike.

    Args:
        values: Per array ``[n_k]`` float64 scores, lower is better.
        k: Rows that are selected.
        width: All scores less the exact ones lie in an interval of this width.
        rounding: Largest rounding error of a score.

    Raises:
        ValueError: If there are fewer than ``k`` rows.
    """
    n = sum(map(len, values))
    if not 1 <= k <= n:
        raise ValueError(f"k must be in [1, {n:,}], not {k:,}")
    if k == n:
        return Proven(inside=n, outside=0, left=0, ties=0)
    first = [np.partition(array, k)[: k + 1] if len(array) > k else array for array in values]
    last, next_one = np.partition(np.concatenate(first), [k - 1, k])[k - 1 : k + 1]
    near = 2.0 * rounding
    inside = outside = ties = 0
    for array in values:
        inside += int((array + (width + near) < next_one).sum())
        outside += int((array - (width + near) > last).sum())
        ties += int(((array >= next_one - near) & (array <= last + near)).sum())
    return Proven(inside, outside, n - inside - outside - ties, ties)
