"""TSDS as published, written from its description; `tsds.py` compares ours with it.

Source: TSDS (NeurIPS 2024), Algorithms 1 and 2, with the settings of its authors' code.
"""

from __future__ import annotations

import heapq
from math import isqrt
from typing import Any, Literal, NamedTuple

import numpy as np

Variant = Literal["uniform", "kde"]
PROBES = 10


class Settings(NamedTuple):
    """Settings of both sides; alpha, C and sigma are the published defaults."""

    prefetch: int
    kde_neighbours: int
    limit: int
    alpha: float = 0.5
    scale: float = 5.0
    sigma: float = 0.75


class Chosen(NamedTuple):
    """Selection of one side, with the neighbours and, where computed, the densities.

    Args:
        best: ``[limit]`` rows of the pool, most mass first.
        neighbours: ``[m, k]`` rows.
        points: ``[p]`` rows whose density was measured, ascending.
        density: ``[p]`` float64.
    """

    best: np.ndarray
    neighbours: np.ndarray | None = None
    points: np.ndarray | None = None
    density: np.ndarray | None = None


class Published:
    """The published procedure over one pool.

    Args:
        pool: ``[n, d]`` float32 candidates.
        settings: Neighbours, rows to keep and the published defaults.
    """

    def __init__(self, pool: np.ndarray, settings: Settings) -> None:
        self.pool, self.settings = pool, settings

    def select(self, target: np.ndarray, variant: Variant) -> Chosen:
        """Select the ``limit`` rows with most mass, from scratch as the published code does."""
        distances, rows = self.neighbours(target)
        points = density = None
        if variant == "uniform":
            mass = self._uniform(distances)
        else:
            points, density = self.densities(rows)
            mass = self._by_density(distances, density[np.searchsorted(points, rows)])
        total = np.bincount(rows.ravel(), weights=mass.ravel(), minlength=len(self.pool))
        best = np.argsort(-total, kind="stable")[: self.settings.limit]
        return Chosen(best, rows, points, density)

    def neighbours(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Search the ten nearest cells: ``[m, k]`` distances, ascending, and rows."""
        squared, rows = self._search(self.pool, target, self.settings.prefetch)
        # A target whose cells hold too few rows has -1 at its end.
        found = int((rows >= 0).sum(axis=1).min())
        return np.sqrt(squared[:, :found].astype(np.float64)), rows[:, :found]

    def densities(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return all distinct rows, sorted, and the density at each among them."""
        found = np.unique(rows)
        points = self.pool[found]
        squared, near = self._search(points, points, self.settings.kde_neighbours)
        kernel = 1.0 - squared.astype(np.float64) / self.settings.sigma**2
        return found, np.where(near >= 0, kernel.clip(min=0.0), 0.0).sum(axis=1)

    def _search(
        self, rows: np.ndarray, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        width = rows.shape[1]
        cells: Any = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, isqrt(len(rows)) // 2)
        cells.train(rows)
        cells.add(rows)
        cells.nprobe = PROBES
        return cells.search(queries, k)

    def _uniform(self, distances: np.ndarray) -> np.ndarray:
        """Compute Algorithm 1: the smallest K at which the next neighbour costs too much."""
        m, fetched = distances.shape
        s, nearest, within = self.settings, 1, distances[:, 0].sum()
        while nearest < fetched:
            gap = nearest * distances[:, nearest].sum() - within
            if s.alpha / s.scale * gap >= (1.0 - s.alpha) * m:
                break
            within += distances[:, nearest].sum()
            nearest += 1
        mass = np.zeros_like(distances)
        mass[:, :nearest] = 1.0 / (nearest * m)
        return mass

    def _by_density(self, distances: np.ndarray, density: np.ndarray) -> np.ndarray:
        """Compute Algorithm 2: widen the next target on the heap until it costs too much."""
        m, fetched = distances.shape
        s, inverse = self.settings, 1.0 / np.maximum(density, 1e-12)
        heap = [(inverse[j, 0], 0, j) for j in range(m)]
        heapq.heapify(heap)
        spent, cost, total = distances[:, 0] * inverse[:, 0], np.zeros(m), 0.0
        last, size = np.zeros(m, dtype=np.int64), 1.0
        while heap:
            size, k, j = heapq.heappop(heap)
            total -= cost[j]
            cost[j] = distances[j, k + 1] * size - spent[j]
            total += cost[j]
            if s.alpha / s.scale * total >= (1.0 - s.alpha) * m:
                break
            last[j] = k
            if k < fetched - 2:
                heapq.heappush(heap, (size + inverse[j, k + 1], k + 1, j))
                spent[j] += distances[j, k + 1] * inverse[j, k + 1]
        mass = np.where(np.arange(fetched) <= last[:, None], inverse / (m * size), 0.0)
        mass[np.arange(m), last + 1] += np.maximum(1.0 / m - mass.sum(axis=1), 0.0)
        return mass
