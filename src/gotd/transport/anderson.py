"""Anderson acceleration of the iteration that fits the target potential.

A step of Sinkhorn's iteration changes the potential by the logarithm of what is wanted over what
is received. Near the solution that is nearly linear in the potential, so a few earlier steps show
which combination of their points has almost no step left.

Source: Walker and Ni (2011), Anderson acceleration for fixed-point iterations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

DEPTH = 5
"""Earlier points that are combined; eight did not save iterations (measured)."""
NEAR = 0.5
"""L1 error above which plain steps are taken."""
LONGEST_PAUSE = 64
"""Most plain steps after a combination that was given up."""
SUM_ROUNDING = 1e-15
"""Relative error of a sum in float64."""
RIDGE = 1e-10
"""Share of the trace that is added to the diagonal, where earlier steps are nearly parallel."""


class Anderson:
    """The points of an iteration that maximises a concave function, from its last ones.

    A plain step never lowers the function. A combination that does is given up, and plain steps
    continue from the best point, so that the iteration converges as the plain one does.

    Args:
        weight: ``[m]`` float64 weights of the numbers of a step, the wanted masses.
        rounding: Absolute error of the function's values, beside that of float64 sums.
    """

    def __init__(self, weight: Tensor, rounding: float) -> None:
        self.weight, self.rounding = weight.sqrt()[:, None], rounding
        self.points: list[Tensor] = []
        self.steps: list[Tensor] = []
        self.best: tuple[float, Tensor] = -math.inf, weight
        self.pause, self.waiting, self.is_combined = 1, 0, False

    def advance(self, point: Tensor, step: Tensor, error: float, value: float) -> Tensor:
        """Return the next point.

        Args:
            point: ``[m]`` float64 the present point.
            step: ``[m]`` float64 the plain step from it.
            error: L1 error at the point.
            value: The function at the point.
        """
        rounding = self.rounding + SUM_ROUNDING * abs(value)
        if self.is_combined and value < self.best[0] - rounding:
            self.points, self.steps, self.is_combined = [], [], False
            # Where combinations fail, they are tried less often, and more often when one helps.
            self.pause = self.waiting = min(LONGEST_PAUSE, 2 * self.pause)
            return self.best[1]
        if self.is_combined:
            self.pause = max(1, self.pause // 2)
        if value > self.best[0]:
            self.best = value, point + step
        self.points = [*self.points[-DEPTH:], point]
        self.steps = [*self.steps[-DEPTH:], step]
        self.is_combined = not self.waiting and error < NEAR and len(self.points) > 1
        self.waiting = max(0, self.waiting - 1)
        return self._combined() if self.is_combined else point + step

    def _combined(self) -> Tensor:
        """Return the combination of the points with the least step, by weighted least squares."""
        of_points = torch.stack(self.points, dim=1).diff(dim=1)
        of_steps = torch.stack(self.steps, dim=1).diff(dim=1)
        weighted, last = self.weight * of_steps, self.weight[:, 0] * self.steps[-1]
        products = weighted.T @ weighted
        tiny = torch.finfo(products.dtype).tiny  # where no step differs from the last
        diagonal = products.diagonal() + RIDGE * products.trace() + tiny
        products = products.diagonal_scatter(diagonal)
        shares = torch.linalg.solve(products, weighted.T @ last)
        return self.points[-1] + self.steps[-1] - (of_points + of_steps) @ shares
