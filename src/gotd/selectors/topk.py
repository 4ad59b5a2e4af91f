"""The k best of any number of scores, without holding them all.

Each shard proposes the rows that can be among its own k best; those that the best rows so
far exclude are dropped, and the others are sorted together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.engine.local import Engine, LocalEngine

SLACK_ROWS = 1 << 16
"""Rows above the budget that are collected before they are sorted."""


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

    @property
    def where(self) -> np.ndarray:
        """Return ``[k, 2]`` int64 pairs (shard, row)."""
        return np.column_stack([self.shard, self.row])


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

    Memory is ``O(limit)`` and a shard, beside the scores and ids, which may be memory maps.

    Args:
        scores: Per shard ``[n]`` scores.
        ids: Per shard ``[n]`` row ids.
        limit: Rows to keep.
        engine: Maps over shards.

    Raises:
        ValueError: If a score is NaN.
    """
    worst = np.inf
    rows_left = _table(np.empty(0), pa.array([], pa.string()), 0, np.empty(0))
    for number, rows in enumerate(engine.map(partial(_proposed, limit), scores)):
        rows = rows[scores[number][rows] <= worst]
        rows_left = pa.concat_tables([rows_left, _table(scores[number], ids[number], number, rows)])
        if rows_left.num_rows > 2 * (limit + SLACK_ROWS):
            rows_left = _first(rows_left, limit)
            worst = rows_left["score"][limit - 1].as_py()
    rows_left = _first(rows_left, limit)
    return Best(
        ids=rows_left["id"].combine_chunks(),
        scores=rows_left["score"].to_numpy(),
        shard=rows_left["shard"].to_numpy(),
        row=rows_left["row"].to_numpy(),
    )


def _proposed(limit: int, scores: np.ndarray) -> np.ndarray:
    """List the rows of a shard whose scores are at or under its ``limit``-th smallest."""
    if np.isnan(scores).any():
        raise ValueError("a score is NaN; look for empty texts or embeddings that are not finite")
    if len(scores) <= limit:
        return np.arange(len(scores))
    return np.flatnonzero(scores <= np.partition(scores, limit - 1)[limit - 1])


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
