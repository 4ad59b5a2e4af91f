"""Ranges of the row groups of a Parquet file, each of which is read by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq

RANGE_ROWS = 1 << 18
RANGE_BYTES = 256 * 2**20
"""A range ends at so many rows or bytes before compression, whichever comes first.

These are eight shards of rows, or two of bytes. Reading them takes seconds: much longer than to
start a task and to flush its files, and little that is lost with a worker. A file of 100 million
rows has 400 ranges. A row group is never cut, so one that is larger is a range.
"""


@dataclass(frozen=True)
class RowGroups:
    """Consecutive row groups of a file.

    Args:
        start: Number of the first, from 0.
        stop: Number after the last.
        first_row: Number in the file of their first row, from 1.
    """

    start: int
    stop: int
    first_row: int


def ranges_of(metadata: pq.FileMetaData) -> Iterator[RowGroups]:
    """Yield ranges that hold all row groups of a file, in order; a file of no group has none."""
    start, first_row, rows, size = 0, 1, 0, 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows, size = rows + group.num_rows, size + group.total_byte_size
        if rows >= RANGE_ROWS or size >= RANGE_BYTES or number + 1 == metadata.num_row_groups:
            yield RowGroups(start, number + 1, first_row)
            start, first_row, rows, size = number + 1, first_row + rows, 0, 0
