"""The first rows of each part, to try something before all rows are read."""

from __future__ import annotations

import csv
import io
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.base import Part
from gotd.data.files import kind_of
from gotd.data.inputs import File, InMemory
from gotd.data.json_lines import json_records
from gotd.data.readers import original_rows

SAMPLE_BYTES = 16 * 2**20
"""So much of a file without a count of rows is read to estimate the count."""


@dataclass(frozen=True)
class HeadRows:
    """The first rows of a part; it is identified by name and number alone, not by content.

    Args:
        part: The part.
        rows: How many.
    """

    part: Part
    rows: int

    @property
    def label(self) -> str:
        """Return the label of the part."""
        return self.part.label

    def identity(self) -> dict[str, Any]:
        """Return the label and the number of rows."""
        return {"head": self.label, "rows": self.rows}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the first rows as the part does."""
        yield from _first(self.part.pieces(), self.rows)

    def originals(self) -> Iterator[pa.Table]:
        """Yield all columns of the first rows."""
        yield from _first(original_rows(self.part), self.rows)


def _first(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    for table in tables:
        yield table.slice(0, rows)
        rows -= table.num_rows
        if rows <= 0:
            return


@dataclass(frozen=True)
class Size:
    """How much a part holds.

    Args:
        rows: Its rows.
        data_bytes: Bytes on the disk, or in memory.
        exact: Whether the rows were counted, not estimated from the first ones.
    """

    rows: int
    data_bytes: int
    exact: bool


def size_of(part: Part) -> Size:
    """Return how many rows and bytes a part has, from its index or from its first rows.

    Raises:
        ValueError: If neither is known, as of a stream from the Hub.
    """
    if isinstance(part, InMemory):
        return Size(part.table.num_rows, part.table.nbytes, True)
    if not isinstance(part, File):
        raise ValueError(
            f"{part.label}: how much a stream holds is not known before it is read; plan with "
            "files, such as a part of it"
        )
    held = part.path.stat().st_size
    if kind_of(part.path) == "parquet":
        return Size(pq.read_metadata(part.path).num_rows, held, True)
    if kind_of(part.path) == "arrow":
        return Size(sum(table.num_rows for table in original_rows(part)), held, True)
    with part.path.open("rb") as raw:
        packed = _COMPRESSED.get(part.path.suffix)
        file: Any = packed(raw) if packed else raw
        head = file.read(SAMPLE_BYTES)
        read = raw.tell() / held  # of a compressed file some more was read than was unpacked
        ends = len(head) < SAMPLE_BYTES
    if ends and kind_of(part.path) == "json":
        return Size(sum(1 for _ in json_records(part.path)), held, True)
    rows = max(1, _rows_in(part, head))
    return Size(rows, held, True) if ends else Size(max(1, round(rows / read)), held, False)


_COMPRESSED: dict[str, Any] = {
    ".gz": lambda raw: pa.CompressedInputStream(raw, "gzip"),
    ".zst": lambda raw: pa.CompressedInputStream(raw, "zstd"),
    ".bz2": lambda raw: pa.CompressedInputStream(raw, "bz2"),
    ".xz": lzma.open,
}


def _rows_in(part: File, head: bytes) -> int:
    """Count the rows in the first bytes of a file."""
    kind = kind_of(part.path)
    if kind == "json":
        first = [len(json.dumps(row)) + 2 for _, row in islice(json_records(part.path), 2000)]
        return round(len(head) * len(first) / max(1, sum(first)))
    if kind in ("csv", "tsv"):  # a text may hold line ends
        lines = io.StringIO(head.decode("utf-8", "replace"), newline="")
        return sum(1 for row in csv.reader(lines, delimiter="\t" if kind == "tsv" else ",")) - 1
    return sum(1 for line in head.splitlines() if line.strip())
