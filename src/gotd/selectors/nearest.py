"""Nearest: take the candidates closest to any target, whatever the pool already has.

GOT-D's potential is a soft distance to the nearest target *minus that target's price*,
which is high where candidates lack. With all prices zero only the distance is left. So
this arm stands beside GOT-D in every table: the difference is what transport adds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, Scores, check_request, smallest
from gotd.selectors.transport_settings import PrecisionChoice, choose_precision, embeddings_of
from gotd.transport import Compute, Geometry, Problem, Whitening
from gotd.transport.cost import Cost
from gotd.transport.nearest import nearest_cost


@dataclass(frozen=True)
class Nearest:
    """Rank candidates by ``min_j C_ij``, the cost to the nearest target, lowest first.

    Args:
        cost: ``squared_euclidean`` or ``cosine``; give it what GOT-D is given.
        whiten: Whiten both sides by the candidates' covariance.
        precision: ``auto`` is float64 for small pools and float32 for others.
        device: ``auto``, ``cpu``, ``cuda`` ...
    """

    key_name: ClassVar[str] = "Nearest"

    name: ClassVar[str] = "nearest"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    cost: Cost = "squared_euclidean"
    whiten: bool = False
    precision: PrecisionChoice = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        Geometry(cost=self.cost)
        if self.precision != "auto":
            Compute(precision=self.precision)

    def rank(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        limit: int,
        seed: int,
        engine: Engine,
    ) -> Ranking:
        """Rank the ``limit`` candidates nearest to ``target``; the seed plays no part.

        Raises:
            ValueError: If the request cannot be answered.
        """
        check_request(self, target, candidates, limit)
        scores = self._score(target, candidates, engine, None)
        ids, best = smallest(scores.values, [shard.ids for shard in candidates], limit)
        return Ranking(ids=ids, scores=best, diagnostics=scores.diagnostics)

    def scores(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        seed: int,
        engine: Engine,
        out: Sequence[np.ndarray] | None = None,
    ) -> Scores:
        """Score every candidate by its cost to the nearest target.

        Args:
            target: The target's rows.
            candidates: The pool.
            seed: Plays no part.
            engine: Maps over blocks.
            out: Per shard ``[n]`` float64, such as a file, to write the scores into.

        Raises:
            ValueError: If there is nothing to score.
        """
        check_request(self, target, candidates, 1)
        return self._score(target, candidates, engine, out)

    def _score(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        engine: Engine,
        out: Sequence[np.ndarray] | None,
    ) -> Scores:
        started = time.perf_counter()
        rows = embeddings_of(candidates)
        whitening = Whitening.fit(rows) if self.whiten else None
        problem = Problem(
            target=embeddings_of([target])[0],
            candidates=rows,
            geometry=Geometry(cost=self.cost, whitening=whitening),
        )
        precision = choose_precision(problem) if self.precision == "auto" else self.precision
        compute = Compute(precision=precision, device=self.device, map_blocks=engine.map)
        costs = nearest_cost(problem, compute, out)
        diagnostics = {"precision": precision, "elapsed_s": time.perf_counter() - started}
        return Scores(costs, diagnostics)
