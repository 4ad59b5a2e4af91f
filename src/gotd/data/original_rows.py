"""Chosen rows with every column of their sources, copied in one pass and read by rank.

Memory is a block of rows, and a few numbers for each chosen row. Records have the values of
the sources. In a table each column has one type; values without a common type become JSON text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import SCHEMA, Part, check_unchanged
from gotd.data.column_types import ColumnTypes, records_of
from gotd.data.readers import original_rows
from gotd.storage.progress import tick

MOST_OPEN = 16
"""Copied files that are open at once. Rows are read file by file, so more would save little."""


class OriginalRows:
    """The rows of some ids, as they are in their sources.

    Args:
        parts: The sources.
        identities: Their identities when the pool was written.
        ids: ``[k]`` ids of the pool; one may repeat.
        folder: Empty folder for the copies.

    Raises:
        ValueError: If a source has changed since, or lacks a row; names it.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        identities: Sequence[dict[str, Any]],
        ids: pa.Array,
        folder: Path,
    ) -> None:
        wanted = pc.unique(ids)
        self._of = pc.index_in(ids, value_set=wanted).to_numpy()
        self._folder = folder
        self._schemas: list[pa.Schema] = []  # of each copied file
        self.types = ColumnTypes()
        # File, batch and row of each wanted id.
        self._place = np.full((3, len(wanted)), -1, dtype=np.int64)
        self._open = lru_cache(MOST_OPEN)(self._opened)
        for part, identity in zip(parts, identities, strict=True):
            if (self._place[0] >= 0).all():
                break
            check_unchanged(part, identity)
            self._copy(part, wanted)
            check_unchanged(part, identity)
        missing = np.flatnonzero(self._place[0] < 0)
        if len(missing):
            raise ValueError(
                f"row {wanted[int(missing[0])].as_py()!r} is no longer in the candidates; "
                "run the same command again"
            )

    def __len__(self) -> int:
        return len(self._of)

    @property
    def schema(self) -> pa.Schema:
        """Return the columns as a table has them, in the order in which they first occur."""
        return self.types.schema

    def records(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return the rows of some places of the ranking, as objects."""
        found: list[dict[str, Any]] = [{}] * (stop - start)
        for positions, batch in self._batches(start, stop):
            for position, record in zip(positions, records_of(batch), strict=True):
                found[position] = record
        return found

    def table(self, start: int, stop: int) -> pa.Table:
        """Return the rows of some places of the ranking, with the columns of `schema`."""
        tables, order = [self.schema.empty_table()], []
        for positions, batch in self._batches(start, stop):
            order.append(positions)
            tables.append(self.types.uniform(batch))
        back = np.argsort(np.concatenate(order))
        return pa.concat_tables(tables).combine_chunks().take(pa.array(back))

    def _copy(self, part: Part, wanted: pa.Array) -> None:
        """Copy the wanted rows of a part; pieces of one schema share a file."""
        writer, batches = None, 0
        try:
            for ids, rows in rows_with_ids(part):
                tick(rows.num_rows)
                index = pc.index_in(ids, value_set=wanted)
                chosen = np.flatnonzero(index.is_valid())
                if not len(chosen):
                    continue
                batch = self.types.note(rows.take(pa.array(chosen)), part.label)
                if writer is None or batch.schema != self._schemas[-1]:
                    if writer is not None:
                        writer.close()
                    writer = pa.ipc.new_file(self._file(len(self._schemas)), batch.schema)
                    batches = 0
                    self._schemas.append(batch.schema)
                writer.write_batch(batch)
                place = index.drop_null().to_numpy()
                self._place[0, place], self._place[1, place] = len(self._schemas) - 1, batches
                self._place[2, place] = np.arange(len(chosen))
                batches += 1
        finally:
            if writer is not None:
                writer.close()

    def _file(self, number: int) -> str:
        return str(self._folder / f"originals-{number:05d}.arrow")

    def _opened(self, number: int) -> pa.ipc.RecordBatchFileReader:
        return pa.ipc.open_file(pa.memory_map(self._file(number)))

    def _batches(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Yield places from ``start`` on and their rows, batch by batch of the copies."""
        file, batch, row = self._place[:, self._of[start:stop]]
        order = np.lexsort((row, batch, file))
        ends = np.flatnonzero(np.diff(file[order]) | np.diff(batch[order])) + 1
        for group in np.split(order, ends):
            if len(group):
                reader = self._open(int(file[group[0]]))
                yield group, reader.get_batch(int(batch[group[0]])).take(pa.array(row[group]))


def rows_with_ids(part: Part) -> Iterator[tuple[pa.Array, pa.Table]]:
    """Yield the ids that the pool gives to rows, and the rows with all their columns."""
    for read, rows in read_with_originals(part):
        yield read["id"].combine_chunks(), rows


def read_with_originals(part: Part) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield ``id``, ``text`` and ``domain`` of rows as the pool has them, and all their columns.

    Rows without text are among them.

    Raises:
        ValueError: If the part has changed while it was read.
    """
    pieces, held = part.pieces(), SCHEMA.empty_table()
    for rows in original_rows(part):
        while len(held) < rows.num_rows:
            more = next(pieces, None)
            if more is None:
                raise ValueError(f"{part.label} has changed while it was read; run it again")
            held = pa.concat_tables([held, more.select(SCHEMA.names).cast(SCHEMA)])
        yield held.slice(0, rows.num_rows).combine_chunks(), rows
        held = held.slice(rows.num_rows)
