"""The kernel density of the pool around each candidate, by which TSDS weights.

    rho_j = sum_x max(0, 1 - |x_j - x|^2 / sigma^2)

over the nearest rows of the pool, the row itself included, so that ``rho_j >= 1``. It
depends on the pool and not on a target, so it is computed once and cached.

Source: TSDS (NeurIPS 2024), section on near-duplicates. Deviation D31: the published code
measures it among the rows that any target looked up; `gotd.selectors.tsds.TSDS.density_over`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.selectors.compiled import compiled
from gotd.selectors.neighbours import gather
from gotd.storage.files import atomic_write
from gotd.storage.memmap import FileArray
from gotd.storage.work import Work

# Up to so many rows all pairs are computed twice, in double precision.
SMALL_ROWS = 4096

# Kernel values held at once: 2^22 float64 are 32 MiB, near what a cache holds.
BLOCK_ENTRIES = 1 << 22
TILE_ROWS = 2048

# A row with more neighbours inside sigma than count adds up the largest of these bins.
BINS = 64

# Largest |x|^2 / sigma^2 at which float32 still gives a kernel value to about 1e-3.
FLOAT32_RANGE = 1e3


def pool_density(candidates: Sequence[Rows], sigma: float, neighbours: int) -> np.ndarray:
    """Compute each candidate's density in the pool, or load it.

    Cached beside the embeddings where these are files of one folder, for the next target.
    Rows are compared sorted by id, so the order in which they are stored has no effect.

    Args:
        candidates: Shards with embeddings; all of them are copied into memory.
        sigma: Width of the kernel, in embedding units.
        neighbours: The most rows that count, the row itself included.

    Returns:
        ``[n]`` float64 by global row: through the shards laid end to end.
    """
    stored = _file([shard.embeddings for shard in candidates], sigma, neighbours)
    if stored is not None and stored.exists():
        return np.load(stored)
    ids = pa.chunked_array([shard.ids for shard in candidates], type=pa.string())
    by_id = pc.sort_indices(ids).to_numpy().astype(np.int64)
    density = np.empty(len(by_id))
    density[by_id] = kernel_density(gather(candidates, by_id), sigma, neighbours)
    if stored is not None:
        # A folder that may only be read is no reason to fail: the next target waits again.
        with contextlib.suppress(OSError), atomic_write(stored) as part, part.open("wb") as file:
            np.save(file, density)
    return density


def density_work(n_candidates: int, width: int) -> Work:
    """Return the work of the density of a pool: each pair once, all rows in memory."""
    held = 2 * 4 * n_candidates * (width + 2) + 8 * BINS * n_candidates
    return Work(flops=float(n_candidates) ** 2 * width, memory_bytes=held)


def _file(arrays: Sequence[np.ndarray | None], sigma: float, neighbours: int) -> Path | None:
    """Return the file for the densities of embeddings, if those are files of one folder."""
    sources = [array.source for array in arrays if isinstance(array, FileArray)]
    paths = [Path(source[0]) for source in sources if source is not None]
    folders = {path.parent for path in paths}
    if len(paths) < len(arrays) or len(folders) != 1:
        return None
    # Files of a store never change under their name; a pool may be some of them.
    content = json.dumps([[path.name for path in paths], sigma, neighbours])
    return folders.pop() / f"density-{hashlib.sha256(content.encode()).hexdigest()[:12]}.npy"


def kernel_density(embeddings: np.ndarray, sigma: float, neighbours: int) -> np.ndarray:
    """Compute the kernel density around each row.

    Quadratic in the rows. More than a few thousand are compared in float32 and each pair
    once; where more than ``neighbours`` rows are inside ``sigma``, the sum of the nearest
    is then estimated from a histogram, to a few thousandths.

    Args:
        embeddings: ``[n, d]`` rows.
        sigma: Width of the kernel.
        neighbours: The most rows that count, the row itself included.

    Returns:
        ``[n]`` float64, at least 1.
    """
    if len(embeddings) > SMALL_ROWS:
        left, right = _sides(embeddings, sigma, np.float32)
        if -left[:, -1].min() <= FLOAT32_RANGE:
            return _every_pair_once(left, right, neighbours)
    return _every_pair_twice(*_sides(embeddings, sigma, np.float64), neighbours)


def _sides(embeddings: np.ndarray, sigma: float, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Return two ``[n, d + 2]`` matrices whose product is ``1 - |x - y|^2 / sigma^2``."""
    # About their mean, because differences of large norms lose digits.
    rows = embeddings.astype(dtype) - embeddings.mean(axis=0, dtype=np.float64).astype(dtype)
    rows *= dtype(np.sqrt(2.0) / sigma)
    half = dtype(0.5) - dtype(0.5) * np.square(rows).sum(axis=1)
    ones = np.ones_like(half)
    return np.column_stack([rows, ones, half]), np.column_stack([rows, half, ones])


def _every_pair_twice(left: np.ndarray, right: np.ndarray, neighbours: int) -> np.ndarray:
    density = np.empty(len(left))
    step = max(1, BLOCK_ENTRIES // len(left))
    for start in range(0, len(left), step):
        block = slice(start, start + step)
        kernel = left[block] @ right.T
        np.clip(kernel, 0.0, 1.0, out=kernel)
        # Rounding must not let a row miss itself.
        own = np.arange(len(kernel))
        kernel[own, start + own] = 1.0
        crowded = np.count_nonzero(kernel, axis=1) > neighbours
        density[block] = kernel.sum(axis=1)
        if crowded.any():
            nearest = np.partition(kernel[crowded], len(left) - neighbours, axis=1)
            density[start + np.flatnonzero(crowded)] = nearest[:, -neighbours:].sum(axis=1)
    return density


def _every_pair_once(left: np.ndarray, right: np.ndarray, neighbours: int) -> np.ndarray:
    count = np.zeros((len(left), BINS), dtype=np.uint32)
    total = np.zeros((len(left), BINS), dtype=np.float32)
    count[:, -1] = total[:, -1] = 1.0  # the row itself
    for start in range(0, len(left), TILE_ROWS):
        for other in range(0, start + 1, TILE_ROWS):
            kernel = left[start : start + TILE_ROWS] @ right[other : other + TILE_ROWS].T
            _tally(kernel, start, other, count, total)
    # From the nearest bin on; of the last bin that counts, the nearest part, taking its
    # values to be spread evenly.
    count, total = count[:, ::-1].astype(np.float64), total[:, ::-1].astype(np.float64)
    before = np.cumsum(count, axis=1) - count
    used = np.clip(neighbours - before, 0.0, count)
    upper = 1.0 - np.arange(BINS) / BINS
    part = used * (upper - 0.5 * used / (np.maximum(count, 1.0) * BINS))
    return np.where(used == count, total, part).sum(axis=1)


@compiled(nogil=True)
def _tally(kernel, start, other, count, total):
    """Add a tile's positive values to the histograms of the rows on both sides."""
    for i in range(kernel.shape[0]):
        end = i if start == other else kernel.shape[1]
        for j in range(end):
            value = kernel[i, j]
            if value > 0:
                value = min(value, np.float32(1.0))
                bin_ = min(np.int64(value * BINS), BINS - 1)
                count[start + i, bin_] += 1
                total[start + i, bin_] += value
                count[other + j, bin_] += 1
                total[other + j, bin_] += value
