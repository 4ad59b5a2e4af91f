"""Files with columns, Parquet, Arrow, CSV and TSV: their columns, and their rows in pieces."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gotd.data.base import BYTES_PER_PIECE, ROWS_PER_PIECE
from gotd.data.files import errors_of, kind_of, open_bytes
from gotd.data.row_groups import RowGroups, ranges_of

CSV_BLOCK_BYTES = (16 * 2**20, 256 * 2**20, 2**31 - 1)
"""Bytes of a CSV file that are read together: a row must fit, so more where one does not."""

_PARQUET = "cut off, damaged or not Parquet", "copy it again"
_ARROW = "cut off, damaged or not an Arrow file", "copy it again, or write it with pyarrow.ipc"
_CSV = (
    "not {} in UTF-8 with one header line",
    "save it again as UTF-8, with texts in double quotes",
)


def names_of(path: Path) -> list[str]:
    """Return the columns of a file.

    Raises:
        ValueError: If it is damaged.
    """
    kind = kind_of(path)
    if kind == "parquet":
        with errors_of(path, *_PARQUET):
            return pq.read_schema(path).names
    if kind == "arrow":
        with errors_of(path, *_ARROW), pa.memory_map(str(path)) as source:
            return _ipc(source).schema.names
    with _csv_errors(path):
        for block in CSV_BLOCK_BYTES:
            try:
                with _open_csv(path, block) as file:
                    return file.schema.names
            except pa.ArrowInvalid as error:
                if not _too_long(error, block):
                    raise
    raise AssertionError("the last block size raises")


def table_pieces(
    path: Path, names: Sequence[str] | None = None, groups: RowGroups | None = None
) -> Iterator[pa.Table]:
    """Yield some columns as they are in the file, those of CSV as strings.

    Strings are not validated: Arrow would not name the row.

    Args:
        path: A file of Parquet, Arrow, CSV or TSV.
        names: The columns; ``None``: all.
        groups: The row groups of a Parquet file; ``None``: all.

    Raises:
        ValueError: If it is cut off or damaged.
    """
    kind = kind_of(path)
    if kind == "parquet":
        return _parquet(path, names, groups)
    return _arrow(path, names) if kind == "arrow" else _csv(path, names or names_of(path))


def grouped(rows: Iterable[Any], size: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Group rows up to so many rows or characters."""
    piece, held = [], 0
    for row in rows:
        piece.append(row)
        held += size(row)
        if len(piece) >= ROWS_PER_PIECE or held >= BYTES_PER_PIECE:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


def sliced(table: pa.Table) -> Iterator[pa.Table]:
    """Yield slices of a table of so many rows or bytes."""
    heaviest = table.nbytes / max(1, table.num_rows)
    rows = int(min(ROWS_PER_PIECE, max(1, BYTES_PER_PIECE // max(1, heaviest))))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


# Parquet --------------------------------------------------------------------------------


def read_parquet(path: Path) -> pa.Table:
    """Read all of a Parquet file.

    Raises:
        ValueError: If it is cut off or damaged.
    """
    with errors_of(path, *_PARQUET), pq.ParquetFile(path) as file:
        return file.read()


def row_groups(path: Path) -> list[RowGroups]:
    """Return the ranges of row groups of a Parquet file; their pieces are those of the file.

    Raises:
        ValueError: If it is damaged.
    """
    with errors_of(path, *_PARQUET):
        return list(ranges_of(pq.read_metadata(path)))


def _parquet(
    path: Path, names: Sequence[str] | None, groups: RowGroups | None
) -> Iterator[pa.Table]:
    with errors_of(path, *_PARQUET), pq.ParquetFile(path) as file:
        columns = None if names is None else list(names)
        rows = _rows_per_batch(file)
        # Range by range, also where all are read: of two bad rows in a piece, which is reported
        # depends on the piece, and must not depend on who reads.
        for own in ranges_of(file.metadata) if groups is None else [groups]:
            numbers = list(range(own.start, own.stop))
            for batch in file.iter_batches(rows, row_groups=numbers, columns=columns):
                yield pa.Table.from_batches([batch])


def _rows_per_batch(file: pq.ParquetFile) -> int:
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    heaviest = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=1)
    return int(min(ROWS_PER_PIECE, max(1, BYTES_PER_PIECE // max(1, heaviest))))


# Arrow ----------------------------------------------------------------------------------


def _arrow(path: Path, names: Sequence[str] | None) -> Iterator[pa.Table]:
    with errors_of(path, *_ARROW), pa.memory_map(str(path)) as source:
        reader = _ipc(source)
        if isinstance(reader, pa.RecordBatchFileReader):
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            batches = iter(reader)
        for batch in batches:
            batch.validate(full=True)  # offsets from a damaged file would be read as they are
            table = pa.Table.from_batches([batch])
            yield from sliced(table if names is None else table.select(list(names)))


def _ipc(source: pa.MemoryMappedFile) -> Any:
    """Return a reader of the file format, or else of the stream format."""
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


# CSV and TSV ----------------------------------------------------------------------------


def _csv(path: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    rows = 0
    for table in _csv_rows(path, names):
        yield table
        rows += table.num_rows
    if rows:
        _check_quotes(path)


def _csv_rows(path: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    converting = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.binary()),
        include_columns=list(names),
        strings_can_be_null=False,
    )
    done = 0
    with _csv_errors(path):
        for block in CSV_BLOCK_BYTES:
            seen = 0
            try:
                with _open_csv(path, block, converting) as file:
                    for batch in file:
                        # Rows that came with a smaller block come once.
                        new = batch.slice(min(batch.num_rows, max(0, done - seen)))
                        seen += batch.num_rows
                        done = max(done, seen)
                        columns = [column.view(pa.string()) for column in new.columns]
                        yield from sliced(pa.table(columns, names=new.schema.names))
                return
            except pa.ArrowInvalid as error:
                if not _too_long(error, block):
                    raise


_QUOTED = rb'"[^"]*+(?:""[^"]*+)*+"'
_FIELDS = {
    mark: re.compile(
        rb'(?:[^"]++|(?<![\r\n%b])"|(?<=[\r\n%b])%b(?=[\r\n%b]))*+(?P<bad>%b[^"])?'
        % (mark, mark, _QUOTED, mark, _QUOTED)
    )
    for mark in (b",", b"\t")
}
"""Fields without quotes, quotes inside of plain fields, and quoted fields; by what is between
two columns. Then a quoted text with more text after it, if there is one."""
_OPENING = {mark: re.compile(rb'(?:\A|[\r%b])"' % mark) for mark in _FIELDS}
"""Finds the quote that begins a field of a line."""


def _check_quotes(path: Path) -> None:
    """Raise if a quoted text is not closed where its field ends, since it may hide rows."""
    mark = b"\t" if kind_of(path) == "tsv" else b","
    if _well_quoted(path, mark):
        return
    row, quoted = 0, False
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            end, quoted = _text_after_quote(line, mark, quoted)
            if end is not None and line[end - 1 : end] == b"\\":
                raise ValueError(
                    f"{path} row {row}: a double quote inside a text is written with a backslash; "
                    "write it twice (in Spark the option escape='\"'), or give JSON lines"
                )
            if end is not None:
                raise ValueError(
                    f"{path} row {row}: more text follows the double quote that closes a text, in "
                    f"line {number} of the file, so a quote may be missing and hide the rows "
                    "before it; close each text where its field ends, and write quotes in it twice"
                )
            row += not quoted
    if quoted:
        raise ValueError(
            f"{path} row {row}: a double quote is opened and never closed, so all lines after it "
            "are one text; close it, or write it twice inside a text"
        )


def _well_quoted(path: Path, mark: bytes) -> bool:
    """Return whether each quoted text is closed where its field ends; this is fast.

    Args:
        path: A file of CSV or TSV.
        mark: What is between two columns.
    """
    held = b"\n"  # begins with the byte before what is looked at
    with open_bytes(path) as file:
        part = file.read(2**20).removeprefix(codecs.BOM_UTF8)
        while True:
            held += part or b"\n"
            found = _FIELDS[mark].match(held, 1)
            assert found is not None  # it also matches nothing
            if found["bad"] or not part:
                return found.end() == len(held) and not found["bad"]
            held = held[found.end() - 1 :]  # from a text on that goes on in the next part
            part = file.read(max(2**20, len(held)))


def _text_after_quote(line: bytes, mark: bytes, quoted: bool) -> tuple[int | None, bool]:
    """Return the quote that closes a text with text after it, and whether a text goes on.

    Args:
        line: A line of the file.
        mark: What is between two columns.
        quoted: Whether the line begins inside a quoted text.
    """
    at, opening = 0, _OPENING[mark]
    while True:
        if not quoted:
            found = opening.search(line, at)
            if found is None:
                return None, False
            at = found.end()
        end = line.find(b'"', at)
        while end >= 0 and line[end + 1 : end + 2] == b'"':
            end = line.find(b'"', end + 2)
        if end < 0:
            return None, True
        at, quoted = end + 1, False
        if line[at : at + 1] not in (mark, b"\r", b"\n", b""):
            return end, False


def _too_long(error: pa.ArrowInvalid, block: int) -> bool:
    """Return whether a row did not fit and a larger block is left."""
    return "straddling" in str(error) and block < CSV_BLOCK_BYTES[-1]


def _open_csv(
    path: Path, block: int, converting: pa_csv.ConvertOptions | None = None
) -> pa_csv.CSVStreamingReader:
    plain = path.name.endswith(tuple(f".{kind}" for kind in ("csv", "tsv")))
    return pa_csv.open_csv(
        path if plain else pa.PythonFile(open_bytes(path), "r"),
        pa_csv.ReadOptions(use_threads=False, block_size=block),
        pa_csv.ParseOptions(
            newlines_in_values=True, delimiter="\t" if kind_of(path) == "tsv" else ","
        ),
        converting,
    )


def _csv_errors(path: Path) -> Any:
    problem, remedy = _CSV
    return errors_of(path, problem.format(kind_of(path).upper()), remedy)
