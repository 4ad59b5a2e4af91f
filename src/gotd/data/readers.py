"""Read files of rows, whatever their format, or raise one line that says what is wrong.

`stream` yields the texts in pieces, for files of any size. `original_rows` yields all columns
of the same rows. `read_table` reads all columns with their types, for the splits of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import Part
from gotd.data.columns import ORIGIN, Columns, NoShape, strings
from gotd.data.files import SUFFIXES, check_file, is_utf8, kind_of, no_rows, stem, text_lines
from gotd.data.json_lines import json_records, read_json_lines, table_of, text_rows
from gotd.data.row_groups import RowGroups
from gotd.data.row_text import Missing, PlainText, Row, TextOf
from gotd.data.table_files import grouped, names_of, read_parquet, table_pieces
from gotd.data.uniform import numbered_ids, rows_of, uniform_tables

JSONL_VERSION = 2
"""From 2 on a domain counts on whatever line it first comes, not only on the first."""

CSV_NUMBERS = ("label", "idx")
"""The CSV columns that may be numbers; in all others ``"2020"`` stays a text."""
SAMPLE_ROWS, SAMPLE_CHARS = 100, 2**24
"""The shape of rows is found in so many rows or characters at a time."""
JSON_KINDS = ("jsonl", "json")


def stream(
    path: Path, columns: Columns, label: str, domain: str | None = None
) -> Iterator[pa.Table]:
    """Read a file piece by piece.

    Args:
        path: A file of a known format.
        columns: Which columns to read.
        label: What numbered ids begin with.
        domain: Domain of rows that have none; ``None``: the file's name.

    Yields:
        Tables of ``id`` (string), ``text`` (large_string) and ``domain`` (string), in
        file order. Rows without a visible character are among them.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        ValueError: If the format is unknown, the file is empty, cut off or damaged, a
            column is missing, or a value is of another kind or not UTF-8; names the row.
    """
    shape, where = shape_of(path, columns), str(path)
    domain = domain or stem(path)
    if kind_of(path) in JSON_KINDS:
        tables = _json_stream(path, columns, shape, label, domain)
    else:
        pieces = _text_columns(path, columns, shape)
        tables = uniform_tables(pieces, columns, shape, where, label, domain)
    rows = 0
    for table in tables:
        rows += table.num_rows
        yield table
    if not rows:
        raise no_rows(path)


def stream_row_groups(
    path: Path,
    columns: Columns,
    label: str,
    domain: str | None,
    groups: RowGroups,
    missing: Missing,
) -> Iterator[pa.Table]:
    """Read some row groups of a Parquet file, with the tables that `stream` yields of them.

    Args:
        path: The file.
        columns: See `stream`.
        label: See `stream`.
        domain: See `stream`.
        groups: The row groups.
        missing: Counts missing values. They are reported when all row groups are counted.

    Raises:
        ValueError: As `stream` does.
    """
    shape, where = shape_of(path, columns), str(path)
    pieces = table_pieces(path, columns.among(names_of(path), where, shape.columns), groups)
    return uniform_tables(
        pieces, columns, shape, where, label, domain or stem(path), groups.first_row, missing
    )


def shape_of(path: Path, columns: Columns) -> TextOf:
    """Return how the rows of a file become texts, found in its first rows.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        NoRows: If the file is empty.
        ValueError: If its columns make no text, or a column that was named is missing.
    """
    check_file(path)
    status = path.stat()
    state = status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns
    return _shape_of(str(path), state, columns)


@cache
def _shape_of(path: str, state: tuple[int, ...], columns: Columns) -> TextOf:
    problem = None
    if kind_of(Path(path)) == "text":
        return _lines_shape(path, columns)
    for names, rows in _samples(Path(path)):
        try:
            shape = columns.shape(names, rows, path)
            columns.among(names, path, shape.columns)
        except NoShape as error:
            problem = problem or error
        else:
            return shape
    raise problem or no_rows(Path(path))


def _lines_shape(path: str, columns: Columns) -> PlainText:
    same = {"format": columns.format, "role": columns.role, "text_alone": columns.text_alone}
    if columns != Columns((columns.text[0],), **same) or columns.format not in (None, "text"):
        raise ValueError(
            f"{path} is plain text, one passage a line, and has no columns; leave "
            "the names of columns out or give Parquet, JSON lines or CSV"
        )
    return PlainText(columns.text)


def _samples(path: Path) -> Iterator[tuple[list[str], Callable[[], Sequence[Row]]]]:
    """Yield columns and rows of the beginning of a file; of JSON then those that follow."""
    if kind_of(path) not in JSON_KINDS:
        names = names_of(path)
        if any(table.num_rows for table in table_pieces(path, names[:1])):
            yield names, partial(_first_rows, path)
        return
    # Rows of one kind may begin anywhere, since each has columns of its own.
    records = (record for _, record in json_records(path))
    while sample := list(_sample(records)):
        yield list(dict.fromkeys(name for row in sample for name in row)), lambda rows=sample: rows


def _first_rows(path: Path) -> list[Row]:
    first = next(table for table in table_pieces(path) if table.num_rows)
    return rows_of(first.slice(0, SAMPLE_ROWS), str(path))


def _sample(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the next rows, up to so many or so many characters."""
    chars = 0
    for record in islice(records, SAMPLE_ROWS):
        yield record
        chars += len(str(record))
        if chars > SAMPLE_CHARS:
            return


# Pieces of a file -----------------------------------------------------------------------


def _text_columns(path: Path, columns: Columns, shape: TextOf) -> Iterator[pa.Table]:
    """Yield the columns that become texts, ids and domains, as they are in a file."""
    if kind_of(path) == "text":
        return _lines(path, shape.columns[0])
    return table_pieces(path, columns.among(names_of(path), str(path), shape.columns))


def _json_stream(
    path: Path, columns: Columns, shape: TextOf, label: str, domain: str
) -> Iterator[pa.Table]:
    missing, first_row = Missing(str(path), shape.required), 1
    rows = text_rows(json_records(path), columns, shape, missing)
    for piece in grouped(rows, lambda row: len(row[1])):
        ids, texts, domains = map(list, zip(*piece, strict=True))
        named = pa.array(ids, pa.string())
        table = {
            "id": numbered_ids(label, first_row, len(ids)) if ids[0] is None else named,
            "text": pa.array(texts, pa.large_string()),
            "domain": pa.array(domains, pa.string()).fill_null(domain),
        }
        yield pa.table(table)
        first_row += len(ids)
    missing.report()


def _lines(path: Path, name: str) -> Iterator[pa.Table]:
    for group in grouped(_passages(path), len):
        yield pa.table({name: pa.array(group, pa.large_string())})


def _passages(path: Path) -> Iterator[str]:
    for number, line in text_lines(path):
        if "\0" in line:
            raise ValueError(
                f"{path} line {number} holds a zero byte, so it is no text in UTF-8 (UTF-16 or a "
                "binary file); save it as UTF-8"
            )
        yield line.rstrip("\r\n")


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
    if kind_of(path) in JSON_KINDS:
        records = _named_fields(path)
        return map(table_of, grouped(records, lambda record: len(str(record))))
    return _lines(path, "text") if kind_of(path) == "text" else table_pieces(path)


def _named_fields(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file, after a check of the names of their fields."""
    for where, record in json_records(path):
        for name in record:
            if not name.isascii() and not is_utf8(name):
                raise ValueError(f"{where}: the name of field {name!r} is not UTF-8; rename it")
        yield record


# Tables ---------------------------------------------------------------------------------


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
    kind = kind_of(path)
    if kind == "parquet":
        table = read_parquet(path)
    elif kind == "csv":
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
    if kind_of(path) not in JSON_KINDS:
        return names_of(path)
    for _, record in json_records(path):
        return list(record)
    raise no_rows(path)


def _typed_csv(path: Path) -> pa.Table:
    names = names_of(path)
    pieces = list(table_pieces(path, names))
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
