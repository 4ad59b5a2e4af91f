"""The rows that are left out, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.pool import counted
from gotd.data.rows import Rows
from gotd.storage.progress import tick

FILE = "left-out.parquet"
FILTERED, OVERLAP, DUPLICATE, NEAR_DUPLICATE = "filtered", "overlap", "duplicate", "near duplicate"
REASONS = (FILTERED, OVERLAP, DUPLICATE, NEAR_DUPLICATE)
"""In the order in which rows are left out; a row has the first reason that holds."""

ROWS_AT_ONCE = 8192


class LeftOut:
    """The rows of a pool that are left out so far.

    Args:
        shards: The pool.
    """

    def __init__(self, shards: Sequence[Rows]) -> None:
        self.shards = shards
        self.ends = np.cumsum([len(shard) for shard in shards])
        self._reason = np.zeros(self.ends[-1], dtype=np.int8)  # 0: the row competes
        self._because: dict[int, str] = {}
        self._shared: dict[int, str] = {}
        self._repeats: list[np.ndarray] = []

    @property
    def competes(self) -> np.ndarray:
        """Return for each row of the pool, over all shards, whether it is left: bool ``[n]``."""
        return self._reason == 0

    def add(self, rows: np.ndarray, reason: str, because: Sequence[str] | str) -> None:
        """Add rows that are left out.

        Args:
            rows: ``[k]`` positions over all shards.
            reason: One of `REASONS`.
            because: ``[k]`` what each row does not fulfil, or one text for all of this reason.
        """
        code = REASONS.index(reason) + 1
        self._reason[rows] = code
        if isinstance(because, str):
            self._shared[code] = because
        else:
            self._because.update(zip(rows.tolist(), because, strict=True))

    def add_repeats(self, rows: np.ndarray, of: np.ndarray, reason: str) -> None:
        """Add rows that repeat other rows; 16 bytes of memory each.

        Args:
            rows: ``[k]`` positions over all shards.
            of: ``[k]`` positions of what they repeat.
            reason: One of `REASONS`.
        """
        self._reason[rows] = REASONS.index(reason) + 1
        self._repeats.append(np.column_stack([rows, of]))

    def names(self, rows: np.ndarray) -> list[str]:
        """Return the ids of rows at positions over all shards."""
        found = np.empty(len(rows), dtype=object)
        numbers = np.searchsorted(self.ends, rows, side="right")
        for number in np.unique(numbers).tolist():
            shard, own = self.shards[number], np.flatnonzero(numbers == number)
            within = rows[own] - (self.ends[number] - len(shard))
            found[own] = shard.ids.take(pa.array(within)).to_pylist()
        return found.tolist()

    def texts(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the first row, and texts, of blocks of the pool."""
        for end, shard in zip(self.ends, self.shards, strict=True):
            for start in range(0, len(shard), ROWS_AT_ONCE):
                texts = shard.texts[start : start + ROWS_AT_ONCE].to_pylist()
                tick(len(texts))
                yield int(end) - len(shard) + start, texts

    def write(self, folder: Path) -> None:
        """Write ``left-out.parquet``: ``shard``, ``row``, ``id``, ``reason``, ``because``."""
        repeats = np.concatenate([*self._repeats, np.empty((0, 2), np.int64)])
        repeats = repeats[np.argsort(repeats[:, 0])]
        with pq.ParquetWriter(folder / FILE, _SCHEMA, compression="zstd") as file:
            for number, (end, shard) in enumerate(zip(self.ends, self.shards, strict=True)):
                first = int(end) - len(shard)
                rows = np.flatnonzero(self._reason[first:end])
                codes = self._reason[first + rows]
                own = repeats[slice(*np.searchsorted(repeats[:, 0], [first, end]))]
                repeated = dict(zip(own[:, 0].tolist(), self.names(own[:, 1]), strict=True))
                because = [
                    self._shared.get(code) or self._because.get(row) or f"repeats {repeated[row]}"
                    for row, code in zip((first + rows).tolist(), codes.tolist(), strict=True)
                ]
                reasons = [REASONS[code - 1] for code in codes]
                columns = [np.full(len(rows), number), rows, shard.ids.take(pa.array(rows))]
                file.write_table(pa.table([*columns, reasons, because], schema=_SCHEMA))


TEXT = pa.field("text", pa.large_string())
_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("reason", pa.string()),
        ("because", pa.string()),
    ]
)


def reasons(folder: Path) -> dict[str, int]:
    """Count the rows that are left out, by reason; empty if there are none."""
    found = counted(pq.read_table(folder / FILE, columns=["reason"])["reason"])
    return {reason: found[reason] for reason in REASONS if reason in found}


def masks(folder: Path, rows: Sequence[int]) -> list[np.ndarray]:
    """Return for each shard which rows are left: bool ``[n]``.

    Args:
        folder: That `LeftOut.write` filled.
        rows: Rows of each shard.
    """
    table = pq.read_table(folder / FILE, columns=["shard", "row"])
    kept = [np.ones(count, dtype=bool) for count in rows]
    for number in pc.unique(table["shard"]).to_pylist():
        kept[number][table.filter(pc.equal(table["shard"], number))["row"].to_numpy()] = False
    return kept


REMOVED = pa.schema([*[_SCHEMA.field(n) for n in ("id", "reason", "because")], TEXT])
"""Columns of `removed`."""


def removed(folder: Path, shards: Sequence[Rows]) -> Iterator[pa.Table]:
    """Yield ``id``, ``reason``, ``because`` and ``text`` of the rows that are left out."""
    with pq.ParquetFile(folder / FILE) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE):
            table = pa.Table.from_batches([batch])
            texts = [
                shards[shard].texts[row].as_py()
                for shard, row in zip(
                    *(table[n].to_pylist() for n in ("shard", "row")), strict=True
                )
            ]
            table = table.select(["id", "reason", "because"])
            if table.num_rows:
                yield table.append_column(TEXT, pa.array(texts, TEXT.type))
