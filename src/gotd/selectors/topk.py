"""The k best of any number of scores, without sorting or holding them all.

Scores are read shard by shard. A histogram of their leading bits finds the bin of the k-th
smallest; that bin is split again until it is small; only then are the rows at or under the
threshold read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.engine.local import Engine, LocalEngine

BITS = 16
"""Bits of a key that one histogram distinguishes: 65,536 bins."""

SLACK_ROWS = 1 << 16
"""Rows above the budget that are simply sorted instead of splitting their bin again."""

BLOCK_ROWS = 1 << 20


@dataclass(frozen=True)
class Best:
    """The best rows, best first, ties by id.

    Args:
        ids: ``[k]`` strings.
        scores: ``[k]`` float64.
        shard: ``[k]`` int64 number of the shard that has the row.
        row: ``[k]`` int64 position of the row in its shard.
    """

    ids: pa.Array
    scores: np.ndarray
    shard: np.ndarray
    row: np.ndarray


def smallest(
    scores: Sequence[np.ndarray], ids: Sequence[pa.Array], limit: int
) -> tuple[pa.Array, np.ndarray]:
    """Take the ``limit`` smallest scores over all shards, ties by id.

    Args:
        scores: Per shard ``[n]`` scores.
        ids: Per shard ``[n]`` row ids.
        limit: Rows to keep.

    Returns:
        ``[limit]`` ids and ``[limit]`` float64 scores, smallest first.

    Raises:
        ValueError: If a score is NaN.
    """
    best = smallest_rows(scores, ids, limit, LocalEngine())
    return best.ids, best.scores


def smallest_rows(
    scores: Sequence[np.ndarray], ids: Sequence[pa.Array], limit: int, engine: Engine
) -> Best:
    """Find the ``limit`` smallest scores and their positions.

    Memory is ``O(limit)`` beside the scores and ids themselves, which may be memory maps.

    Args:
        scores: Per shard ``[n]`` scores.
        ids: Per shard ``[n]`` row ids.
        limit: Rows to keep.
        engine: Maps over shards.

    Raises:
        ValueError: If a score is NaN.
    """
    prefix, bits = _threshold(scores, limit, engine)
    rows_left = _table(np.empty(0), pa.array([], pa.string()), 0, np.empty(0))
    for number, rows in enumerate(engine.map(partial(_at_or_under, prefix, bits), scores)):
        rows_left = pa.concat_tables([rows_left, _table(scores[number], ids[number], number, rows)])
        if rows_left.num_rows > 2 * (limit + SLACK_ROWS):  # many ties with the threshold
            rows_left = _first(rows_left, limit)
    rows_left = _first(rows_left, limit)
    return Best(
        ids=rows_left["id"].combine_chunks(),
        scores=rows_left["score"].to_numpy(),
        shard=rows_left["shard"].to_numpy(),
        row=rows_left["row"].to_numpy(),
    )


def sortable(scores: np.ndarray) -> np.ndarray:
    """Map float64 to uint64 such that keys sort as the numbers do; both zeros are one."""
    bits = (np.asarray(scores, dtype=np.float64) + 0.0).view(np.uint64)
    sign = np.uint64(1 << 63)
    return np.where(bits & sign, ~bits, bits | sign)


def _threshold(scores: Sequence[np.ndarray], limit: int, engine: Engine) -> tuple[int, int]:
    """Find leading bits such that the keys at or under them include the ``limit`` smallest.

    Returns:
        The prefix and its length in bits, 64 at most; few rows share it unless they are tied.
    """
    prefix, bits, under = 0, 0, 0
    while bits < 64:
        counts = np.zeros(1 << BITS, dtype=np.int64)
        for part in engine.map(partial(_histogram, prefix, bits), scores):
            counts += part
        reached = under + np.cumsum(counts)
        bin_ = int(np.searchsorted(reached, limit))
        if bin_ == len(counts):  # fewer rows than asked for: all of them
            return (1 << (bits + BITS)) - 1, bits + BITS
        prefix, bits = (prefix << BITS) | bin_, bits + BITS
        under = int(reached[bin_] - counts[bin_])
        if reached[bin_] <= limit + SLACK_ROWS:
            break
    return prefix, bits


def _histogram(prefix: int, bits: int, scores: np.ndarray) -> np.ndarray:
    """Count a shard's keys that begin with ``prefix`` by the ``BITS`` bits after it."""
    counts = np.zeros(1 << BITS, dtype=np.int64)
    for start in range(0, len(scores), BLOCK_ROWS):
        block = np.asarray(scores[start : start + BLOCK_ROWS], dtype=np.float64)
        if np.isnan(block).any():
            raise ValueError(
                "a score is NaN; look for empty texts or embeddings that are not finite"
            )
        keys = sortable(block)
        if bits:
            keys = keys[keys >> np.uint64(64 - bits) == np.uint64(prefix)]
        bins = (keys >> np.uint64(64 - bits - BITS)) & np.uint64((1 << BITS) - 1)
        counts += np.bincount(bins.astype(np.int64), minlength=1 << BITS)
    return counts


def _at_or_under(prefix: int, bits: int, scores: np.ndarray) -> np.ndarray:
    """List the rows of a shard whose key begins with ``prefix`` or less."""
    blocks = []
    for start in range(0, len(scores), BLOCK_ROWS):
        keys = sortable(scores[start : start + BLOCK_ROWS]) >> np.uint64(64 - bits)
        blocks.append(start + np.flatnonzero(keys <= np.uint64(prefix)))
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.int64)


def _first(rows: pa.Table, limit: int) -> pa.Table:
    keys = [("score", "ascending"), ("id", "ascending")]
    return rows.take(pc.sort_indices(rows, sort_keys=keys)[:limit])


def _table(scores: np.ndarray, ids: pa.Array, shard: int, rows: np.ndarray) -> pa.Table:
    rows = rows.astype(np.int64)
    return pa.table(
        {
            "score": np.asarray(scores, dtype=np.float64)[rows],
            "id": ids.take(pa.array(rows)).cast(pa.string()),
            "shard": np.full(len(rows), shard, dtype=np.int64),
            "row": rows,
        }
    )
