"""GOT-D in steps: what has been taken counts as seen, and prices are found again.

GOT-D's ranking is first order: it asks what the *first* bit of mass should be. Where two
parts of the target are short of candidates, the one that lies farther from the pool's
surplus has the higher price, and every row of it comes before any row of the other.
Here the budget is taken in steps, and before each the pool is mixed with what has been
taken,

    (1 - weight) pool + weight taken,

which is what Lemma 1 says a model has then seen. A part that has enough of the mixture
loses its price, and the next one has its turn.

Source: GOT-D (ICLR 2024), Lemma 1 and Theorem 1; the steps are ours.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, check_request, smallest
from gotd.selectors.transport_settings import TransportSettings, certificate, reference_priority
from gotd.transport import Potentials


@dataclass(frozen=True)
class GotDPath(TransportSettings):
    """Take the budget in steps, solving again with the taken rows mixed into the pool.

    A part of the target with share ``t`` and share ``p`` of the pool ends up with
    ``(t - (1 - weight) p) / weight`` of the selection, as far as that is possible. So a
    weight below the summed share of all under-covered parts leaves the collapse as it
    is; towards 1 the selection takes the target's shares.

    Rows are ranked by step, within a step by potential, ties by id; the score is the
    step, counted from 1. Steps do not depend on the budget, so a budget is a prefix of a
    larger one. Every step costs a fit and one or two passes, and masses take eight bytes
    per candidate: for a large pool see `GotDClusters`.

    Args:
        weight: Share of the taken rows in the mixture, in (0, 1).
        first: Rows of the first step, and of every step at least.
        growth: Rows of a later step as a share of those taken before.
        epsilon: This and the others: see `TransportSettings`.
    """

    key_name: ClassVar[str] = "GOTDPath"

    name: ClassVar[str] = "got_d_path"

    weight: float = 0.9
    first: int = 10
    growth: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.weight < 1:
            raise ValueError(f"{self.name}: weight must lie between 0 and 1, not {self.weight}")
        if self.first < 1 or self.growth < 0:
            raise ValueError(f"{self.name}: first must be positive and growth not negative")

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank step by step; the seed decides only the reference sample of a large pool.

        Raises:
            ValueError: If the request cannot be answered.
            NotConverged: If a solve misses its tolerance.
        """
        check_request(self, target, candidates, limit)
        started = time.perf_counter()
        problem = self.problem(target, candidates)
        compute = self.compute(problem, engine)
        priority = reference_priority(candidates, seed, engine)
        ids = [shard.ids for shard in candidates]
        free = [np.ones(len(shard), dtype=bool) for shard in candidates]
        solved = self.solve_semidual(problem, priority, compute)
        first, errors, passes = certificate(solved), [solved.marginal_error], solved.passes
        # One epsilon for all steps, that of the pool: a mixture has another mean cost.
        problem = dataclasses.replace(
            problem, epsilon=solved.epsilon_absolute, epsilon_is="absolute"
        )
        taken: list[pa.Array] = []
        sizes: list[int] = []
        while True:
            left = limit - sum(sizes)
            wanted = min(left, max(self.first, int(self.growth * sum(sizes))))
            chosen = _cheapest(solved, ids, free, wanted)
            taken.append(chosen)
            sizes.append(len(chosen))
            if sum(sizes) == limit:
                break
            for shard, mask in zip(candidates, free, strict=True):
                mask &= ~_among(shard.ids, chosen)
            mixture = dataclasses.replace(problem, candidate_mass=self._mass(free, sum(sizes)))
            solved = self.solve_semidual(mixture, priority, compute, start=solved.target)
            errors.append(solved.marginal_error)
            passes += solved.passes
        diagnostics: dict[str, Any] = {
            **first,
            "marginal_error": max(errors),
            "steps": len(sizes),
            "passes_of_all_steps": passes,
            "precision": compute.precision,
            "elapsed_s": time.perf_counter() - started,
        }
        steps = np.repeat(np.arange(1.0, len(sizes) + 1.0), sizes)
        return Ranking(pa.concat_arrays(taken), steps, diagnostics=diagnostics)

    def _mass(self, free: Sequence[np.ndarray], taken: int) -> list[np.ndarray]:
        share = (1.0 - self.weight) / sum(map(len, free))
        return [np.where(mask, share, share + self.weight / taken) for mask in free]


def _cheapest(
    solved: Potentials, ids: Sequence[pa.Array], free: Sequence[np.ndarray], limit: int
) -> pa.Array:
    values = solved.candidate
    for f, mask in zip(values, free, strict=True):
        f[~mask] = np.inf
    return smallest(values, ids, limit)[0].cast(pa.string())


def _among(ids: pa.Array, chosen: pa.Array) -> np.ndarray:
    found = pc.call_function("is_in", [ids.cast(pa.string())], pc.SetLookupOptions(chosen))
    return found.to_numpy(zero_copy_only=False)
