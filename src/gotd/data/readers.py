"""Read files of rows, whatever their format, or raise one line that says what is wrong.

`stream` yields the text columns in pieces, for files of any size. `read_table` reads all
columns with their types, for the splits of a task.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gotd.data.columns import ORIGIN, Columns, strings
from gotd.data.files import SUFFIXES, check_file, stem

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
JSONL_VERSION = 2
"""From 2 on a domain counts on whatever line it first comes, not only on the first."""

ROWS_PER_PIECE = 8192
BYTES_PER_PIECE = 64 * 2**20
"""A piece ends at so many rows or bytes of text, whichever comes first."""

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
    for piece in _reader(path)(path, columns):
        if piece.num_rows:
            yield columns.uniform(piece, str(path), label, stem(path), first_row)
        first_row += piece.num_rows
    if first_row == 1:
        raise _no_rows(path)


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
        with _errors_of(path, *_PARQUET), pq.ParquetFile(path) as file:
            table = file.read()
    elif path.name.endswith(".csv"):
        table = _typed_csv(path)
    else:
        table = _typed_jsonl(path)
    if table.num_rows == 0:
        raise _no_rows(path)
    return table.replace_schema_metadata({ORIGIN: str(path).encode()})


def column_names(path: Path) -> list[str]:
    """Return the columns of a file, of JSON lines those of the first; no other row is read.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        ValueError: If it is damaged or has no rows.
    """
    check_file(path, SUFFIXES)
    if path.name.endswith(".parquet"):
        with _errors_of(path, *_PARQUET):
            return pq.read_schema(path).names
    if path.name.endswith(".csv"):
        return _csv_header(path)
    for _, record in _json_objects(path):
        return list(record)
    raise _no_rows(path)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8, which half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reader(path: Path) -> Callable[[Path, Columns], Iterator[pa.Table]]:
    if path.name.endswith(".parquet"):
        return _parquet
    if path.name.endswith(".csv"):
        return _csv
    return _jsonl if path.name.endswith(JSONL_SUFFIXES) else _plain


def _no_rows(path: Path) -> ValueError:
    return ValueError(f"{path} has no rows; write its rows again or leave the file out")


@contextmanager
def _errors_of(path: Path, problem: str, remedy: str) -> Iterator[None]:
    """Raise what goes wrong with a file as one line that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is {problem} ({first_line(error)}); {remedy}") from error


# Parquet --------------------------------------------------------------------------------

_PARQUET = "cut off, damaged or not Parquet", "copy it again"


def _parquet(path: Path, columns: Columns) -> Iterator[pa.Table]:
    with _errors_of(path, *_PARQUET), pq.ParquetFile(path) as file:
        wanted = columns.among(file.schema_arrow.names, str(path))
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


def _csv(path: Path, columns: Columns) -> Iterator[pa.Table]:
    yield from _csv_texts(path, columns.among(_csv_header(path), str(path)))


def _csv_header(path: Path) -> list[str]:
    with _errors_of(path, *_CSV), pa_csv.open_csv(path, _CSV_READING, _CSV_PARSING) as file:
        return file.schema.names


def _csv_texts(path: Path, names: list[str]) -> Iterator[pa.Table]:
    """Yield columns as strings that are not validated: Arrow would not name the row."""
    converting = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.binary()),
        include_columns=names,
        strings_can_be_null=False,
    )
    with (
        _errors_of(path, *_CSV),
        pa_csv.open_csv(path, _CSV_READING, _CSV_PARSING, converting) as file,
    ):
        for batch in file:
            columns = [column.view(pa.string()) for column in batch.columns]
            yield pa.table(columns, names=batch.schema.names)


def _typed_csv(path: Path) -> pa.Table:
    names = _csv_header(path)
    pieces = list(_csv_texts(path, names))
    if not pieces:
        raise _no_rows(path)
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


# JSON lines -----------------------------------------------------------------------------


def _jsonl(path: Path, columns: Columns) -> Iterator[pa.Table]:
    names: list[str] = []

    def rows() -> Iterator[list[str | None]]:
        for number, record in _json_objects(path):
            if not names:
                names.extend(columns.among(list(record), f"{path} line {number}"))
                # A line that comes later may have a domain, and the rows before it none.
                names.extend({columns.domain_name}.difference(names))
            elif "id" in record and "id" not in names and columns.id is None:
                raise ValueError(
                    f"{path} line {number} has an id and the first line has none; give every "
                    "line one, or name the field that holds it (--id-column)"
                )
            yield [_json_text(f"{path} line {number}", name, record, columns) for name in names]

    for group in _pieces(rows(), lambda row: sum(len(value or "") for value in row)):
        arrays = [pa.array(values, pa.string()) for values in zip(*group, strict=True)]
        yield pa.table(arrays, names=names)


def _json_text(where: str, name: str, record: dict[str, Any], columns: Columns) -> str | None:
    """Return a field that must be a string; an id may be an integer, a domain may be absent."""
    value = record.get(name)
    if isinstance(value, str):
        if is_utf8(value):
            return value
        problem = "holds half a character (a lone surrogate), which UTF-8 cannot hold"
    elif name not in columns.text and name == columns.domain_name and value is None:
        return None
    elif name == columns.id_name and type(value) is int:
        return str(value)
    else:
        problem = "is missing" if value is None else f"holds {type(value).__name__}, not a string"
    raise ValueError(f"{where}: field {name!r} {problem}; repair the line or drop it")


def _typed_jsonl(path: Path) -> pa.Table:
    records = [record for _, record in _json_objects(path)]
    names = dict.fromkeys(name for record in records for name in record)
    for name in names:
        if not is_utf8(name):
            raise ValueError(f"{path}: the name of field {name!r} is not UTF-8; rename it")
    return pa.table({name: _column(path, name, [r.get(name) for r in records]) for name in names})


def _column(path: Path, name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        # Halve the rows until the first one that does not fit those before it is found.
        fits, fails = 0, len(values)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            try:
                pa.array(values[:middle])
            except (pa.ArrowException, OverflowError, UnicodeEncodeError):
                fails = middle
            else:
                fits = middle
        raise ValueError(
            f"{path} row {fails}: field {name!r} cannot be read ({first_line(error)}); give "
            "every row UTF-8 text, or values of one type of at most 64 bits"
        ) from error


def _json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number, from 1, and object of each line; blank lines are skipped.

    Raises:
        ValueError: If a line is not UTF-8, not JSON or no object, or the file is cut off.
    """
    # Read line by line rather than with Arrow's reader: that one guesses types (a column
    # of dates would stop being text) and does not say which line is not UTF-8.
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} line {number} is not JSON that can be read ({first_line(error)}); "
                "the file may be cut off: write one object a line"
            ) from error
        if not isinstance(record, dict):
            raise ValueError(
                f"{path} line {number} holds a JSON {type(record).__name__}; "
                'write one object a line, such as {"id": "1", "text": "…"}'
            )
        yield number, record


# Lines ----------------------------------------------------------------------------------


def _plain(path: Path, columns: Columns) -> Iterator[pa.Table]:
    (name, *more) = columns.text
    if more or columns.id or columns.domain:
        raise ValueError(
            f"{path} is plain text, one passage a line, and has no columns; leave "
            "the names of columns out or give Parquet, JSON lines or CSV"
        )
    lines = (line.rstrip("\r\n") for _, line in _lines(path))
    for group in _pieces(lines, len):
        yield pa.table({name: group})


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of each line of UTF-8, its end included."""
    with (
        _errors_of(path, "cut off or damaged", "copy it again"),
        io.BufferedReader(pa.input_stream(str(path), compression="detect")) as file,  # type: ignore[arg-type]
    ):
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} line {number} is not UTF-8 (byte {error.start}); save it as UTF-8"
                ) from error
            yield number, text


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
