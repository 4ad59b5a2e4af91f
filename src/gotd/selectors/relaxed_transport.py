"""What selectors by relaxed transport share: a solve like GOT-D's with other masses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector
from gotd.selectors.transport_settings import TransportSettings, certificate, reference_priority
from gotd.transport import calibrate
from gotd.transport.reference import reference_size
from gotd.transport.relaxed import Relaxation, solve_relaxed


@dataclass(frozen=True)
class RelaxedTransport(TransportSettings, ScoringSelector):
    """Rank candidates by the gradient of a relaxed transport cost, lowest first.

    The score is the calibrated ``F`` of `gotd.transport.relaxed`. The gradient is an increasing
    function of it, but for far rows it rounds to one number.
    """

    @abstractmethod
    def relaxation(self, b: Tensor, epsilon: float, mean_cost: float) -> Relaxation:
        """Return the relaxation.

        Args:
            b: ``[m]`` float64 target masses.
            epsilon: Regularisation in cost units.
            mean_cost: Mean cost over all pairs.
        """

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the potential; only ``out`` grows with the pool.

        Raises:
            ValueError: If the pool has one row.
            NotConverged: If the solve misses its tolerance.
        """
        problem = self.problem(target, candidates)
        compute = self.compute(problem, engine)
        rows = reference_size(problem.n_candidates, problem.n_target, self.reference_rows)
        sampled = rows < problem.n_candidates
        potentials = solve_relaxed(
            problem,
            self.relaxation,
            reference_priority(candidates, seed, engine)() if sampled else None,
            tolerance=self.tolerance,
            max_passes=self.max_passes,
            reference_rows=rows,
            on_failure=self.on_failure,
            compute=compute,
            out=out,
        )
        calibrate(potentials.candidate)
        diagnostics = {**certificate(potentials), "precision": compute.precision}
        del diagnostics["transport_cost"]  # of the balanced problem alone
        return Scores(potentials.candidate, diagnostics, potentials.target)
