"""Random choices by id: they do not change when rows are split, merged or shuffled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from gotd.data.base import FilteredPart, Part
from gotd.data.rows import Rows

SPLIT_SEED = 0
"""Seed of the choices that are one for all seeds of a sweep, so that cells are comparable.

These are: which documents pre-train, are held out or fit a limit, and which rows are the
target, choose the epoch or are reported.
"""


def uniform_by_id(ids: pa.Array | pa.ChunkedArray, seed: int, role: str) -> np.ndarray:
    """Draw one uniform number per id, the same wherever that id is stored.

    A counter-based generator in the sense of Salmon et al. (2011): the number is a
    hash of (role, seed, id), so it depends neither on order nor on shards.

    Args:
        ids: ``[n]`` row ids.
        seed: The role's seed.
        role: What the numbers are for; two roles are independent.

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
    chance = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return np.minimum(chance, np.nextafter(1.0, 0.0))  # the top word would round to 1


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


def at_most(rows: pa.Table, n: int | None, role: str, seed: int = SPLIT_SEED) -> pa.Table:
    """Limit a table to ``n`` rows by a hash of their ids, in their order.

    Args:
        rows: Rows with an ``id`` column.
        n: How many; ``None``: all.
        role: What they are for; two roles choose independently.
        seed: The role's seed.
    """
    if n is None or n >= rows.num_rows:
        return rows
    return rows.filter(pa.array(subsample(rows, n, seed, role)))


def limited(parts: Sequence[Part], rows: int, seed: int, role: str) -> list[Part]:
    """Limit parts to the rows with the smallest hashes of (role, seed, id), as `subsample` does.

    Which rows these are is known after a first pass over all parts, made when the first
    part is read. Only the ``rows`` smallest hashes are in memory.

    Args:
        parts: The parts.
        rows: How many rows to keep over all parts; all if there are fewer.
        seed: The role's seed.
        role: What the sample is for.
    """

    @cache
    def largest_hash() -> float:
        smallest = np.empty(0)
        for part in parts:
            for table in part.pieces():
                smallest = np.concatenate([smallest, uniform_by_id(table["id"], seed, role)])
                if len(smallest) > rows:
                    smallest = np.partition(smallest, rows - 1)[:rows]
        return smallest.max() if len(smallest) == rows else 1.0

    def keep(ids: pa.ChunkedArray) -> np.ndarray:
        return uniform_by_id(ids, seed, role) <= largest_hash()

    rule = {"limit": rows, "seed": seed, "role": role}
    return [FilteredPart(part, keep, rule) for part in parts]


def sample_texts(shards: Sequence[Rows], rows: int, seed: int, role: str) -> list[str]:
    """Return the texts of the rows with the smallest hashes of (role, seed, id), in that order.

    Args:
        shards: The pool; only the texts of the sample are read.
        rows: How many; all if there are fewer.
        seed: The role's seed.
        role: What the sample is for.
    """
    hashes = [uniform_by_id(shard.ids, seed, role) for shard in shards]
    largest = np.sort(np.concatenate(hashes))[:rows][-1]
    drawn: list[tuple[float, str]] = []
    for shard, shard_hashes in zip(shards, hashes, strict=True):
        taken = np.flatnonzero(shard_hashes <= largest)
        texts = shard.texts.take(pa.array(taken)).to_pylist()
        drawn += zip(shard_hashes[taken].tolist(), texts, strict=True)
    return [text for _, text in sorted(drawn)]
