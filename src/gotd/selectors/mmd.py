"""MMD: the candidates that reduce the maximum mean discrepancy to the target fastest.

GOT-D with another distance between distributions: not the transport cost, but the distance
of their means in the feature space of a kernel. It needs no solve, and its gradient in a
candidate's mass is the difference of two densities: how near the candidate is to the pool,
less how near it is to the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector
from gotd.selectors.transport_settings import READ_TARGETS, Comparison
from gotd.storage.checks import check_at_least
from gotd.storage.work import Work
from gotd.transport import Compute, Problem, calibrate
from gotd.transport.blocks import CPU_LEAST_ROWS
from gotd.transport.kernels import Kernel, KernelName, fit_kernel, kernel_sums
from gotd.transport.reference import gather, smallest_priority

# Rows of each side whose distances give the width of the kernel.
WIDTH_ROWS = 1000
KERNEL_NUMBERS = 300
"""Numbers of an embedding whose product takes as long as the kernel of a pair (measured)."""


@dataclass(frozen=True)
class KernelSettings(Comparison):
    """The kernel with which pool and target are compared.

    Args:
        kernel: ``rbf``, ``exp(-C / (2 s^2))`` with cost ``C`` and ``s`` the median distance
            of a sample of both sides, or ``energy``, for which MMD^2 is the energy distance.
        pool_rows: Rows that represent the pool in means over it, chosen by a hash of
            (seed, id); a smaller pool is used completely.
        cost: This and the others: see `Comparison`.
    """

    kernel: KernelName = "rbf"
    pool_rows: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 2, "pool_rows", prefix=f"{self.name}: ")

    def witness(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        seed: int,
        engine: Engine,
        out: Out,
        pool_weight: float = 1.0,
    ) -> tuple[Problem, Compute, Kernel]:
        """Write ``pool_weight * mean_x k(x_i, x) - mean_y k(x_i, y)`` of each candidate.

        A candidate of the sample is compared with its other rows. So it is no nearer to the
        pool than one outside.

        Args:
            target: Rows ``y``.
            candidates: Rows ``x``, in shards.
            seed: Seed of the sample.
            engine: Maps over shards.
            out: Per shard ``[n]`` float64 to write into.
            pool_weight: Weight of the pool.

        Returns:
            The problem between pool and target, how it is computed, and the kernel.
        """
        # In an order that does not depend on that of the rows.
        target = target.take(np.argsort(uniform_by_id(target.ids, seed, "mmd target")))
        problem = self.problem(target, candidates)
        n, m = problem.n_candidates, problem.n_target
        priority = engine.map(lambda shard: uniform_by_id(shard.ids, seed, "mmd pool"), candidates)
        lengths = [len(shard) for shard in candidates]
        where, _ = smallest_priority(priority, min(n, self.pool_rows), lengths)
        sample, r = gather(problem.candidates, where), len(where)
        first = np.vstack([problem.target[:WIDTH_ROWS], sample[:WIDTH_ROWS]])
        try:
            kernel = fit_kernel(problem, self.kernel, first)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        points = replace(problem, target=np.vstack([problem.target, sample]))
        compute = self.compute(points, engine)
        weights = np.repeat([-1.0 / m, pool_weight / r], [m, r])
        kernel_sums(points, weights, kernel, compute, out)
        if r < n:
            among = replace(points, target=sample, candidates=[sample])
            others = kernel_sums(among, np.ones(r), kernel, compute)[0] - kernel.own
            correction = pool_weight / r * (others / (r - 1) - kernel.own)
            for (shard, row), value in zip(where.tolist(), correction, strict=True):
                out[shard][row] += value
        return problem, compute, kernel

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one pass over all candidates and points."""
        rows = min(n_candidates, self.pool_rows)
        points = n_targets + rows
        return Work(
            flops=2.0 * n_candidates * (points + READ_TARGETS) * (width + KERNEL_NUMBERS),
            memory_bytes=8 * width * points + 8 * CPU_LEAST_ROWS * points,
        )


@dataclass(frozen=True)
class MMD(KernelSettings, ScoringSelector):
    """Rank candidates by the calibrated gradient of MMD^2 between pool and target.

    ``score_i = N / (N - 1) * (h_i - mean h)`` with ``h_i`` twice the mean of ``k(x_i, .)``
    over the pool minus that over the target. As with GOT-D, a negative score moves the pool
    towards the target, and the lowest is selected first.

    Args:
        kernel: This and the others: see `KernelSettings`.

    Source: Gretton et al. (2012), A kernel two-sample test, for MMD and the median width;
    Székely and Rizzo (2013) for the energy distance.
    """

    key_name: ClassVar[str] = "MMD"
    name: ClassVar[str] = "mmd"

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the gradient; the seed draws the rows that represent a large pool.

        Raises:
            ValueError: If the pool has one row, or half of all rows are equal.
        """
        _, compute, kernel = self.witness(target, candidates, seed, engine, out)
        for values in out:
            values *= 2.0
        calibrate(out)
        return Scores(out, {"kernel_width": kernel.width, "precision": compute.precision})
