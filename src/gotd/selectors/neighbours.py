"""Exact nearest candidates of every target.

scikit-learn proposes a few more than ``k`` candidates by matrix products, in blocks. Their
distances are computed again pair by pair in float64, and ties are broken by id. A pair's
distance then depends on the pair alone, so shards and row order cannot change the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.compiled import compiled
from gotd.storage.work import Work
from gotd.transport import reference

Result = TypeVar("Result")


@dataclass(frozen=True)
class Neighbours:
    """The ``k`` nearest candidates of each target, nearest first, ties by id.

    Targets are sorted by id, so that sums over targets do not depend on their order.

    Args:
        distances: ``[m, k]`` float64 squared Euclidean distances.
        rows: ``[m, k]`` int64 global rows: positions in the shards laid end to end.
        order: ``[m, k]`` int64 position of each row among all these rows sorted by id,
            the key for breaking ties.
    """

    distances: np.ndarray
    rows: np.ndarray
    order: np.ndarray

    @property
    def k(self) -> int:
        """Return the neighbours per target."""
        return self.rows.shape[1]

    @property
    def rank(self) -> np.ndarray:
        """Return ``[m, k]`` ranks: 1 for the nearest neighbour of a target."""
        return np.broadcast_to(np.arange(1, self.k + 1), self.rows.shape)


def nearest_neighbours(
    target: Rows,
    candidates: Sequence[Rows],
    k: int,
    engine: Engine,
    *,
    normalise: bool = False,
    among: Sequence[np.ndarray] | None = None,
) -> Neighbours:
    """Find the ``k`` nearest candidates of every target, exactly.

    Args:
        target: ``m`` rows with embeddings.
        candidates: Shards with embeddings.
        k: Neighbours per target; at most the number of candidates.
        engine: Maps over shards.
        normalise: Scale every embedding to unit length first.
        among: Per shard ``[n]`` bool, the candidates that are searched; ``None``: all.

    Raises:
        ValueError: If ``k`` exceeds the pool, embeddings are missing, or a zero
            embedding is to be normalised.
    """
    n_candidates = sum(map(len, candidates))
    n_candidates = n_candidates if among is None else sum(int(mask.sum()) for mask in among)
    if not 1 <= k <= n_candidates:
        raise ValueError(f"k must be in [1, {n_candidates:,}] (the pool), not {k:,}")
    by_id = pc.sort_indices(target.ids).to_numpy()
    wanted = _rows_of(target, normalise)[by_id]
    starts = np.cumsum([0, *map(len, candidates)])

    def search(number: int) -> tuple[np.ndarray, np.ndarray]:
        shard, here = candidates[number], None
        if among is not None:
            here = np.flatnonzero(among[number])
            shard = shard.take(here)
        rows, distances = _search_shard(
            wanted, _rows_of(shard, normalise), shard.ids, min(k, len(shard))
        )
        return distances, starts[number] + (rows if here is None else here[rows])

    ids = pa.chunked_array([shard.ids for shard in candidates])
    best = (np.empty((len(wanted), 0)), np.empty((len(wanted), 0), dtype=np.int64))
    sizes = map(len, candidates) if among is None else map(np.count_nonzero, among)
    filled = (number for number, size in enumerate(sizes) if size)
    for distances, rows in engine.map(search, filled):
        merged = np.hstack([best[0], distances]), np.hstack([best[1], rows])
        best = _best(*merged, ids, k)
    return Neighbours(*best, _order_by_id(best[1], ids))


def enough_neighbours(
    target: Rows,
    candidates: Sequence[Rows],
    first: int,
    engine: Engine,
    attempt: Callable[[Neighbours], Result | None],
    *,
    most: int | None = None,
    normalise: bool = False,
) -> tuple[Neighbours, Result]:
    """Search with ever longer lists until an attempt succeeds.

    Args:
        target: Rows with embeddings.
        candidates: Shards with embeddings.
        first: Neighbours per target in the first lists; doubled each time.
        engine: Maps over shards.
        attempt: Returns ``None`` for lists that are too short; the longest never are.
        most: Neighbours per target in the longest lists; ``None``: all candidates.
        normalise: Scale every embedding to unit length first.

    Returns:
        The lists, and what the attempt returned.
    """
    most, k = most or sum(map(len, candidates)), first
    while True:
        k = min(k, most)
        near = nearest_neighbours(target, candidates, k, engine, normalise=normalise)
        result = attempt(near)
        if result is not None:
            return near, result
        k *= 2


def neighbours_work(n_candidates: int, n_targets: int, width: int, k: int) -> Work:
    """Return the work of one search for ``k`` neighbours of every target."""
    lists = 3 * 8 * n_targets * min(k, n_candidates)
    return Work(flops=2.0 * n_candidates * n_targets * width, memory_bytes=lists)


def take_ids(candidates: Sequence[Rows], rows: np.ndarray) -> pa.Array:
    """Return the ids of global rows, in the order of ``rows``."""
    ids = pa.chunked_array([shard.ids for shard in candidates])
    return ids.take(pa.array(rows)).combine_chunks()


def gather(candidates: Sequence[Rows], rows: np.ndarray) -> np.ndarray:
    """Copy the embeddings of global rows into one array.

    Args:
        candidates: Shards with embeddings; global rows count through them.
        rows: ``[k]`` global rows, in any order.

    Returns:
        ``[k, d]`` float32, in the order of ``rows``.
    """
    starts = np.cumsum([0, *map(len, candidates)])
    shard = np.searchsorted(starts, rows, side="right") - 1
    where = np.column_stack([shard, rows - starts[shard]])
    return reference.gather([_rows_of(part, False) for part in candidates], where)


def nearest_distances(
    target: np.ndarray, candidates: Sequence[Rows], engine: Engine
) -> list[np.ndarray]:
    """Compute each candidate's distance to its nearest target.

    Args:
        target: ``[m, d]`` target embeddings.
        candidates: Shards with embeddings.
        engine: Maps over shards.

    Returns:
        Per shard ``[n]`` float64 squared distances.
    """
    from sklearn.metrics import pairwise_distances_argmin

    wanted = np.ascontiguousarray(target, dtype=np.float32)

    def measure(shard: Rows) -> np.ndarray:
        rows = _rows_of(shard, False)
        if len(rows) == 0:
            return np.empty(0)
        nearest = pairwise_distances_argmin(rows, wanted)
        return _pair_distances(rows, wanted, nearest[:, None])[:, 0]

    return list(engine.map(measure, candidates))


def _rows_of(shard: Rows, normalise: bool) -> np.ndarray:
    if shard.embeddings is None:
        raise ValueError("nearest neighbours need embeddings; choose an embedder")
    rows = np.ascontiguousarray(shard.embeddings, dtype=np.float32)
    if not normalise:
        return rows
    norms = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
    if (norms == 0).any():
        row = shard.ids[int(np.argmin(norms))].as_py()
        raise ValueError(f"the embedding of row {row!r} is zero and cannot be normalised; drop it")
    return (rows / norms[:, None]).astype(np.float32)


def _search_shard(
    target: np.ndarray, rows: np.ndarray, ids: pa.Array, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Find one shard's ``k`` nearest rows of every target, and their distances."""
    from sklearn.neighbors import NearestNeighbors

    # The margin is proposals to choose from; the check below says whether it was enough.
    proposed = min(len(rows), k + max(16, k // 8))
    search = NearestNeighbors(n_neighbors=proposed, algorithm="brute").fit(rows)
    coarse, nearest = search.kneighbors(target)
    distances, nearest = _best(_pair_distances(target, rows, nearest), nearest, ids, k)
    if proposed == len(rows):
        return nearest, distances
    # Whatever was not proposed is at least this far away: the farthest proposal, less the
    # rounding error of |x|^2 + |y|^2 - 2 x y.
    norms = np.square(target, dtype=np.float64).sum(axis=1)
    longest = 1.001 * float(np.einsum("ij,ij->i", rows, rows).max())
    error = (2 * target.shape[1] + 8) * np.finfo(coarse.dtype).eps * (norms + longest)
    for row in np.flatnonzero(distances[:, -1] >= np.square(coarse[:, -1]) - error):
        everything = np.arange(len(rows))[None, :]
        exact = _pair_distances(target[row : row + 1], rows, everything)
        distances[row], nearest[row] = (x[0] for x in _best(exact, everything, ids, k))
    return nearest, distances


def _best(
    distances: np.ndarray, rows: np.ndarray, ids: pa.Array | pa.ChunkedArray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((_order_by_id(rows, ids), distances), axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _order_by_id(rows: np.ndarray, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    unique, inverse = np.unique(rows, return_inverse=True)
    position = np.empty(len(unique), dtype=np.int64)
    position[pc.sort_indices(ids.take(pa.array(unique))).to_numpy()] = np.arange(len(unique))
    return position[inverse].reshape(rows.shape)


# Sums may be reordered by the compiler, but alike for every pair.
@compiled(nogil=True, fastmath={"reassoc", "nsz"})
def _pair_distances(target: np.ndarray, rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Compute float64 distances of target ``i`` to ``rows[pairs[i, j]]``."""
    width = target.shape[1]
    out = np.empty(pairs.shape, np.float64)
    for i in range(pairs.shape[0]):
        for j in range(pairs.shape[1]):
            row = pairs[i, j]
            total = 0.0
            for c in range(width):
                gap = np.float64(target[i, c]) - np.float64(rows[row, c])
                total += gap * gap
            out[i, j] = total
    return out
