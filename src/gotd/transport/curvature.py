"""An upper bound of how far scores are from the exact ones, from gradient and curvature.

A solve stops at a tolerance, so its potentials are not the exact ones. This module bounds how
far any two candidates' scores can have moved against each other.

**Setting.** Let ``gamma = g / eps + log b``, ``p_i = softmax(gamma - C_i / eps)`` and
``r = sum_i a_i p_i``. The exact ``gamma*`` minimises the convex semi-dual, whose gradient is
``r - b`` and whose Hessian is ``H = sum_i a_i (diag(p_i) - p_i p_i^T)``. Constants are its
kernel. Write ``u = gamma* - gamma``, ``osc(u) = max u - min u`` and ``rho = b - r``.

**Scores.** ``F*_i - F_i = -eps log sum_j p_ij exp(u_j)`` lies between ``-eps max u`` and
``-eps min u``. So all scores err by the same constant, up to a width of ``eps osc(u)``.

**Curvature along a line.** The third derivative of a log-sum-exp is a third cumulant, so
``|D^3[h, v, v]| <= osc(h) D^2[v, v]``. Hence ``exp(-osc h) H(x) <= H(x + h) <= exp(osc h) H(x)``.
With ``R = osc(u)`` the mean Hessian ``M`` on the way from ``gamma`` to ``gamma*`` fulfils

    (1 - exp(-R)) / R  H <= M <= (exp(R) - 1) / R  H,    M u = rho.

**First bound.** Let ``nu^2 = rho^T H^+ rho``, and let ``kappa^2`` be the largest of all
``(e_j - e_k)^T H^+ (e_j - e_k)``. From ``u^T M u = rho^T u <= nu |u|_H`` follows
``|u|_H <= nu R / (1 - exp(-R))``. From ``R <= kappa |u|_H`` follows ``1 - exp(-R) <= kappa nu``.
So if ``kappa nu < 1``,

    R <= -log(1 - kappa nu).

It holds for the actual ``u``, however far away the solution is.

**Sharper bound.** Let ``v = H^+ rho`` be the Newton step. As ``u - v = H^+ (H - M) u``,

    R <= osc(v) + kappa c nu R / (1 - exp(-R)),    c = (exp(R) - 1) / R - 1,

whose last term is quadratic in the error. Every ``R`` that is known to be an upper bound may be
put in on the right.

**One Hessian for many passes.** ``H`` at ``gamma_0`` bounds that at ``gamma``: with
``t = exp(osc(gamma - gamma_0))`` it is at least ``H_0 / t`` and at most ``t H_0``. So a chord step
``gamma + H_0^+ rho`` and a pass for its ``rho`` suffice to improve the bound.

**Rounding.** In float64 a weight ``p_ij`` has a relative error of at most ``eta`` (standard bounds
for inner products and sums). So ``H`` is wrong by at most ``eta diag(r)`` as a quadratic form, and
``rho_j`` by ``eta r_j``. Both enter the bound; the error of a score is reported beside it.

Source: Bach (2010), Self-concordant analysis for logistic regression, for the class of functions;
Sun and Tran-Dinh (2019) for the damped Newton step; Higham (2002) for rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

REFINEMENTS = 20
"""Times that the sharper bound is put into itself."""

FLAT = 1e-8
"""What is added to the scaled Hessian, whose diagonal is about 1, where it is singular."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """A lower bound of the Hessian at one potential, inverted.

    Args:
        gamma: ``[m]`` float64 potential.
        inverse: ``[m, m]`` float64 ``L^-1`` for vectors of sum 0, ``L <= H``.
        spread: ``kappa``, from ``L``.
        looseness: ``z`` with ``H <= (1 + z) L``.
        slack: Largest error of ``nu`` that rounding causes.
    """

    gamma: Tensor
    inverse: Tensor
    spread: float
    looseness: float
    slack: float

    @classmethod
    def of(cls, gamma: Tensor, received: Tensor, second: Tensor, eta: float) -> Curvature | None:
        """Invert the Hessian ``diag(r) - S``.

        Where it is singular, something is added, and `spread` is infinite: nothing is proven.

        Args:
            gamma: ``[m]`` float64.
            received: ``[m]`` float64 ``r``.
            second: ``[m, m]`` float64 ``S = sum_i a_i p_i p_i^T``; overwritten.
            eta: Relative error of a weight.

        Returns:
            The curvature; ``None`` if a target receives nothing.
        """
        root = received.sqrt()
        if not bool((root > 0).all()):
            return None
        # Scaled to a unit diagonal plus a rank-one term on the kernel, which is then regular.
        scaled = second.neg_().div_(root[:, None]).div_(root)
        scaled += root[:, None] * root
        scaled.diagonal().add_(1.0 - eta)
        factor, failed = torch.linalg.cholesky_ex(scaled)
        proves = int(failed) == 0
        if not proves:
            # Flat as far as float64 can tell: good for a step, but no lower bound.
            scaled.diagonal().add_(FLAT)
            factor, failed = torch.linalg.cholesky_ex(scaled)
            if int(failed) != 0:
                return None
        inverse = torch.cholesky_inverse(factor)
        # The Frobenius norm bounds the largest eigenvalue.
        least = 1.0 / float(inverse.norm())
        inverse.div_(root[:, None]).div_(root)
        own = inverse.diagonal()
        widest = max(
            float((own + own[row] - 2.0 * inverse[row]).max()) for row in range(len(gamma))
        )
        looseness = 4.0 * eta / least
        spread = math.sqrt(widest) if proves else math.inf
        return cls(gamma, inverse, spread, looseness, eta / math.sqrt(least))

    def step(self, rho: Tensor) -> Tensor:
        """Return the damped Newton step ``[m]`` for the missing masses ``rho`` ``[m]``."""
        step = self.inverse @ rho
        length = oscillation(step)
        return step * (math.log1p(length) / length if length > 0.0 else 1.0)

    def decrement(self, rho: Tensor) -> float:
        """Return ``nu`` without rounding."""
        return math.sqrt(max(0.0, float(rho @ (self.inverse @ rho))))

    def radius(self, gamma: Tensor, rho: Tensor) -> float:
        """Compute an upper bound of ``osc(gamma* - gamma)``, infinite where there is none.

        Args:
            gamma: ``[m]`` float64.
            rho: ``[m]`` float64 ``b - r`` there.
        """
        moved = math.exp(min(700.0, oscillation(gamma - self.gamma)))
        slack = self.slack * moved
        nu = self.decrement(rho) + slack
        product = self.spread * nu * moved
        if not product < 1.0:
            return math.inf
        radius = -math.log1p(-product)
        first = oscillation(self.inverse @ rho) + self.spread * slack
        upper = moved * (1.0 + self.looseness)
        for _ in range(REFINEMENTS):
            if radius == 0.0:
                break
            most = upper * math.expm1(radius) / radius - 1.0
            least = 1.0 + math.expm1(-radius) / (radius * moved)
            length = nu * moved * radius / -math.expm1(-radius)
            radius = min(radius, first + self.spread * max(most, least) * length)
        return radius


def oscillation(values: Tensor) -> float:
    """Return the largest of ``values`` less the smallest."""
    return float(values.max() - values.min())
