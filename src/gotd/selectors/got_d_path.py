"""GOT-D in steps: rows already taken count as part of the pool, and prices are solved again.

GOT-D's ranking is first order: it answers where the *first* bit of mass should go. Where
two parts of the target lack candidates, the one farther from the rest of the pool has the
higher price, and all of its rows precede those of the other. Here the budget is taken in
steps, and before each step the pool is mixed with the rows taken so far,

    (1 - weight) pool + weight taken,

which by Lemma 1 is what a model has then been trained on. A part with enough rows in the
mixture loses its price, and the next part follows.

Source: GOT-D (ICLR 2024), Lemma 1 and Theorem 1; the steps are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, smallest
from gotd.selectors.transport_settings import TransportSettings, certificate, reference_priority
from gotd.storage.work import Work
from gotd.transport import Potentials

LATER_STEP = 1.5
"""Time of a later step as a share of the first: its solve starts from the last (measured)."""


@dataclass(frozen=True)
class GotDPath(TransportSettings):
    """A selection in steps, each solved with the rows taken so far mixed into the pool.

    A part of the target with share ``t`` and share ``p`` of the pool gets
    ``(t - (1 - weight) p) / weight`` of the selection, as far as that is possible. So a
    weight below the summed share of all under-covered parts does not prevent the collapse;
    with a weight near 1 the selection has the target's shares. The default was better than GOT-D
    and than .9 on real text (results/registrations/warm_up_weight.md).

    Rows are ranked by step, within a step by potential, ties by id; the score is the
    step, counted from 1. Steps do not depend on the budget, so a budget is a prefix of a
    larger one. Every step costs a fit and one or two passes, and masses take eight bytes
    per candidate: for a large pool see `GotDClusters`. The seed only draws the reference
    sample of a large pool.

    Args:
        weight: Share of the taken rows in the mixture, in (0, 1).
        first: Rows of the first step, and the fewest of any step.
        growth: Rows of a later step as a share of those taken before.
        epsilon: This and the others: see `TransportSettings`.
    """

    key_name: ClassVar[str] = "GOTDPath"
    version: ClassVar[int] = 2  # 2: corrections are changes of the stored plan of a pass
    name: ClassVar[str] = "got_d_path"

    weight: float = 0.3
    first: int = 10
    growth: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.weight < 1:
            raise ValueError(f"{self.name}: weight must be between 0 and 1, not {self.weight}")
        if self.first < 1 or self.growth < 0:
            raise ValueError(f"{self.name}: first must be positive and growth not negative")

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank step by step.

        Raises:
            NotConverged: If a solve misses its tolerance.
        """
        problem = self.problem(target, candidates)
        compute = self.compute(problem, engine)
        priority = reference_priority(candidates, seed, engine)
        ids = [shard.ids for shard in candidates]
        free = [np.ones(len(shard), dtype=bool) for shard in candidates]
        solved = self.solve_semidual(problem, priority, compute)
        first, errors, passes = certificate(solved), [solved.marginal_error], solved.passes
        # One epsilon for all steps, that of the pool: a mixture has another mean cost.
        problem = replace(problem, epsilon=solved.epsilon_absolute, epsilon_is="absolute")
        sizes = list(self._steps(limit))
        steps = [_cheapest(solved, ids, free, sizes[0])]
        taken = sizes[0]
        for size in sizes[1:]:
            for shard, mask in zip(candidates, free, strict=True):
                mask &= ~_among(shard.ids, steps[-1])
            mixture = replace(problem, candidate_mass=self._mass(free, taken))
            solved = self.solve_semidual(mixture, priority, compute, start=solved.target)
            errors.append(solved.marginal_error)
            passes += solved.passes
            steps.append(_cheapest(solved, ids, free, size))
            taken += size
        diagnostics = {
            **first,
            "marginal_error": max(errors),
            "steps": len(sizes),
            "passes_of_all_steps": passes,
            "precision": compute.precision,
        }
        scores = np.repeat(np.arange(1.0, len(sizes) + 1.0), sizes)
        return Ranking(pa.concat_arrays(steps), scores, diagnostics=diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of a solve per step, and the masses of the candidates."""
        once = super().work(n_candidates, n_targets, width, limit)
        solves = 1 + LATER_STEP * (sum(1 for _ in self._steps(limit)) - 1)
        held = once.memory_bytes + 2 * 8 * n_candidates
        return replace(once, flops=solves * once.flops, memory_bytes=held)

    def _steps(self, limit: int) -> Iterator[int]:
        """Yield the rows of each step."""
        taken = 0
        while taken < limit:
            size = min(limit - taken, max(self.first, int(self.growth * taken)))
            yield size
            taken += size

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
    return np.asarray(pc.is_in(ids.cast(pa.string()), value_set=chosen))
