"""Read files of rows, whatever their format, or raise one line that says what is wrong.

`stream` yields the text columns in pieces, for files of any size. `read_table` reads all
columns with their types, for the splits of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gotd.data.base import BYTES_PER_PIECE, ROWS_PER_PIECE, Part
from gotd.data.columns import ORIGIN, Columns, strings
from gotd.data.files import (
    JSONL_SUFFIXES,
    SUFFIXES,
    check_file,
    errors_of,
    no_rows,
    stem,
    text_lines,
)
from gotd.data.json_lines import json_objects, read_json_lines, table_of, text_rows

JSONL_VERSION = 2
"""From 2 on a domain counts on whatever line it first comes, not only on the first."""

CSV_BLOCK_BYTES = 16 * 2**20
"""Also the longest row of a CSV file."""
CSV_NUMBERS = ("label", "idx")
"""The CSV columns that may be numbers; in all others ``"2020"`` stays a text."""


def stream(path: Path, columns: Columns, label: str) -> Iterator[pa.Table]:
    """Read a file piece by piece.

    Args:
        path: A file of a known format.
        columns: Which columns to read.
        label: What numbered ids begin with.

    Yields:
        Tables of ``id`` (string), ``text`` (large_string) and ``domain`` (string), in
        file order. Rows without a visible character are among them.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        ValueError: If the format is unknown, the file is empty, cut off or damaged, a
            column is missing, or a value is null, no string or not UTF-8; names the row.
    """
    check_file(path)
    first_row = 1
    for piece in _raw_pieces(path, columns):
        if piece.num_rows:
            yield columns.uniform(piece, str(path), label, stem(path), first_row)
        first_row += piece.num_rows
    if first_row == 1:
        raise no_rows(path)


def original_rows(part: Part) -> Iterator[pa.Table]:
    """Yield the rows of a part as they were given, all columns and nested values included.

    Row i over all tables is row i over all tables of ``part.pieces()``, rows without text
    included. The schema may differ between tables: see `gotd.data.json_lines.table_of`.

    Args:
        part: A file, a table in memory or a data set on the Hub.

    Raises:
        TypeError: If the part is of another kind, which has no original rows.
        ValueError: As ``part.pieces()``.
    """
    originals = getattr(part, "originals", None)
    if originals is None:
        raise TypeError(f"{part.label}: a {type(part).__name__} has no original rows")
    return originals()


def all_columns(path: Path) -> Iterator[pa.Table]:
    """Yield all columns of a file, in the order of `stream`; see `original_rows`."""
    check_file(path)
    if path.name.endswith(".parquet"):
        return _parquet(path, None)
    if path.name.endswith(".csv"):
        return _csv_texts(path, _csv_header(path))
    if path.name.endswith(JSONL_SUFFIXES):
        lines = (record for _, record in json_objects(path))
        return map(table_of, _pieces(lines, lambda record: len(str(record))))
    return _plain(path, Columns())


def read_table(path: Path) -> pa.Table:
    """Read all columns of a file.

    Returns:
        The rows in file order, at least one; the schema's metadata names the file.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        ValueError: If the format is unknown, the file is empty, cut off or damaged, or a
            line cannot be read; names the line where there is one.
    """
    check_file(path, SUFFIXES)
    if path.name.endswith(".parquet"):
        with errors_of(path, *_PARQUET), pq.ParquetFile(path) as file:
            table = file.read()
    elif path.name.endswith(".csv"):
        table = _typed_csv(path)
    else:
        table = read_json_lines(path)
    if table.num_rows == 0:
        raise no_rows(path)
    return table.replace_schema_metadata({ORIGIN: str(path).encode()})


def column_names(path: Path) -> list[str]:
    """Return the columns of a file, of JSON lines those of the first; no other row is read.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        ValueError: If it is damaged or has no rows.
    """
    check_file(path, SUFFIXES)
    if path.name.endswith(".parquet"):
        with errors_of(path, *_PARQUET):
            return pq.read_schema(path).names
    if path.name.endswith(".csv"):
        return _csv_header(path)
    for _, record in json_objects(path):
        return list(record)
    raise no_rows(path)


def _raw_pieces(path: Path, columns: Columns) -> Iterator[pa.Table]:
    """Yield the columns to read, as they are in the file."""
    if path.name.endswith(".parquet"):
        return _parquet(path, columns)
    if path.name.endswith(".csv"):
        return _csv_texts(path, columns.among(_csv_header(path), str(path)))
    return _jsonl(path, columns) if path.name.endswith(JSONL_SUFFIXES) else _plain(path, columns)


# Parquet --------------------------------------------------------------------------------

_PARQUET = "cut off, damaged or not Parquet", "copy it again"


def _parquet(path: Path, columns: Columns | None) -> Iterator[pa.Table]:
    with errors_of(path, *_PARQUET), pq.ParquetFile(path) as file:
        wanted = columns.among(file.schema_arrow.names, str(path)) if columns else None
        for batch in file.iter_batches(_rows_per_batch(file), columns=wanted):
            yield pa.Table.from_batches([batch])


def _rows_per_batch(file: pq.ParquetFile) -> int:
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    heaviest = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=1)
    return int(min(ROWS_PER_PIECE, max(1, BYTES_PER_PIECE // max(1, heaviest))))


# CSV ------------------------------------------------------------------------------------

_CSV = (
    "not CSV in UTF-8 with one header line",
    "save it again as UTF-8, with texts in double quotes",
)
_CSV_READING = pa_csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES)
_CSV_PARSING = pa_csv.ParseOptions(newlines_in_values=True)


def _csv_header(path: Path) -> list[str]:
    with errors_of(path, *_CSV), pa_csv.open_csv(path, _CSV_READING, _CSV_PARSING) as file:
        return file.schema.names


def _csv_texts(path: Path, names: list[str]) -> Iterator[pa.Table]:
    """Yield columns as strings that are not validated: Arrow would not name the row."""
    converting = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.binary()),
        include_columns=names,
        strings_can_be_null=False,
    )
    with (
        errors_of(path, *_CSV),
        pa_csv.open_csv(path, _CSV_READING, _CSV_PARSING, converting) as file,
    ):
        for batch in file:
            columns = [column.view(pa.string()) for column in batch.columns]
            yield pa.table(columns, names=batch.schema.names)


def _typed_csv(path: Path) -> pa.Table:
    names = _csv_header(path)
    pieces = list(_csv_texts(path, names))
    if not pieces:
        raise no_rows(path)
    table = pa.concat_tables(pieces)
    columns = {name: strings(table, name, str(path)) for name in names}
    for name in CSV_NUMBERS:
        if name in columns:
            columns[name] = _numbers(columns[name])
    return pa.table(columns)


def _numbers(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to numbers if it holds nothing else; an empty text becomes null."""
    values = pc.if_else(pc.equal(texts, ""), None, texts)
    for kind in (pa.int64(), pa.float64()):
        try:
            return values.cast(kind)
        except pa.ArrowInvalid:
            continue
    return texts


# Lines ----------------------------------------------------------------------------------


def _jsonl(path: Path, columns: Columns) -> Iterator[pa.Table]:
    def size(row: dict[str, str | None]) -> int:
        return sum(len(value or "") for value in row.values())

    for rows in _pieces(text_rows(path, columns), size):
        schema = pa.schema([(name, pa.string()) for name in rows[0]])
        yield pa.Table.from_pylist(rows, schema)


def _plain(path: Path, columns: Columns) -> Iterator[pa.Table]:
    (name, *more) = columns.text
    if more or columns.id or columns.domain:
        raise ValueError(
            f"{path} is plain text, one passage a line, and has no columns; leave "
            "the names of columns out or give Parquet, JSON lines or CSV"
        )
    lines = (line.rstrip("\r\n") for _, line in text_lines(path))
    for group in _pieces(lines, len):
        yield pa.table({name: group})


def _pieces(rows: Iterable[Any], size: Callable[[Any], int]) -> Iterator[list[Any]]:
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
