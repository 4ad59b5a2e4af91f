"""Settings of the selectors that compare embeddings, and how they solve a transport problem."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Selector
from gotd.storage.checks import check_at_least, check_device_name
from gotd.storage.work import Work
from gotd.transport import Compute, Geometry, Potentials, Problem, Whitening, solve_semidual
from gotd.transport.cost import Cost
from gotd.transport.problem import SMALL_PROBLEM, EpsilonIs
from gotd.transport.proof import Proof
from gotd.transport.reference import reference_size
from gotd.transport.semidual import OnFailure
from gotd.transport.stored import ROW_ENTRIES, fits

PrecisionChoice = Literal["auto", "float32", "bfloat16", "float64"]

SOLVE_PASSES = 4
"""Passes over all candidates in a solve, the fit counted as one (measured)."""

READ_TARGETS = 100
"""Targets whose comparison takes as long as reading the candidates once (measured)."""


@dataclass(frozen=True)
class Comparison(Selector):
    """Cost and arithmetic with which a selector compares embeddings.

    Args:
        cost: ``squared_euclidean`` (published) or ``cosine``.
        whiten: Whiten both sides by the candidates' covariance.
        precision: ``auto`` is float64 for small pools and float32 for others;
            ``bfloat16`` is faster; a transport solve ends with a pass in float32.
        device: ``auto``, ``cpu``, ``cuda`` ...
    """

    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    cost: Cost = "squared_euclidean"
    whiten: bool = False
    precision: PrecisionChoice = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        self.check_choices()
        check_device_name(self.device)

    def problem(self, target: Rows, candidates: Sequence[Rows]) -> Problem:
        """Return the transport problem between the pool and the target."""
        rows = embeddings_of(candidates)
        whitening = Whitening.fit(rows) if self.whiten else None
        return Problem(
            target=embeddings_of([target])[0],
            candidates=rows,
            geometry=Geometry(cost=self.cost, whitening=whitening),
        )

    def compute(self, problem: Problem, engine: Engine) -> Compute:
        """Choose where and in which precision the problem is solved."""
        precision = self.precision
        if precision == "auto":
            # float64 where it is cheap, so that rounding changes no small ranking.
            small = problem.n_candidates * problem.n_target <= SMALL_PROBLEM
            precision = "float64" if small else "float32"
        return Compute(precision=precision, device=self.device, map_blocks=engine.map)


@dataclass(frozen=True)
class TransportSettings(Comparison):
    """Regularisation and certificate of a transport problem.

    Args:
        epsilon: Regularisation. 0.05 of the mean cost ranks best among 0.01 to 0.2 in
            our tests; the published notebook has 0.1 absolute.
        epsilon_is: ``relative`` to the mean cost, or ``absolute`` in cost units.
        tolerance: Marginal error to reach, an L1 distance in [0, 2]; 5e-4 is strict.
        max_passes: Passes over all candidates at most.
        reference_rows: Candidates held in memory during the fit; ``None`` for all of a
            small pool and otherwise ten per target.
        on_failure: ``raise`` or ``warn`` when the tolerance is missed.
        cost: This and the others: see `Comparison`.
    """

    epsilon: float = 0.05
    epsilon_is: EpsilonIs = "relative"
    tolerance: float = 5e-3
    max_passes: int = 10
    reference_rows: int | None = None
    on_failure: OnFailure = "raise"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("epsilon", "tolerance"):
            value = getattr(self, field)
            if not 0 < value < math.inf:
                raise ValueError(f"{self.name}: {field} must be positive and finite, not {value}")
        if self.tolerance >= 1:
            raise ValueError(
                f"{self.name}: tolerance must be below 1, not {self.tolerance}: half of the mass "
                "could then be misplaced"
            )
        check_at_least(self, 1, "max_passes", "reference_rows", prefix=f"{self.name}: ")

    def problem(self, target: Rows, candidates: Sequence[Rows]) -> Problem:
        """Return the transport problem between the pool and the target."""
        problem = super().problem(target, candidates)
        return replace(problem, epsilon=self.epsilon, epsilon_is=self.epsilon_is)

    def solve_semidual(
        self,
        problem: Problem,
        priority: Callable[[], Iterable[np.ndarray]],
        compute: Compute,
        out: Out | None = None,
        start: np.ndarray | None = None,
    ) -> Potentials:
        """Solve at any size; see `gotd.transport.solve_semidual`.

        Args:
            problem: The problem.
            priority: Returns a number per candidate, if a sample is needed.
            compute: Precision, device and map.
            out: Per shard ``[n]`` float64 to write the candidates' potential into.
            start: ``[m]`` target potential to begin with.

        Raises:
            NotConverged: If the solve misses its tolerance.
        """
        rows = reference_size(problem.n_candidates, problem.n_target, self.reference_rows)
        return solve_semidual(
            problem,
            priority() if rows < problem.n_candidates else None,
            tolerance=self.tolerance,
            max_passes=self.max_passes,
            reference_rows=rows,
            start=start,
            on_failure=self.on_failure,
            compute=compute,
            out=out,
        )

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one solve: passes over all pairs, and the sample's kernel."""
        rows = reference_size(n_candidates, n_targets, self.reference_rows)
        is_stored = rows < n_candidates and fits(n_candidates, n_targets)
        plan = 2 * n_candidates * (n_targets + ROW_ENTRIES) if is_stored else 0
        return Work(
            flops=2.0 * n_candidates * (n_targets + READ_TARGETS) * width * SOLVE_PASSES,
            memory_bytes=8 * n_targets * rows + 4 * width * rows + plan,
        )


def reference_priority(
    candidates: Sequence[Rows], seed: int, engine: Engine
) -> Callable[[], Iterator[np.ndarray]]:
    """Return a function that draws a number per candidate; the smallest are the sample.

    The numbers are a hash of (seed, id), computed anew at each call, so that none is held
    in memory.
    """
    return lambda: engine.map(
        lambda shard: uniform_by_id(shard.ids, seed, "got_d reference"), candidates
    )


def embeddings_of(shards: Sequence[Rows]) -> list[np.ndarray]:
    """Return the shards' embeddings; `check_request` has made sure that there are some."""
    return [shard.embeddings for shard in shards if shard.embeddings is not None]


def certificate(potentials: Potentials) -> dict[str, Any]:
    """Return what shows whether a solve can be trusted."""
    names = ("epsilon_absolute", "mean_cost", "marginal_error", "converged", "passes")
    mean_cost = potentials.mean_cost
    return {
        **{name: getattr(potentials, name) for name in (*names, "reference_rows")},
        "epsilon_relative": potentials.epsilon_absolute / mean_cost if mean_cost else 0.0,
        "certified_precision": potentials.precision,
        "rounding_error": potentials.rounding,
        "marginal_error_history": [float(error) for error in potentials.history],
        "transport_cost": potentials.value,
    }


def proof_facts(proof: Proof | None, scale: float) -> dict[str, Any]:
    """Return how far scores can be from exact ones, from which each budget's proof follows.

    Args:
        proof: The proof; ``None`` where it would take long and was not asked for.
        scale: Scores per unit of the potential.
    """
    if proof is None or not math.isfinite(proof.width):
        return {
            "score_uncertainty": None,
            "score_rounding": None,
            "proof_passes": proof.passes if proof else 0,
        }
    return {
        "score_uncertainty": scale * proof.width,
        "score_rounding": scale * proof.rounding,
        "proof_passes": proof.passes,
    }


def warn_of_small_groups(problem: Problem, potentials: Potentials, proof: Proof | None) -> None:
    """Warn if the error of a solve could hide a small group of targets.

    A group far from the others is connected to them by little mass, so a small error of its
    mass is a large one of its price, and its candidates may be far from their exact ranks.
    An examined solution shows that. Without one the certificate excludes it only as long as
    its error is below the mass of the smallest target.

    Args:
        problem: The problem.
        potentials: Its solution.
        proof: How exact it is, where that is known.
    """
    if proof is not None:
        hidden = proof.width > potentials.epsilon_absolute
        known = f"scores are exact to {proof.width / potentials.epsilon_absolute:.2g} epsilons only"
    else:
        least = float(problem.b.min())
        hidden = potentials.marginal_error > least
        known = f"the smallest target has mass {least:.2g}"
    if hidden:
        warnings.warn(
            f"the marginal error {potentials.marginal_error:.2g} may hide a small group of targets "
            f"whose candidates are ranked too low: {known}. Give --prove (prove=true), or a "
            "smaller tolerance (--set tolerance=5e-4)",
            RuntimeWarning,
            stacklevel=4,
        )
