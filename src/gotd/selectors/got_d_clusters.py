"""GOT-D per cluster of the target: each cluster ranks the pool and has its share.

GOT-D spends all its budget on the one part of the target that is farthest from the pool.
Here the target is divided into clusters, each ranks the candidates by its own transport
problem, and they take turns in proportion to their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, empty_scores, smallest
from gotd.selectors.transport_settings import TransportSettings, reference_priority
from gotd.storage.checks import check_at_least
from gotd.storage.work import Work

LLOYD_STEPS = 100

ID_BYTES = 80
"""Memory of an id as a Python string."""


@dataclass(frozen=True)
class GotDClusters(TransportSettings):
    """Clusters of the target take turns, each by its own GOT-D ranking.

    A cluster with ``n`` of ``m`` targets takes its ``k``-th row at time ``(k - 1/2) m / n``,
    the score; the smallest comes first. So every prefix of the ranking has the target's
    shares to within a row per cluster. A row that another cluster has already taken is
    skipped. The seed starts the clustering and draws the reference samples.

    Every cluster reads all candidates, which takes as long as comparing them with about a
    hundred targets. So with thousands of targets all clusters together cost little more
    than one GOT-D ranking; with 400 targets, 64 clusters cost about 20 times as much.

    Args:
        clusters: Parts of the target; rather too many than too few, since the parts of
            one theme together have its share. No more than there are targets.
        epsilon: This and the others: see `TransportSettings`; relative to each cluster's
            own mean cost.
    """

    key_name: ClassVar[str] = "GOTDClusters"
    version: ClassVar[int] = 2  # 2: corrections are changes of the stored plan of a pass
    name: ClassVar[str] = "got_d_clusters"

    clusters: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "clusters", prefix=f"{self.name}: ")

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by turns.

        Raises:
            NotConverged: If a solve misses its tolerance.
        """
        problem = self.problem(target, candidates)
        # Sorted by id, so that the order of the targets has no effect.
        by_id = pc.sort_indices(target.ids).to_numpy()
        rows = np.asarray(problem.target, dtype=np.float64)[by_id]
        space = problem.geometry.embed(torch.from_numpy(rows)).numpy()
        label = cluster(space, self.clusters, seed)
        priority = reference_priority(candidates, seed, engine)
        orders, sizes, errors, passes = [], [], [], 0
        out = empty_scores(candidates)
        for number in np.unique(label):
            part = replace(problem, target=problem.target[by_id[label == number]])
            solved = self.solve_semidual(part, priority, self.compute(part, engine), out)
            orders.append(smallest(out, [shard.ids for shard in candidates], limit)[0])
            sizes.append(part.n_target)
            errors.append(solved.marginal_error)
            passes += solved.passes
        ids, turns = take_turns(orders, sizes, limit)
        diagnostics = {
            "cluster_sizes": sizes,
            "marginal_error": max(errors),
            "passes_of_all_clusters": passes,
        }
        return Ranking(ids, turns, diagnostics=diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one solve per cluster, and the rankings that are merged."""
        clusters = min(self.clusters, n_targets)
        once = super().work(n_candidates, -(-n_targets // clusters), width, limit)
        held = once.memory_bytes + 8 * n_candidates + ID_BYTES * clusters * limit
        return replace(once, flops=clusters * once.flops, memory_bytes=held)


def take_turns(
    orders: Sequence[pa.Array], sizes: Sequence[int], limit: int
) -> tuple[pa.Array, np.ndarray]:
    """Merge rankings; each contributes in proportion to its size.

    Args:
        orders: Rankings of the same rows, at least ``limit`` long.
        sizes: Weight of each.
        limit: Rows to take.

    Returns:
        ``[limit]`` distinct ids and the ascending time at which each was taken.
    """
    total = sum(sizes)
    queue = [(0.5 * total / size, number, 0) for number, size in enumerate(sizes)]
    heapify(queue)
    names = [order.to_pylist() for order in orders]
    taken: dict[str, float] = {}
    position = [0] * len(orders)
    while len(taken) < limit:
        turn, number, count = queue[0]
        while names[number][position[number]] in taken:
            position[number] += 1
        taken[names[number][position[number]]] = turn
        heapreplace(queue, ((count + 1.5) * total / sizes[number], number, count + 1))
    return pa.array(taken, type=pa.string()), np.fromiter(taken.values(), np.float64)


def cluster(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Assign rows to clusters by k-means, started by k-means++.

    Not a library's, whose parallel sums make border cases depend on the number of threads.

    Args:
        rows: ``[m, d]`` float64.
        clusters: The most clusters; equal rows are always in one.
        seed: Draws the first centres.

    Returns:
        ``[m]`` int64 labels.

    Source: Lloyd (1982); Arthur and Vassilvitskii (2007) for the start.
    """
    random = np.random.default_rng(seed)
    centres = rows[[random.integers(len(rows))]]
    nearest = np.square(rows - centres[0]).sum(axis=1)
    while len(centres) < clusters and nearest.max() > 0:
        chosen = rows[random.choice(len(rows), p=nearest / nearest.sum())]
        centres = np.vstack([centres, chosen])
        nearest = np.minimum(nearest, np.square(rows - chosen).sum(axis=1))
    label = np.full(len(rows), -1)
    for _ in range(LLOYD_STEPS):
        distance = np.square(centres).sum(axis=1) - 2.0 * rows @ centres.T
        before, label = label, distance.argmin(axis=1)
        if (before == label).all():
            break
        for number in np.unique(label):
            centres[number] = rows[label == number].mean(axis=0)
    return label
