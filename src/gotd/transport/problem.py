"""A transport problem and its solution.

Letters in this package: ``x_i`` candidates with mass ``a_i`` and potential
``f_i`` (``i < n``); ``y_j`` targets with mass ``b_j`` and potential ``g_j``
(``j < m``); ``C_ij`` their cost; ``epsilon`` the entropic regularisation. The problem is

    OT_eps(a, b) = min_P <P, C> + eps KL(P | a b^T)   subject to   P 1 = a,  P^T 1 = b
                 = max_f,g <a, f> + <b, g> - eps <a b^T, exp((f + g - C) / eps) - 1>.

Source: GOT-D (ICLR 2024) section 2.3; Cuturi (2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gotd.transport.cost import Geometry, cost_matrix

EpsilonIs = Literal["relative", "absolute"]

# Below this many costs (128 MiB in float64) a problem is small. It is then solved in memory,
# on all candidates and in double precision. This depends on the problem alone and not on the
# machine, so that the same data give the same ranking everywhere.
SMALL_PROBLEM = 2**24

# Most costs for a dense solver, which holds several copies of the matrix.
DENSE_LIMIT = 2**27

# Rows that are copied at once in a loop over all of them.
PIECE_ROWS = 2**16


@dataclass(frozen=True, eq=False)
class Problem:
    """Two weighted sets of embeddings and the regularised cost between them.

    Args:
        target: ``[m, d]`` target embeddings.
        candidates: Arrays of ``[n_k, d]`` float32 embeddings, which may be memory maps;
            together they are the ``n`` candidates.
        geometry: Definition of the cost.
        epsilon: Regularisation, as a share of the mean cost or in cost units.
        epsilon_is: ``relative`` (to the mean cost) or ``absolute``.
        target_mass: ``[m]`` positive masses; equal when ``None``. Scaled to sum to 1.
        candidate_mass: Per array ``[n_k]`` masses >= 0; equal when ``None``.
    """

    target: np.ndarray
    candidates: Sequence[np.ndarray]
    geometry: Geometry = field(default_factory=Geometry)
    epsilon: float = 0.05
    epsilon_is: EpsilonIs = "relative"
    target_mass: np.ndarray | None = None
    candidate_mass: Sequence[np.ndarray] | None = None

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, not {self.epsilon}")
        if self.epsilon_is not in ("relative", "absolute"):
            raise ValueError(f"epsilon_is must be relative or absolute, not {self.epsilon_is!r}")
        if self.target.ndim != 2 or len(self.target) == 0 or self.n_candidates == 0:
            raise ValueError("transport needs at least one target row and one candidate row")
        widths = {array.shape[1] for array in (self.target, *self.candidates)}
        if len(widths) > 1:
            raise ValueError(f"target and candidates differ in width: {sorted(widths)}")
        self._check_masses()

    def _check_masses(self) -> None:
        if self.target_mass is not None and (
            len(self.target_mass) != self.n_target or not (np.asarray(self.target_mass) > 0).all()
        ):
            raise ValueError("target_mass must hold one positive number per target row")
        if self.candidate_mass is None:
            return
        if [len(mass) for mass in self.candidate_mass] != [len(x) for x in self.candidates]:
            raise ValueError("candidate_mass must hold one number per candidate row")
        if any((np.asarray(mass) < 0).any() for mass in self.candidate_mass):
            raise ValueError("candidate_mass must not be negative")
        if not sum(float(np.sum(mass)) for mass in self.candidate_mass) > 0:
            raise ValueError("candidate_mass must not be zero everywhere")

    def __getstate__(self) -> dict[str, Any]:
        # Equal masses are a broadcast of one number; a pickle would hold all of them.
        return {name: value for name, value in self.__dict__.items() if name != "a"}

    @property
    def n_candidates(self) -> int:
        """Return the number of candidates in all arrays."""
        return sum(len(array) for array in self.candidates)

    @property
    def n_target(self) -> int:
        """Return the number of targets."""
        return len(self.target)

    @cached_property
    def b(self) -> np.ndarray:
        """Return ``[m]`` float64 target masses, summing to 1."""
        if self.target_mass is None:
            return np.full(self.n_target, 1.0 / self.n_target)
        mass = np.asarray(self.target_mass, dtype=np.float64)
        return mass / mass.sum()

    @cached_property
    def a(self) -> tuple[np.ndarray, ...]:
        """Return per candidate array ``[n_k]`` float64 masses; all of them sum to 1.

        Equal masses are a read-only broadcast of one number, which takes no memory.
        """
        if self.candidate_mass is None:
            share = np.float64(1.0 / self.n_candidates)
            return tuple(np.broadcast_to(share, len(array)) for array in self.candidates)
        masses = [np.asarray(mass, dtype=np.float64) for mass in self.candidate_mass]
        total = sum(float(mass.sum()) for mass in masses)
        return tuple(mass / total for mass in masses)

    def dense(self) -> tuple[Tensor, float, float]:
        """Compute the complete cost matrix in float64, for the dense solvers.

        Returns:
            ``[n, m]`` costs, epsilon in cost units, and the mean cost.

        Raises:
            ValueError: If the matrix and its copies would not fit in memory.
        """
        entries = self.n_candidates * self.n_target
        if entries > DENSE_LIMIT:
            raise ValueError(
                f"a dense solver would hold {self.n_candidates:,} x {self.n_target:,} costs "
                f"({entries * 8 / 2**30:.0f} GiB, several times); use solver=semidual"
            )
        rows = np.concatenate([np.asarray(x, dtype=np.float64) for x in self.candidates])
        y = self.geometry.embed(torch.as_tensor(np.asarray(self.target, dtype=np.float64)))
        cost = cost_matrix(self.geometry.embed(torch.as_tensor(rows)), y)
        mean = float(torch.as_tensor(np.concatenate(self.a)) @ cost @ torch.as_tensor(self.b))
        return cost, self.epsilon_in_cost_units(mean), mean

    def epsilon_in_cost_units(self, mean_cost: float) -> float:
        """Return the absolute epsilon.

        Raises:
            ValueError: If it is relative to a mean cost of zero.
        """
        if self.epsilon_is == "absolute":
            return self.epsilon
        if not mean_cost > 0:
            raise ValueError(
                "all costs are zero: all candidates and targets are the same point; add "
                "candidates, or a target, of other texts"
            )
        return self.epsilon * mean_cost


@dataclass(frozen=True, eq=False)
class Potentials:
    """Dual potentials in cost units, with a certificate of their accuracy.

    The free constant is fixed by ``<b, g> = 0``, so that ``<a, f>`` is the dual value. A
    candidate with lower ``f`` is more useful for the target.

    Args:
        candidate: Per candidate array ``[n_k]`` float64 ``f``.
        target: ``[m]`` float64 ``g``, high for targets that few candidates are near.
        epsilon_absolute: Epsilon in cost units.
        mean_cost: Mean cost over all pairs.
        marginal_error: ``sum_j |(P^T 1)_j - b_j|`` of the plan of (f, g), in [0, 2].
            The other marginal is exact. This is the certificate: 0.005 preserves a
            ranking (Spearman >= 0.9998 in 50 runs), 0.0005 is strict.
        passes: Passes over all candidates with a matrix product.
        converged: Whether the solver met its own tolerance.
        history: The solver's error after each pass or check.
        reference_rows: Candidates in memory during the fit.
        precision: Precision of the pass that gave ``f`` and the marginal error.
        rounding: Estimated part of rounding in the marginal error.
        value: ``<a, f> + <b, g>``, the dual value.
    """

    candidate: tuple[np.ndarray, ...]
    target: np.ndarray
    epsilon_absolute: float
    mean_cost: float
    marginal_error: float
    passes: int
    converged: bool
    history: tuple[float, ...] = ()
    reference_rows: int = 0
    precision: str = "float64"
    rounding: float = 0.0
    value: float = float("nan")


class NotConverged(RuntimeError):  # noqa: N818 - describes the outcome
    """A solve that stopped before it reached its tolerance.

    Args:
        message: The error that was reached and the settings to change.
        potentials: The best potentials.
    """

    def __init__(self, message: str, potentials: Potentials) -> None:
        super().__init__(message)
        self.potentials = potentials


def potentials_of(
    problem: Problem, f: tuple[np.ndarray, ...], g: np.ndarray, **certificate: Any
) -> Potentials:
    """Build a solution: shift ``g`` so that ``<b, g> = 0``, and ``f`` in place.

    Args:
        problem: The problem, for its masses.
        f: Per candidate array ``[n_k]`` float64.
        g: ``[m]`` float64.
        certificate: The other fields of `Potentials`.
    """
    shift = float(problem.b @ g)
    for values in f:
        values += shift
    value = sum(map(_dot, problem.a, f))
    return Potentials(candidate=f, target=g - shift, value=value, **certificate)


def _dot(a: np.ndarray, f: np.ndarray) -> float:
    # In pieces, because `a` may be a broadcast number and `f` a file.
    pieces = range(0, len(f), PIECE_ROWS)
    return sum(float(np.array(a[i : i + PIECE_ROWS]) @ f[i : i + PIECE_ROWS]) for i in pieces)
