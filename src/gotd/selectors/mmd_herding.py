"""MMD herding: one candidate after the other, each where it reduces the discrepancy most.

The gradient of MMD answers where the *first* bit of mass should go, and takes the same
region again and again. Herding counts the rows taken so far: the next one is the candidate
that most reduces the distance between target and mixture,

    MMD^2((1 - weight) pool + weight (taken rows and this one), target),

as `GotDPath` does with the transport cost, but a row at a time.

Source: Welling (2009), Herding dynamical weights to learn; Chen, Welling and Smola (2010),
Super-samples from kernel herding. The mixture with the pool is Lemma 1 of GOT-D (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Ranking, empty_scores
from gotd.selectors.mmd import KernelSettings
from gotd.selectors.neighbours import take_ids
from gotd.selectors.topk import smallest_rows
from gotd.selectors.transport_settings import READ_TARGETS
from gotd.storage.work import Work
from gotd.transport import Compute, Problem
from gotd.transport.blocks import Stream
from gotd.transport.kernels import Kernel, kernel_sums
from gotd.transport.reference import gather

SHORTLIST = 4096
"""Candidates that are compared at every step; the others are bounded."""


@dataclass(frozen=True)
class MMDHerding(KernelSettings):
    """Rank candidates by the step at which greedy minimisation of MMD^2 takes them.

    With ``t`` rows taken, the next candidate has the smallest

        (1 - weight) mean_pool k(x_i, .) - mean_target k(x_i, .) + weight / (t + 1) S_i,

    with ``S_i`` its summed similarity to the taken rows; ties by id. The score is the
    step, counted from 1. Every budget is a prefix of a larger one.

    Only a short list is compared at every step. ``S_i`` never falls, so the sums of an
    earlier step bound the score of all other candidates from below. When the bound is
    reached, one pass over the pool renews all sums. So the order is that of a comparison of
    all candidates at each step. The larger the weight, the more passes: with .3 every
    twentieth step needs one, with .9 nearly every step. Three numbers per candidate are in
    memory.

    Args:
        weight: Share of the taken rows in the mixture, in (0, 1]; see `GotDPath`.
        kernel: This and the others: see `KernelSettings`.
    """

    key_name: ClassVar[str] = "MMDHerding"
    name: ClassVar[str] = "mmd_herding"

    weight: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.weight <= 1:
            raise ValueError(f"{self.name}: weight must be in (0, 1], not {self.weight}")

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank step by step; the seed draws the rows that represent a large pool."""
        herd = self._start(target, candidates, seed, engine)
        taken, passes = np.empty((0, 2), dtype=np.int64), 0
        while len(taken) < limit:
            chosen = self._round(herd, len(taken), limit)
            taken, passes = np.concatenate([taken, chosen]), passes + 1
            if len(taken) < limit:
                herd.take(chosen)
        starts = np.cumsum([0, *map(len, candidates)])
        rows = starts[taken[:, 0]] + taken[:, 1]
        diagnostics = {
            "kernel_width": herd.kernel.width,
            "passes": passes,
            "precision": herd.compute.precision,
        }
        steps = np.arange(1.0, limit + 1.0)
        return Ranking(take_ids(candidates, rows), steps, diagnostics=diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of the first pass and of at most one further pass per step."""
        first = super().work(n_candidates, n_targets, width, limit)
        pairs = n_candidates * limit * (1 + READ_TARGETS)
        held = first.memory_bytes + 5 * 8 * n_candidates
        return replace(first, flops=first.flops + 2.0 * pairs * width, memory_bytes=held)

    def _start(self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine) -> _Herd:
        base, far = empty_scores(candidates), None
        problem, compute, kernel = self.witness(
            target, candidates, seed, engine, base, 1.0 - self.weight
        )
        sums = [np.zeros(len(shard)) for shard in candidates]
        if kernel.name == "energy":
            # With any fixed row o, |x - o| + |y - o| - |x - y| is not negative.
            origin = replace(problem, target=problem.target[:1])
            far = kernel_sums(origin, -np.ones(1), kernel, compute)
            for b, s, r in zip(base, sums, far, strict=True):
                b -= self.weight * r
                s += r
        ids = [shard.ids for shard in candidates]
        return _Herd(problem, compute, kernel, engine, ids, base, sums, far)

    def _round(self, herd: _Herd, taken: int, limit: int) -> np.ndarray:
        """Take rows of a short list, as long as no other candidate can be better.

        Args:
            herd: The state after all rows taken so far.
            taken: How many these are.
            limit: How many there may be.

        Returns:
            ``[k, 2]`` int64 pairs (shard, row), at least one.
        """
        where = herd.shortlist(self.weight / (taken + 1))
        base, sums = gather(herd.base, where), gather(herd.sums, where)
        far = None if herd.far is None else gather(herd.far, where)
        x = Stream(herd.problem, herd.compute).load(gather(herd.problem.candidates, where))
        for shard, row in where.tolist():
            herd.base[shard][row] = np.inf  # the others are left
        chosen, bound = [], np.inf
        for count in range(taken + 1, limit + 1):
            scores = base + self.weight / count * sums
            row = int(scores.argmin())
            # At the first step all sums are exact, and the short list has the best row.
            bound = herd.bound(self.weight / count) if chosen else np.inf
            if scores[row] == np.inf or scores[row] >= bound:
                break
            chosen.append(row)
            cost = (x - x[row]).square_().sum(dim=1).div_(herd.kernel.unit)
            sums += herd.kernel.of(cost).double().cpu().numpy()
            if far is not None:
                sums += far + far[row]
            base[row] = np.inf
        for (shard, row), value in zip(where.tolist(), base, strict=True):
            herd.base[shard][row] = value
        return where[chosen]


@dataclass(frozen=True, eq=False)
class _Herd:
    """The state between rounds.

    Args:
        problem: Pool and target.
        compute: Precision, device and map.
        kernel: The kernel.
        engine: Maps over shards.
        ids: Per shard ``[n]`` row ids.
        base: Per shard ``[n]`` score without the taken rows; infinite for these.
        sums: Per shard ``[n]`` similarity to the taken rows, never falling.
        far: Per shard ``[n]`` distance to a fixed row, which makes the negative distances of
            the energy kernel positive; ``None`` for a positive kernel.
    """

    problem: Problem
    compute: Compute
    kernel: Kernel
    engine: Engine
    ids: Sequence[pa.Array]
    base: Out
    sums: Out
    far: Out | None

    def shortlist(self, rate: float) -> np.ndarray:
        """Return the rows with the smallest ``base + rate * sums``, sorted by id."""
        scores = [b + rate * s for b, s in zip(self.base, self.sums, strict=True)]
        best = smallest_rows(scores, self.ids, SHORTLIST, self.engine)
        return best.where[pc.sort_indices(best.ids).to_numpy()]

    def bound(self, rate: float) -> float:
        """Return the smallest ``base + rate * sums``."""
        parts = zip(self.base, self.sums, strict=True)
        return min((float((b + rate * s).min()) for b, s in parts if len(b)), default=np.inf)

    def take(self, chosen: np.ndarray) -> None:
        """Add the similarity to chosen rows, ``[k, 2]`` pairs, to all sums."""
        rows = gather(self.problem.candidates, chosen)
        near = replace(self.problem, target=rows)
        added = kernel_sums(near, np.ones(len(rows)), self.kernel, self.compute)
        for shard, values in enumerate(added):
            self.sums[shard][:] += values
            if self.far is not None:
                own = gather(self.far, chosen).sum()
                self.sums[shard][:] += len(rows) * self.far[shard] + own
