"""The rows of a map: samples of pool, target and selection, and their places on a plane.

Only the sampled rows are read, and of their texts only the beginnings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.data.unique_ids import hash_strings
from gotd.selection_report.measures import excerpt
from gotd.selection_report.rows import embeddings_of
from gotd.selectors.topk import Best

POOL_ROWS, TARGET_ROWS, SELECTED_ROWS = 2_000, 500, 1_000
"""Rows of a map, of each kind; those with the smallest hashes of their ids."""

TEXT_CHARS = 140
"""Characters of a text that a map shows."""

EMBEDDED_AT_ONCE = 128

Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Point:
    """A row on the map.

    Args:
        x: Its place along the first principal component.
        y: Its place along the second.
        text: The beginning of its text, on one line.
        domain: Its domain; empty where there is none.
        rank: Its rank in the selection, from 1; ``None`` outside of it.
    """

    x: float
    y: float
    text: str
    domain: str
    rank: int | None = None


@dataclass(frozen=True)
class SelectionMap:
    """Samples of pool, target and selection on the plane of two principal components.

    Args:
        pool: Candidates that competed.
        target: Target texts.
        selected: Rows of the selection.
        rows: Rows from which each of them was sampled, in that order.
        explained: Share of the variance of pool and target, weighted equally, that the two
            components have; ``None`` if nothing varies.
        unreadable: Sampled rows that are not shown, since the encoder knows no word of them.
        space: Name of the encoder.
        domains: Rows of each domain of the pool.
    """

    pool: tuple[Point, ...]
    target: tuple[Point, ...]
    selected: tuple[Point, ...]
    rows: tuple[int, int, int]
    explained: float | None
    unreadable: int
    space: str
    domains: Mapping[str, int]


@dataclass(frozen=True)
class _Sample:
    """Sampled rows of some shards.

    Args:
        shards: The shards.
        where: ``[k, 2]`` int64 pairs (shard, row).
        ranks: ``[k]`` int64, for rows of a selection.
    """

    shards: Sequence[Rows]
    where: np.ndarray
    ranks: np.ndarray | None = None

    def vectors(self, embed: Embed | None, length_chars: int) -> np.ndarray:
        """Return float64 ``[k, d]``: the stored embeddings, or those of the texts."""
        if embed is None:
            return embeddings_of(self.shards, self.where).astype(np.float64)
        ends = range(EMBEDDED_AT_ONCE, len(self.where), EMBEDDED_AT_ONCE)
        parts = [
            embed([self._beginning(shard, row, length_chars) for shard, row in places])
            for places in np.split(self.where, ends)
        ]
        return np.concatenate(parts).astype(np.float64)

    def points(self, places: np.ndarray, shown: np.ndarray) -> tuple[Point, ...]:
        """Return the points of the rows that are shown.

        Args:
            places: ``[k, 2]`` places on the plane.
            shown: Positions of the rows that are shown.
        """
        return tuple(
            Point(
                x=float(places[i, 0]),
                y=float(places[i, 1]),
                text=self._excerpt(*self.where[i]),
                domain=self._domain(*self.where[i]),
                rank=None if self.ranks is None else int(self.ranks[i]),
            )
            for i in shown
        )

    def _excerpt(self, shard: int, row: int) -> str:
        # One more than is shown at most, so that a text that is cut ends in a sign of it.
        return excerpt(self._beginning(shard, row, 20 * TEXT_CHARS), TEXT_CHARS)

    def _beginning(self, shard: int, row: int, chars: int) -> str:
        """Return the beginning of a text; the rest of it is not read."""
        value: Any = self.shards[shard].texts[int(row)]
        begun = bytes(memoryview(value.as_buffer())[: 4 * chars])
        return begun.decode("utf-8", "ignore")[:chars]

    def _domain(self, shard: int, row: int) -> str:
        domains = self.shards[shard].domains
        return "" if domains is None else domains[int(row)].as_py() or ""


def selection_map(
    best: Best,
    budget: int,
    candidates: Sequence[Rows],
    target: Rows,
    *,
    space: str,
    domains: Mapping[str, int],
    embed: Embed | None = None,
    length_chars: int = 1000,
) -> SelectionMap | None:
    """Sample rows by a hash of their ids and project them on two principal components.

    Pool and target have the same weight in the components, however many rows they have.

    Args:
        best: The ranking.
        budget: Rows of it that are selected.
        candidates: The pool.
        target: The target.
        space: Name of the encoder.
        domains: Rows of each domain of the pool.
        embed: Embeds texts, where the rows have no embeddings.
        length_chars: Characters of each text that it reads.

    Returns:
        The map; ``None`` if the rows have no embeddings and nothing embeds them, or the
        encoder can read no sampled row of a side.
    """
    embedded = target.embeddings is not None
    if embedded and all(shard.embeddings is not None for shard in candidates):
        embed = None
    elif embed is None:
        return None
    chosen = _smallest_hashes([best.ids[:budget]], SELECTED_ROWS)[:, 1]
    samples = (
        _Sample(candidates, _smallest_hashes([one.ids for one in candidates], POOL_ROWS)),
        _Sample([target], _smallest_hashes([target.ids], TARGET_ROWS)),
        _Sample(candidates, best.where[chosen], chosen + 1),
    )
    vectors = [sample.vectors(embed, length_chars) for sample in samples]
    shown = [np.flatnonzero(rows.any(axis=1)) for rows in vectors]
    if not all(map(len, shown)):
        return None
    sides = [rows[one] for rows, one in zip(vectors[:2], shown[:2], strict=True)]
    centre, plane, explained = _principal_plane(sides)
    pool, wanted, selected = (
        sample.points((rows - centre) @ plane, one)
        for sample, rows, one in zip(samples, vectors, shown, strict=True)
    )
    totals = sum(map(len, candidates)), len(target), budget
    hidden = sum(map(len, vectors)) - sum(map(len, shown))
    return SelectionMap(pool, wanted, selected, totals, explained, hidden, space, domains)


def _smallest_hashes(ids: Sequence[pa.Array], rows: int) -> np.ndarray:
    """Return ``[k, 2]`` int64 pairs (shard, row) of the smallest hashes, smallest first."""
    hashes, where = np.empty(0, np.uint64), np.empty((0, 2), np.int64)
    for number, shard in enumerate(ids):
        own = np.column_stack([np.full(len(shard), number), np.arange(len(shard))])
        hashes = np.concatenate([hashes, hash_strings(shard)])
        where = np.concatenate([where, own])
        first = np.argsort(hashes, kind="stable")[:rows]
        hashes, where = hashes[first], where[first]
    return where


def _principal_plane(
    sides: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Compute the plane in which two sides, weighted equally, vary most.

    Args:
        sides: float64 ``[n, d]`` each.

    Returns:
        The centre ``[d]``, the components ``[d, 2]``, and the share of the variance that they
        have; if nothing varies, components of zeros and ``None``.
    """
    centre = np.mean([rows.mean(axis=0) for rows in sides], axis=0)
    weighted = np.concatenate([(rows - centre) / np.sqrt(len(rows)) for rows in sides])
    plane = np.zeros((weighted.shape[1], 2))
    variance = float(np.square(weighted).sum())
    # What rounding leaves of equal rows is no variance.
    if variance <= np.finfo(np.float32).eps ** 2 * max(1.0, float(np.square(centre).sum())):
        return centre, plane, None
    # The two largest of d eigenvalues: a decomposition of the rows would cost more.
    values, axes = np.linalg.eigh(weighted.T @ weighted)
    rank = min(2, len(values))
    best = axes[:, ::-1][:, :rank]
    # Signs are free: the largest entry is positive, so that no map is mirrored by chance.
    largest = best[np.abs(best).argmax(axis=0), np.arange(rank)]
    plane[:, :rank] = best * np.where(largest < 0, -1, 1)
    return centre, plane, float(values[::-1][:rank].sum()) / variance
