"""GOT-D part by part: each part of the target ranks the pool and has its share.

Where GOT-D gives all its budget to the one part of the target that lies farthest from
the pool, here the target is cut into clusters, each ranks the candidates by its own
transport problem, and they take turns in proportion to their size.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, check_request, smallest
from gotd.selectors.transport_settings import TransportSettings, reference_priority

LLOYD_STEPS = 100


@dataclass(frozen=True)
class GotDClusters(TransportSettings):
    """Let clusters of the target take turns, each by its own GOT-D ranking.

    A cluster with ``n`` of ``m`` targets takes its ``k``-th row at ``(k - 1/2) m / n``,
    the score; the smallest comes first. So every prefix of the ranking has the target's
    shares to within a row per cluster. A row that another cluster has taken already is
    skipped.

    All clusters together cost about as much as one GOT-D ranking, because their targets
    add up; with very few targets per cluster, reading the candidates dominates.

    Args:
        clusters: Parts to cut the target into; rather too many than too few, since the
            parts of one theme together have its share. No more than there are targets.
        epsilon: This and the others: see `TransportSettings`; relative to each cluster's
            own mean cost.
    """

    key_name: ClassVar[str] = "GOTDClusters"

    name: ClassVar[str] = "got_d_clusters"

    clusters: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters < 1:
            raise ValueError(f"{self.name}: clusters must be positive, not {self.clusters}")

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by turns; the seed starts the clustering and draws reference samples.

        Raises:
            ValueError: If the request cannot be answered.
            NotConverged: If a solve misses its tolerance.
        """
        check_request(self, target, candidates, limit)
        started = time.perf_counter()
        whole = self.problem(target, candidates)
        # In the order of ids, so that the order in which targets are given is no matter.
        by_id = pc.sort_indices(target.ids).to_numpy()
        rows = np.asarray(whole.target, dtype=np.float64)[by_id]
        label = cluster(whole.geometry.embed(torch.from_numpy(rows)).numpy(), self.clusters, seed)
        priority = reference_priority(candidates, seed, engine)
        orders, sizes, errors, passes = [], [], [], 0
        out = [np.empty(len(shard)) for shard in candidates]
        for number in np.unique(label):
            part = dataclasses.replace(whole, target=whole.target[by_id[label == number]])
            compute = self.compute(part, engine)
            solved = self.solve_semidual(part, priority, compute, out)
            orders.append(smallest(out, [shard.ids for shard in candidates], limit)[0])
            sizes.append(part.n_target)
            errors.append(solved.marginal_error)
            passes += solved.passes
        ids, turns = take_turns(orders, sizes, limit)
        diagnostics: dict[str, Any] = {
            "cluster_sizes": sizes,
            "marginal_error": max(errors),
            "passes_of_all_clusters": passes,
            "elapsed_s": time.perf_counter() - started,
        }
        return Ranking(ids, turns, diagnostics=diagnostics)


def take_turns(
    orders: Sequence[pa.Array], sizes: Sequence[int], limit: int
) -> tuple[pa.Array, np.ndarray]:
    """Merge rankings so that each contributes in proportion to its size.

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
    place = [0] * len(orders)
    while len(taken) < limit:
        turn, number, count = queue[0]
        while names[number][place[number]] in taken:
            place[number] += 1
        taken[names[number][place[number]]] = turn
        heapreplace(queue, ((count + 1.5) * total / sizes[number], number, count + 1))
    return pa.array(taken, type=pa.string()), np.fromiter(taken.values(), np.float64)


def cluster(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Cut rows into clusters by k-means, started by k-means++.

    Written out, because a library's parallel sums would let the number of threads decide
    where a row on the border belongs.

    Args:
        rows: ``[m, d]`` float64.
        clusters: How many at most; equal rows are never parted.
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
