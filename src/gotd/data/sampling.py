"""Chance by id: draws that do not change when rows are split, merged or shuffled."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa


def uniform_by_id(ids: pa.Array | pa.ChunkedArray, seed: int, role: str) -> np.ndarray:
    """Draw one uniform number per id, the same wherever that id is stored.

    A counter-based generator in the sense of Salmon et al. (2011): the number is a
    hash of (role, seed, id), so it depends neither on order nor on shards.

    Args:
        ids: ``[n]`` row ids.
        seed: The role's seed.
        role: What the chance is for; two roles are independent.

    Returns:
        ``[n]`` float64 in the open interval (0, 1).
    """
    prefix = f"{role}\x00{seed}\x00".encode()
    words = np.fromiter(
        (
            int.from_bytes(blake2b(prefix + str(i).encode(), digest_size=8).digest(), "little")
            for i in ids.to_pylist()
        ),
        dtype=np.uint64,
        count=len(ids),
    )
    drawn = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return np.minimum(drawn, np.nextafter(1.0, 0.0))  # the top word would round to 1


def subsample(table: pa.Table, rows: int, seed: int, role: str) -> np.ndarray:
    """Mark ``rows`` rows by a hash of their ids, whatever their order.

    A smaller sample with the same seed and role is part of a larger one.

    Args:
        table: Rows with an ``id`` column.
        rows: How many to mark; all if there are fewer.
        seed: The role's seed.
        role: What the sample is for.

    Returns:
        ``[n]`` bool, True for the rows that are in the sample.
    """
    marked = np.zeros(table.num_rows, dtype=bool)
    chance = uniform_by_id(table["id"], seed, role)
    marked[np.argsort(chance, kind="stable")[:rows]] = True
    return marked
