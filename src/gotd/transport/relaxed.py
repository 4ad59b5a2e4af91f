"""Transport with relaxed masses, solved like the semi-dual at any size.

A relaxed problem need not send every row's mass, or need not give every target its own:

    min_P <P, C> + eps KL(P | a b^T) + D_1(P 1 | a) + D_2(P^T 1 | b).

For a target potential ``g`` let ``F_i = -eps log sum_j b_j exp((g_j - C_ij) / eps)``, as in
`semidual`. A row sends ``p_i = a_i w(F_i)`` to the targets in proportion to
``b_j exp((g_j - C_ij) / eps)``, and the target's condition is ``r_j = demand_j(r, g)`` for the
mass ``r`` that it receives. Balanced, ``w = 1`` and the demand is ``b``. Otherwise:

- **Target relaxed by KL**, ``D_2 = rho KL``: optimality gives ``r_j = b_j exp(-g_j / rho)``. A
  target that is hard to reach (high ``g``) is served less. ``w = 1``.
- **Candidates relaxed by KL**, ``D_1 = rho KL``: their potential ``f`` is ``F`` damped by
  ``rho / (rho + eps)``, and ``p_i = a_i exp(-f_i / rho)``, so ``w = exp(-F / (rho + eps))``.
- **A share** ``s`` **of the mass**: ``P 1 <= a``, ``P^T 1 <= b`` and ``sum P = s``. With the
  multiplier of the mass as part of ``g``: ``f_i = min(0, F_i)``, so ``w = min(1, exp(-F / eps))``,
  and ``g_j = lambda`` for every target that receives less than ``b_j``.

By the envelope theorem the derivative of the optimal value in ``a_i`` is ``F_i`` itself, then
``(rho + eps) (1 - exp(-f_i / rho))``, then ``F_i`` below 0 and ``eps (1 - exp(-F_i / eps))``
above. All are increasing functions of ``F_i``, so ``F`` gives the ranking.

One block ascent of the dual replaces ``g`` by the exact maximum for the present ``f``. On a sample
it takes two matrix-vector products. A pass over all candidates gives the true ``r``, and the
sample's ``r`` is then corrected by the ratio of both, as in `semidual`.

Source: Chizat et al. (2018), Scaling algorithms for unbalanced transport; Benamou et al. (2015)
for partial transport; Sejourne, Vialard and Peyre (2022) for the shift of the potentials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Compute, Stream, full_float32
from gotd.transport.passes import Passes
from gotd.transport.problem import Potentials, Problem
from gotd.transport.reference import REBUILD_LOG_RANGE, Reference, reference_size, sample_bytes
from gotd.transport.semidual import (
    LARGEST_CORRECTION,
    LAST_IS_NEAR,
    OnFailure,
    reference_sample,
    report_failure,
)

MOST_ITERATIONS = 2000
"""Of one fit on the sample. To stop there is no error, since passes check the result."""


class Relaxation(Protocol):
    """What the masses of a relaxed problem must fulfil."""

    @property
    def rate(self) -> float:
        """Return the step of the block ascent as a share of ``eps log(demand / r)``."""
        ...

    def weight(self, f: Tensor) -> Tensor:
        """Return ``[n]`` float64 shares of their mass that rows of potential ``F`` send."""
        ...

    def demand(self, received: Tensor, g: Tensor) -> Tensor:
        """Return ``[m]`` masses that targets should have, for what they receive and ``g``."""
        ...

    def gradient(self, f: np.ndarray) -> np.ndarray:
        """Return the derivative of the optimal value in the masses of rows of potential ``F``."""
        ...


@dataclass(frozen=True, eq=False)
class TargetKL:
    """Target masses that may differ from ``b``, at a price of ``rho KL(r | b)``.

    Args:
        b: ``[m]`` float64 target masses.
        epsilon: Regularisation in cost units.
        rho: Price in cost units.
    """

    b: Tensor
    epsilon: float
    rho: float

    @property
    def rate(self) -> float:
        """Return the damping of the target potential."""
        return self.rho / (self.rho + self.epsilon)

    def weight(self, f: Tensor) -> Tensor:
        """Return 1 for every row."""
        return torch.ones_like(f)

    def demand(self, received: Tensor, g: Tensor) -> Tensor:
        """Return ``b exp(-g / rho)``, with the mass that is sent: a shift of ``g`` is free."""
        return received.sum() * torch.softmax(self.b.log() - g / self.rho, dim=0)

    def gradient(self, f: np.ndarray) -> np.ndarray:
        """Return the potential itself."""
        return f


@dataclass(frozen=True, eq=False)
class CandidatesKL:
    """Candidate masses that may differ from ``a``, at a price of ``rho KL(p | a)``.

    Args:
        b: ``[m]`` float64 target masses.
        epsilon: Regularisation in cost units.
        rho: Price in cost units.
    """

    b: Tensor
    epsilon: float
    rho: float

    @property
    def rate(self) -> float:
        """Return 1: the target potential is not damped."""
        return 1.0

    def weight(self, f: Tensor) -> Tensor:
        """Return ``exp(-F / (rho + eps))``."""
        return (f / -(self.rho + self.epsilon)).exp()

    def demand(self, received: Tensor, g: Tensor) -> Tensor:
        """Return ``b`` times the mass that is sent: a shift of ``g`` changes that alone."""
        return received.sum() * self.b

    def gradient(self, f: np.ndarray) -> np.ndarray:
        """Return ``(rho + eps) (1 - exp(-F / (rho + eps)))``."""
        both = self.rho + self.epsilon
        return -both * np.expm1(-f / both)


@dataclass(frozen=True, eq=False)
class Share:
    """A share of the mass, from and to the rows where it is cheapest.

    Args:
        b: ``[m]`` float64 target masses.
        epsilon: Regularisation in cost units.
        share: Mass that is sent, in (0, 1).
    """

    b: Tensor
    epsilon: float
    share: float

    @property
    def rate(self) -> float:
        """Return 1: the target potential is not damped."""
        return 1.0

    def weight(self, f: Tensor) -> Tensor:
        """Return ``min(1, exp(-F / eps))``."""
        return (f / -self.epsilon).clamp(max=0.0).exp()

    def demand(self, received: Tensor, g: Tensor) -> Tensor:
        """Return ``min(b_j, r_j exp((lambda - g_j) / eps))`` with the sum ``share``."""
        log_r, log_b = received.log() - g / self.epsilon, self.b.log()
        # Target j has all of its mass from lambda / eps = log_b_j - log_r_j on.
        full_from, order = (log_b - log_r).sort()
        before = self.b[order].cumsum(0) - self.b[order]
        after = log_r[order].flip(0).logcumsumexp(0).flip(0)
        enough = before + (full_from + after).exp() >= self.share
        first = int(enough.double().argmax())
        level = math.log(self.share - float(before[first])) - after[first]
        return torch.minimum(log_b, log_r + level).exp()

    def gradient(self, f: np.ndarray) -> np.ndarray:
        """Return ``F`` below 0 and ``eps (1 - exp(-F / eps))`` above."""
        return np.where(f < 0.0, f, -self.epsilon * np.expm1(-np.maximum(f, 0.0) / self.epsilon))


Relax = Callable[[Tensor, float, float], Relaxation]
"""Builds the relaxation for ``[m]`` target masses, epsilon and mean cost in cost units."""


@full_float32()
# long: half of it documents the arguments; the rest is one sequence of calls
def solve_relaxed(
    problem: Problem,
    relax: Relax,
    priority: Iterable[np.ndarray] | None = None,
    *,
    tolerance: float = 5e-3,
    max_passes: int = 10,
    reference_rows: int | None = None,
    on_failure: OnFailure = "raise",
    compute: Compute | None = None,
    out: Sequence[np.ndarray] | None = None,
) -> Potentials:
    """Solve a relaxed problem for any number of candidates in ``O(n + m)`` memory.

    Args:
        problem: Candidates, targets, masses, cost and epsilon.
        relax: Builds the relaxation.
        priority: This and the others: see `gotd.transport.solve_semidual`.
        tolerance: Error to reach, ``|r - demand|_1`` as a share of the mass that is sent.
        max_passes: Largest number of passes over all candidates.
        reference_rows: Rows of the sample.
        on_failure: ``raise`` or ``warn`` when the tolerance is missed.
        compute: Precision, device, block size and map.
        out: Per candidate array ``[n_k]`` float64, filled with ``F``.

    Returns:
        Potentials of the best pass: ``candidate`` is ``F``, ``marginal_error`` that of
        `tolerance`. There is no ``value``, and no constant is moved between both potentials.

    Raises:
        NotConverged: If the tolerance is missed; holds the best potentials.
    """
    stream = Stream(problem, compute or Compute())
    rows = reference_size(problem.n_candidates, problem.n_target, reference_rows)
    stream.keep_blocks(reserve=sample_bytes(stream, rows))
    mean = stream.mean_cost()
    epsilon = problem.epsilon_in_cost_units(mean)
    relaxation = relax(stream.b, epsilon, mean)
    where, mass = reference_sample(problem, priority, rows)
    reference = Reference(stream, epsilon, where, mass)
    stores = not reference.is_complete
    passes = Passes(stream, epsilon, where, mass, relaxation.weight, stores)
    sample = _Sample(reference, stream.b.log(), epsilon, relaxation)
    f = stream.outputs(out)
    correction = torch.ones_like(stream.b)
    gamma, history, step = stream.b.log(), [], 1.0
    best, best_received, exact = (gamma, correction, correction), stream.b, True

    def error_of(received: Tensor) -> float:
        wanted = relaxation.demand(_positive(received), epsilon * (gamma - sample.log_b))
        return float((received - wanted).abs().sum() / wanted.sum())

    for _ in range(max_passes):
        gamma, estimate = sample.fit(gamma, correction, tolerance / 10.0)
        near = bool(history) and history[-1] <= LAST_IS_NEAR * tolerance
        exact = passes.certifies or sample.reference.is_complete or near
        received = passes.scan(gamma, f, exact)
        if error_of(received) <= tolerance:
            received, exact = passes.certify(gamma, f, received, error_of, exact), True
        error = error_of(received)
        if not history or error < min(history):
            ratio = _positive(received) / _positive(estimate)
            best = gamma, correction, ratio.clamp(1.0 / LARGEST_CORRECTION, LARGEST_CORRECTION)
            step = min(1.0, 2.0 * step) if history else step
            best_received = received
        else:
            step /= 2.0
        history.append(error)
        if error <= tolerance:
            break
        gamma, correction = best[0], best[1] * best[2] ** step
    if history[-1] > tolerance:
        gamma = best[0]
        if exact and history[-1] > min(history):
            best_received = passes.scan(gamma, f)
        best_received = passes.certify(gamma, f, best_received, error_of, exact)
    error = error_of(best_received)
    potentials = Potentials(
        candidate=f,
        target=epsilon * (best[0] - sample.log_b).cpu().numpy(),
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


@dataclass(frozen=True, eq=False)
class _Sample:
    """The sample on which the target potential is fitted.

    Args:
        reference: Its logits and kernel.
        log_b: ``[m]`` float64 logarithms of the target masses.
        epsilon: Regularisation in cost units.
        relaxation: What the masses must fulfil.
    """

    reference: Reference
    log_b: Tensor
    epsilon: float
    relaxation: Relaxation

    def fit(self, gamma: Tensor, correction: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """Iterate ``gamma_j += rate log(demand_j / r_j)``.

        Args:
            gamma: ``[m]`` float64 start, ``g / eps + log b``.
            correction: ``[m]`` factors by which the sample's ``r`` is multiplied.
            tolerance: Error at which to stop, as a share of the mass.

        Returns:
            ``[m]`` float64 gamma and the corrected ``r`` for it.
        """
        done = 0
        while True:
            self.reference.build_kernel(gamma)
            log_v = torch.zeros_like(gamma)
            while float(log_v.abs().max()) <= REBUILD_LOG_RANGE:
                received = _positive(correction * self._received(log_v))
                g = self.epsilon * (gamma + log_v - self.log_b)
                wanted = self.relaxation.demand(received, g)
                error = float((received - wanted).abs().sum() / wanted.sum())
                if error <= tolerance or done >= MOST_ITERATIONS:
                    return gamma + log_v, received
                # A target that few rows reach would otherwise overflow.
                step = (wanted.log() - received.log()).clamp(-REBUILD_LOG_RANGE, REBUILD_LOG_RANGE)
                log_v, done = log_v + self.relaxation.rate * step, done + 1
            gamma = gamma + log_v

    def _received(self, log_v: Tensor) -> Tensor:
        reference = self.reference
        v = log_v.exp().to(reference.kernel.dtype)
        row_sums = reference.kernel @ v
        soft_max = reference.soft_max + row_sums.double().log()
        f = reference.squared.double() - self.epsilon * soft_max
        sent = reference.a * self.relaxation.weight(f)
        return (v * (reference.kernel.T @ (sent.to(v.dtype) / row_sums))).double()


def _positive(masses: Tensor) -> Tensor:
    return masses.clamp(min=torch.finfo(torch.float64).tiny)
