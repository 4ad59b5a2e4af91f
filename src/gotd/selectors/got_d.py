"""GOT-D: take the candidates that pull the pool fastest towards the target.

The pool stands in for what the model was pre-trained on. The gradient of the transport
cost ``OT(candidates, target)`` in the candidates' masses says which of them move it
towards the target; the most negative come first. One solve, one sort.

Source: GOT-D (ICLR 2024), section 2 and Theorem 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, Scores, check_request, smallest
from gotd.selectors.transport_settings import TransportSettings, certificate, reference_priority
from gotd.transport import Compute, Potentials, Problem, score
from gotd.transport.debias import self_potential
from gotd.transport.gradient import calibrate
from gotd.transport.pot import solve_pot
from gotd.transport.published import solve_published
from gotd.transport.sinkhorn import solve_dense

Solver = Literal["semidual", "dense", "pot", "published"]
Direction = Literal["towards", "away"]

# A target counts as starved by a selection that gives it under this share of its mass.
STARVED_SHARE = 0.1


@dataclass(frozen=True)
class GotD(TransportSettings):
    """Rank candidates by the calibrated gradient of the transport cost, lowest first.

    ``score_i = N / (N - 1) * (f_i - mean f)``; ``f`` is the candidates' potential.
    GOT-D_contrast is ``direction="away"`` with a target of what is *not* wanted.

    Args:
        solver: ``semidual`` for any size; ``dense`` (float64) and ``pot`` as oracles
            for small pools; ``published`` repeats the notebook's stopping rule
            (threshold 0.1, momentum 1.3), which leaves the solve unfinished and does not
            look at ``tolerance``. ``max_passes``, ``reference_rows`` and ``on_failure``
            are the semidual's.
        debias: Subtract the candidates' potential against themselves. Not GOT-D; can
            help at epsilon of 0.1 and more.
        direction: ``towards`` the target, or ``away`` from it.
        epsilon: This and the others: see `TransportSettings`.
    """

    key_name: ClassVar[str] = "GOTD"

    name: ClassVar[str] = "got_d"

    solver: Solver = "semidual"
    debias: bool = False
    direction: Direction = "towards"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choose(
            {
                "solver": ("semidual", "dense", "pot", "published"),
                "direction": ("towards", "away"),
            }
        )

    def rank(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        limit: int,
        seed: int,
        engine: Engine,
    ) -> Ranking:
        """Rank the ``limit`` best candidates for ``target``.

        The seed decides only which candidates form the reference sample of a large
        pool; within the tolerance it does not matter.

        Raises:
            ValueError: If the request cannot be answered, or the pool has one row.
            NotConverged: If the solve misses its tolerance.
        """
        check_request(self, target, candidates, limit)
        started = time.perf_counter()
        problem = self.problem(target, candidates)
        compute = self.compute(problem, engine)
        scores, potentials = self._score(problem, candidates, seed, engine, compute, None)
        ids, best = smallest(scores.values, [shard.ids for shard in candidates], limit)
        diagnostics = {
            **scores.diagnostics,
            "coverage": self._coverage(problem, potentials, candidates, ids, compute),
            "elapsed_s": time.perf_counter() - started,
        }
        return Ranking(ids=ids, scores=best, diagnostics=diagnostics)

    def scores(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        seed: int,
        engine: Engine,
        out: Sequence[np.ndarray] | None = None,
    ) -> Scores:
        """Score every candidate; the ranking is the smallest of these, ties by id.

        Args:
            target: The target's rows.
            candidates: The pool.
            seed: Seed of the reference sample.
            engine: Maps over blocks.
            out: Per shard ``[n]`` float64, such as a file, to write the scores into; then
                nothing in memory grows with the pool (semidual).

        Raises:
            ValueError: If there is nothing to score, or the pool has one row.
            NotConverged: If the solve misses its tolerance.
        """
        check_request(self, target, candidates, 1)
        started = time.perf_counter()
        problem = self.problem(target, candidates)
        compute = self.compute(problem, engine)
        scores, _ = self._score(problem, candidates, seed, engine, compute, out)
        elapsed_s = time.perf_counter() - started
        return replace(scores, diagnostics={**scores.diagnostics, "elapsed_s": elapsed_s})

    def _score(
        self,
        problem: Problem,
        candidates: Sequence[Rows],
        seed: int,
        engine: Engine,
        compute: Compute,
        out: Sequence[np.ndarray] | None,
    ) -> tuple[Scores, Potentials]:
        priority = reference_priority(candidates, seed, engine)
        potentials = self._solve(problem, priority, compute, out)
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
        }
        return Scores(values, diagnostics, potentials.target), potentials

    def _solve(
        self,
        problem: Problem,
        priority: Callable[[], Iterable[np.ndarray]],
        compute: Compute,
        out: Sequence[np.ndarray] | None,
    ) -> Potentials:
        if self.solver == "semidual":
            return self.solve_semidual(problem, priority, compute, out)
        if self.solver == "dense":
            solved = solve_dense(problem, tolerance=self.tolerance)
        elif self.solver == "pot":
            solved = solve_pot(problem, tolerance=self.tolerance)
        else:
            solved = solve_published(problem, compute=compute)
        if out is None:
            return solved
        for given, values in zip(out, solved.candidate, strict=True):
            given[:] = values
        return replace(solved, candidate=tuple(out))

    def _coverage(
        self,
        problem: Problem,
        potentials: Potentials,
        candidates: Sequence[Rows],
        ids: pa.Array,
        compute: Compute,
    ) -> dict[str, float]:
        """Summarise how the selected candidates' mass spreads over the targets.

        All candidates together cover every target by construction; a selection may
        collapse onto the one mode that the pool lacks most, and this shows it.
        """
        lookup = pc.SetLookupOptions(ids)
        chosen = [
            rows[pc.call_function("is_in", [shard.ids], lookup).to_numpy(zero_copy_only=False)]
            for rows, shard in zip(problem.candidates, candidates, strict=True)
        ]
        new = Problem(
            target=problem.target,
            candidates=chosen,
            geometry=problem.geometry,
            epsilon=problem.epsilon,
            epsilon_is=problem.epsilon_is,
        )
        _, share = score(new, potentials, compute)
        positive = share[share > 0]
        effective = float(np.exp(-(positive * np.log(positive)).sum()))
        return {
            "effective_targets": effective,
            "effective_share": effective / problem.n_target,
            "largest_share": float(share.max()),
            "starved_targets": float((share < STARVED_SHARE * problem.b).mean()),
        }
