"""The check that all ids of a pool are different, with eight bytes per row.

Ids are compared by a 64-bit hash, a range of hashes at a time, and only where two hashes
agree by the ids themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from pandas.util import hash_array

from gotd.engine.local import Engine

HASHES_AT_ONCE = 1 << 25
"""256 MiB of hashes are sorted together."""
SHIFT = np.uint64(32)


def repeated(shards: Sequence[pa.Array]) -> str | None:
    """Find an id that occurs twice.

    Args:
        shards: The ids of each shard; they may be memory maps.

    Returns:
        The first such id in the order of hashes, or ``None``.
    """
    ranges = max(1, -(-sum(map(len, shards)) // HASHES_AT_ONCE))
    for number in range(ranges):
        parts = []
        for ids in shards:
            hashes = hash_strings(ids)
            # By the high half: a 64-bit product would overflow.
            parts.append(hashes[((hashes >> SHIFT) * np.uint64(ranges)) >> SHIFT == number])
        shared = _occur_twice(parts)
        name = _same_id(shards, shared) if len(shared) else None
        if name is not None:
            return name
    return None


def repeated_among(
    hashes: Sequence[Path], rows: int, ids: Callable[[], Sequence[pa.Array]], engine: Engine
) -> str | None:
    """Find an id that occurs twice, as `repeated` does, a range of hashes in each task.

    Args:
        hashes: For each shard a ``.npy`` file of the hashes of its ids, uint64, sorted.
        rows: Rows of all shards.
        ids: Returns the ids of each shard, which are read only if two hashes agree.
        engine: Maps over the ranges.
    """
    ranges = max(1, -(-rows // HASHES_AT_ONCE))
    search = partial(_shared_hashes, list(hashes), ranges)
    for shared in engine.map(search, range(ranges)):
        name = _same_id(ids(), shared) if len(shared) else None
        if name is not None:
            return name
    return None


def _shared_hashes(hashes: Sequence[Path], ranges: int, number: int) -> np.ndarray:
    """Return the hashes of a range that occur twice."""
    # The smallest high halves that `repeated` gives to this range and to the next one.
    low, high = (-(-(place << 32) // ranges) << 32 for place in (number, number + 1))
    parts = []
    for path in hashes:
        own = np.load(path, mmap_mode="r")
        stop = len(own) if number + 1 == ranges else np.searchsorted(own, np.uint64(high))
        # A copy, since a slice would keep the file of every shard open.
        parts.append(np.array(own[np.searchsorted(own, np.uint64(low)) : stop]))
    return _occur_twice(parts)


def _occur_twice(parts: Sequence[np.ndarray]) -> np.ndarray:
    ordered = np.sort(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _same_id(shards: Sequence[pa.Array], shared: np.ndarray) -> str | None:
    """Compare the ids themselves among the rows whose hash occurs twice."""
    seen: set[str] = set()
    for ids in shards:
        rows = np.flatnonzero(np.isin(hash_strings(ids), shared))
        for name in ids.take(pa.array(rows)).to_pylist():
            if name in seen:
                return name
            seen.add(name)
    return None


def hash_strings(values: pa.Array) -> np.ndarray:
    """Hash strings to uint64 ``[n]``, from their bytes alone."""
    return hash_array(np.asarray(values, object), categorize=False)  # type: ignore[reportCallIssue]
