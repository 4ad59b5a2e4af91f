"""TSDS: transport from the target with a penalty on relying on few candidates.

With uniform mass ``1/m`` on each target, free mass on the candidates and distances
``d``, the plan ``P [m, n]`` solves

    min_P  (alpha / C) <P, d> + (1 - alpha) m max_ij rho_j P_ij,   P 1 = 1/m,

and candidate ``j`` is worth ``p_j = sum_i P_ij``. Uniform ``rho`` spreads each
target's mass over its K nearest (KNN-Uniform); with ``rho_j`` the density of
candidates around ``j``, near-duplicates share one candidate's mass (KNN-KDE).

Source: TSDS (NeurIPS 2024), Algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, Selector, smallest
from gotd.selectors.density import density_work, kernel_density, pool_density
from gotd.selectors.neighbours import (
    Neighbours,
    enough_neighbours,
    gather,
    nearest_distances,
    nearest_neighbours,
    neighbours_work,
    take_ids,
)
from gotd.storage.keys import added_later
from gotd.storage.work import Work

# Neighbours in the first search. The plan mostly needs no more, and a list of thousands takes
# longer than the search.
FIRST_SEARCH = 256


@dataclass(frozen=True)
class Assignment:
    """The targets' mass on their neighbours.

    Args:
        mass: ``[m, k]`` float64; each row sums to ``1/m``.
        reached: Neighbours in use: K, or the largest number over the targets.
        exhausted: Whether the list of neighbours ended before the optimum; the plan
            is then too concentrated, and ``prefetch`` should be larger.
    """

    mass: np.ndarray
    reached: int
    exhausted: bool


@dataclass(frozen=True)
class TSDS(Selector):
    """Rank candidates by the mass that the targets assign to them.

    ``sampling="top"`` ranks by mass, largest first, ties by the distance to the
    nearest target and then by id; the score is the negative mass. When fewer rows
    have mass than the budget asks for, the rest is filled by distance to the nearest
    target, with score 0. ``sampling="multinomial"`` draws independently with the
    masses as probabilities, as published: rows repeat, and the score is the number
    of the draw.

    Args:
        variant: ``"uniform"`` (Algorithm 1) or ``"kde"`` (Algorithm 2).
        alpha: Weight of the distance against diversity, in (0, 1]; 1 takes only
            nearest neighbours. The published default is 0.5; follow-up work uses 0.01.
        C: Scale of the distances, in embedding units.
        sigma: Width of the kernel in embedding units; pairs farther apart do not
            count as near-duplicates. Only for ``"kde"``.
        prefetch: The most neighbours per target; never more than a tenth of the pool.
        kde_neighbours: The most neighbours that a density counts, the row itself
            included; never more than a tenth of the pool.
        sampling: ``"top"`` or ``"multinomial"``.
        density_over: Rows among which a density counts: the ``"pool"``, or as in the published
            code the rows ``"looked_up"``, those among the ``prefetch`` nearest of any target
            (Deviation D31). Only for ``"kde"``.
    """

    key_name: ClassVar[str] = "TSDS"
    name: ClassVar[str] = "tsds"
    version: ClassVar[int] = 2  # 2: a density counts the full pool, not only the prefetched rows
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})

    variant: Literal["uniform", "kde"] = "uniform"
    alpha: float = 0.5
    C: float = 5.0
    sigma: float = 0.75
    prefetch: int = 5000
    kde_neighbours: int = 1000
    sampling: Literal["top", "multinomial"] = "top"
    density_over: Literal["pool", "looked_up"] = added_later("pool")

    def __post_init__(self) -> None:
        self.check_choices()
        if not 0 < self.alpha <= 1:
            raise ValueError(f"tsds: alpha must be in (0, 1], not {self.alpha}")
        for field, least in (("C", 0), ("sigma", 0), ("prefetch", 1), ("kde_neighbours", 0)):
            if not getattr(self, field) > least:
                raise ValueError(f"tsds: {field} must exceed {least}, not {getattr(self, field)}")

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by received mass; the seed has an effect only on the multinomial."""
        n_candidates = sum(map(len, candidates))
        # A tenth of the pool, but at least two: the step from K to K + 1 needs both.
        cap = min(n_candidates, max(2, n_candidates // 10))
        near, plan = self._assign(target, candidates, cap, engine)
        # Sorted by id, so that no sum or draw depends on the order of rows.
        rows = np.empty(int(near.order.max()) + 1, dtype=np.int64)
        rows[near.order] = near.rows
        mass = np.bincount(near.order.ravel(), weights=plan.mass.ravel())
        diagnostics: dict[str, Any] = {
            "rows_with_mass": int(np.count_nonzero(mass)),
            "neighbours_used": plan.reached,
            "neighbours_fetched": near.k,
            "neighbours_exhausted": plan.exhausted,
        }
        if self.sampling == "multinomial":
            ids = take_ids(candidates, rows[draw(mass, limit, seed)])
            scores = np.arange(limit, dtype=np.float64)
            return Ranking(ids, scores, with_replacement=True, diagnostics=diagnostics)
        order = rank_by_mass(near, mass)[:limit]
        ids, scores = take_ids(candidates, rows[order]), -mass[order]
        if len(order) < limit:
            others = _nearest_others(target, candidates, ids, limit - len(order), engine)
            ids = pa.concat_arrays([ids, others])
            scores = np.concatenate([scores, np.zeros(len(others))])
        return Ranking(ids, scores, diagnostics=diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one search, and for ``"kde"`` of the density of the pool."""
        search = neighbours_work(n_candidates, n_targets, width, min(FIRST_SEARCH, self.prefetch))
        if self.variant == "uniform":
            return search
        counted = n_candidates
        if self.density_over == "looked_up":
            counted = min(n_candidates, n_targets * min(self.prefetch, max(2, n_candidates // 10)))
        density = density_work(counted, width)
        held = max(search.memory_bytes, density.memory_bytes)
        return Work(flops=search.flops + density.flops, memory_bytes=held)

    def _assign(
        self, target: Rows, candidates: Sequence[Rows], cap: int, engine: Engine
    ) -> tuple[Neighbours, Assignment]:
        """Search for neighbours until the plan needs no more of them."""
        density, most = None, min(self.prefetch, cap)
        counted = min(self.kde_neighbours, cap)
        if self.variant == "kde" and self.density_over == "looked_up":
            # The density depends on the lists, so they are never shorter than `most`.
            near = nearest_neighbours(target, candidates, most, engine)
            among = looked_up_density(near, candidates, self.sigma, counted)
            return near, knn_kde(np.sqrt(near.distances), among, self.alpha, self.C)
        if self.variant == "kde":
            density = pool_density(candidates, self.sigma, counted)

        def attempt(near: Neighbours) -> Assignment | None:
            distances = np.sqrt(near.distances)
            if density is None:
                plan = knn_uniform(distances, self.alpha, self.C)
            else:
                plan = knn_kde(distances, density[near.rows], self.alpha, self.C)
            return None if plan.exhausted and near.k < most else plan

        return enough_neighbours(target, candidates, FIRST_SEARCH, engine, attempt, most=most)


def looked_up_density(
    near: Neighbours, candidates: Sequence[Rows], sigma: float, neighbours: int
) -> np.ndarray:
    """Compute the density of each looked-up row among all looked-up rows.

    Args:
        near: The lists of all targets.
        candidates: Shards with embeddings.
        sigma: Width of the kernel.
        neighbours: The most rows that count, the row itself included.

    Returns:
        ``[m, k]`` float64, at least 1.

    Source: the published code of TSDS.
    """
    _, first = np.unique(near.order, return_index=True)  # by id, as `near.order` counts
    rows = gather(candidates, near.rows.ravel()[first])
    return kernel_density(rows, sigma, neighbours)[near.order]


def knn_uniform(distances: np.ndarray, alpha: float, scale: float) -> Assignment:
    """Distribute each target's mass evenly over its K nearest candidates.

    K is the smallest for which one more neighbour costs more than it gains:
    ``(alpha / C) sum_i sum_{k<=K} (d_i,K+1 - d_ik) >= (1 - alpha) m``. The
    left side grows with K, so all K are computed together.

    Args:
        distances: ``[m, k]`` float64, each row ascending.
        alpha: Weight of the distance.
        scale: ``C``, the unit of the distances.

    Source: TSDS (NeurIPS 2024), Algorithm 1.
    """
    m, k = distances.shape
    counts = np.arange(1, k)
    gaps = (counts * distances[:, 1:] - np.cumsum(distances, axis=1)[:, :-1]).sum(axis=0)
    enough = alpha / scale * gaps >= (1 - alpha) * m
    nearest = int(np.argmax(enough)) + 1 if enough.any() else k
    mass = np.zeros((m, k))
    mass[:, :nearest] = 1.0 / (nearest * m)
    return Assignment(mass, nearest, exhausted=not enough.any())


def knn_kde(distances: np.ndarray, density: np.ndarray, alpha: float, scale: float) -> Assignment:
    """Fill each target's neighbours up to a cap inverse to their density.

    The cap is ``1 / (m s rho)``. A target has used up its first ``k`` neighbours when
    ``s`` reaches ``count_k = sum_{l<=k} 1/rho_l``, and growing ``s`` further then costs
    ``(d_k+1 - d_k) count_k`` more per unit. The published code walks through these
    events with a heap; here they are sorted and their costs summed up. ``s`` is the
    first event at which ``(alpha / C) cost >= (1 - alpha) m``.

    Args:
        distances: ``[m, k]`` float64, each row ascending.
        density: ``[m, k]`` float64 densities of those neighbours, at least 1.
        alpha: Weight of the distance.
        scale: ``C``, the unit of the distances.

    Source: TSDS (NeurIPS 2024), Algorithm 2.
    """
    m, k = distances.shape
    weight = 1.0 / density
    count = np.cumsum(weight, axis=1)
    if k == 1:
        return Assignment(np.full((m, 1), 1.0 / m), 1, exhausted=True)
    events = count[:, :-1].ravel()
    rises = (np.diff(distances, axis=1) * count[:, :-1]).ravel()
    # A stable sort keeps a target's own events in order where counts are equal.
    order = np.argsort(events, kind="stable")
    enough = alpha / scale * np.cumsum(rises[order]) >= (1 - alpha) * m
    last = int(np.argmax(enough)) if enough.any() else len(order) - 1
    s = events[order[last]]
    before = np.hstack([np.zeros((m, 1)), count[:, :-1]])
    mass = np.clip(s - before, 0.0, weight) / (m * s)
    # A target whose list is used up has its remaining mass on the last neighbour.
    mass[:, -1] += np.maximum(1.0 / m - mass.sum(axis=1), 0.0)
    reached = int(np.count_nonzero(mass, axis=1).max())
    # Beyond its last neighbour nothing is known of a target: its events are missing there.
    exhausted = not enough.any() or bool(s > count[:, -1].min())
    return Assignment(mass, reached, exhausted)


def draw(mass: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Draw rows independently with ``mass`` as probabilities.

    Args:
        mass: ``[n]`` non-negative, in an order that does not depend on storage.
        limit: Draws; fewer draws are a prefix of more.
        seed: Seed of the selection.

    Returns:
        ``[limit]`` positions in ``mass``.
    """
    held = np.flatnonzero(mass)
    cumulative = np.cumsum(mass[held])
    # Scaled by the total, which is 1 only up to rounding.
    chance = np.random.default_rng(seed).random(limit) * cumulative[-1]
    return held[np.searchsorted(cumulative, chance, side="right").clip(max=len(held) - 1)]


def rank_by_mass(near: Neighbours, mass: np.ndarray) -> np.ndarray:
    """Sort the rows that have mass: largest first, then the nearest, then by id.

    Args:
        near: The neighbours of every target.
        mass: ``[n]`` received mass, sorted by id.

    Returns:
        Positions in ``mass`` of the rows with mass, best first.
    """
    nearest = np.full(len(mass), np.inf)
    np.minimum.at(nearest, near.order.ravel(), near.distances.ravel())
    return np.lexsort((nearest, -mass))[: np.count_nonzero(mass)]


def _nearest_others(
    target: Rows, candidates: Sequence[Rows], taken: pa.Array, limit: int, engine: Engine
) -> pa.Array:
    """Return the ids nearest to any target among those not yet taken."""
    distances = nearest_distances(np.asarray(target.embeddings), candidates, engine)
    for shard, distance in zip(candidates, distances, strict=True):
        distance[pc.is_in(shard.ids, value_set=taken).to_numpy(zero_copy_only=False)] = np.inf
    return smallest(distances, [shard.ids for shard in candidates], limit)[0]
