"""GOT-D: the candidates that move the pool fastest towards the target.

The pool represents what the model was pre-trained on. The gradient of the transport cost
``OT(candidates, target)`` in the candidates' masses says which of them move it towards the
target; the most negative come first. One solve, one sort.

Source: GOT-D (ICLR 2024), section 2 and Theorem 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector, fill
from gotd.selectors.transport_settings import (
    TransportSettings,
    certificate,
    proof_facts,
    reference_priority,
    warn_of_small_groups,
)
from gotd.storage.keys import added_later
from gotd.storage.work import Work
from gotd.transport import Compute, Potentials, Problem
from gotd.transport.debias import self_potential
from gotd.transport.dense import solve_dense, solve_pot
from gotd.transport.gradient import calibrate
from gotd.transport.proof import Proof, examine, is_cheap, prove
from gotd.transport.published import solve_published

Solver = Literal["semidual", "dense", "pot", "published"]
Direction = Literal["towards", "away"]


@dataclass(frozen=True)
class GotD(TransportSettings, ScoringSelector):
    """Rank candidates by the calibrated gradient of the transport cost, lowest first.

    ``score_i = N / (N - 1) * (f_i - mean f)``; ``f`` is the candidates' potential.
    GOT-D_contrast is ``direction="away"`` with a target of what is *not* wanted. The seed
    only draws the reference sample of a large pool; within the tolerance it does not matter.

    Args:
        solver: ``semidual`` for any size; ``dense`` (float64) and ``pot`` as oracles
            for small pools; ``published`` repeats the notebook's stopping rule
            (threshold 0.1, momentum 1.3), which leaves the solve unfinished and ignores
            ``tolerance``. ``max_passes``, ``reference_rows`` and ``on_failure``
            are the semidual's.
        debias: Subtract the candidates' potential against themselves. Not GOT-D; can
            help at epsilon of 0.1 and more.
        direction: ``towards`` the target, or ``away`` from it.
        prove: Solve on in float64 until as many rows as possible are proven to be inside or
            outside the exact best ``k``, whatever ``k`` is. Without it the share that is
            proven is reported where that takes little time.
        epsilon: This and the others: see `TransportSettings`.
    """

    key_name: ClassVar[str] = "GOTD"
    version: ClassVar[int] = 2  # 2: corrections are changes of the stored plan of a pass
    name: ClassVar[str] = "got_d"

    solver: Solver = "semidual"
    debias: bool = False
    direction: Direction = "towards"
    prove: bool = added_later(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prove and (self.debias or self.solver != "semidual"):
            raise ValueError(f"{self.name}: prove=true needs solver=semidual and debias=false")

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the calibrated gradient; with ``semidual`` only ``out`` grows with the pool.

        Raises:
            ValueError: If the pool has one row.
            NotConverged: If the solve misses its tolerance.
        """
        problem = self.problem(target, candidates)
        compute = self.compute(problem, engine)
        priority = reference_priority(candidates, seed, engine)
        if self.solver == "semidual":
            potentials = self.solve_semidual(problem, priority, compute, out)
        else:
            potentials = self._solve_small(problem, compute)
            potentials = replace(potentials, candidate=tuple(fill(out, potentials.candidate)))
        potentials, proof = self._proof(problem, potentials, compute)
        values = potentials.candidate
        if self.debias:
            epsilon = potentials.epsilon_absolute
            own = self_potential(problem, epsilon, priority(), compute=compute)
            for f, f_own in zip(values, own, strict=True):
                f -= f_own
        calibrate(values)
        if self.direction == "away":
            for f in values:
                np.negative(f, out=f)
        diagnostics = {
            **certificate(potentials),
            "solver": self.solver,
            "precision": compute.precision,
            **proof_facts(proof, problem.n_candidates / (problem.n_candidates - 1)),
        }
        return Scores(values, diagnostics, potentials.target)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one solve; ``dense`` and ``pot`` hold all costs several times."""
        work = super().work(n_candidates, n_targets, width, limit)
        if self.solver in ("dense", "pot"):
            return replace(work, memory_bytes=4 * 8 * n_candidates * n_targets)
        return work

    def _proof(
        self, problem: Problem, potentials: Potentials, compute: Compute
    ) -> tuple[Potentials, Proof | None]:
        """Return the potentials, better ones with ``prove``, and how exact they are."""
        if self.prove:
            return prove(problem, potentials, compute)
        # The self potential is an estimate from a sample, without a bound.
        known = not self.debias and is_cheap(problem)
        proof = examine(problem, potentials, compute) if known else None
        if self.solver == "semidual":
            warn_of_small_groups(problem, potentials, proof)
        return potentials, proof

    def _solve_small(self, problem: Problem, compute: Compute) -> Potentials:
        if self.solver == "published":
            return solve_published(problem, compute=compute)
        solve = solve_dense if self.solver == "dense" else solve_pot
        return solve(problem, tolerance=self.tolerance)
