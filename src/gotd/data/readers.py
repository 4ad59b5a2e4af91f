"""Read a file of rows in pieces, however large it is, or say in one line what is wrong.

Parquet, JSON lines, CSV and plain text (one passage a line) all become small tables with
the columns ``id``, ``text`` and ``domain``. What a row holds never depends on how the
file was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gotd.data.columns import filled, strings
from gotd.data.files import (
    SUFFIXES,
    first_line,
    json_objects,
    listing,
    no_parquet,
    says_utf8,
    stem,
    text_lines,
)

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
TEXT_SUFFIXES = (".txt", ".txt.gz", ".txt.zst")
STREAMED = (*SUFFIXES, *TEXT_SUFFIXES)
"""The formats that `stream` knows, by the end of the file's name."""

JSONL_VERSION = 2
"""From 2 on a domain counts on whatever line it first comes, not only on the first."""

ROWS_PER_PIECE = 8192
BYTES_PER_PIECE = 64 * 2**20
"""A piece ends at so many rows or bytes of text, whichever comes first."""

CSV_BLOCK_BYTES = 16 * 2**20
"""Also the longest row of a CSV file."""


@dataclass(frozen=True)
class Columns:
    """Which columns of the raw rows are read.

    Args:
        text: Columns that hold the text; several are joined with a space.
        id: Column of unique ids (strings or integers); ``None``: ``id`` where there is
            one, else rows are numbered ``<file>#<row>``.
        domain: Column of the domain; ``None``: ``domain`` where there is one, else the
            file's name.
    """

    text: tuple[str, ...] = ("text",)
    id: str | None = None
    domain: str | None = None

    def among(self, present: Sequence[str], where: str) -> list[str]:
        """Name those to read among the columns that are ``present``.

        Raises:
            ValueError: If one that was named is absent (lists what there is), or one to
                read is there twice.
        """
        named = {"text": self.text, "id": (self.id,), "domain": (self.domain,)}
        for role, names in named.items():
            for name in names:
                if name is not None and name not in present:
                    raise ValueError(
                        f"{where} has no column {name!r}; it has {', '.join(present)}: "
                        f"name the one that holds the {role} (--{role}-column)"
                    )
        wanted = (*self.text, self.id or "id", self.domain or "domain")
        found = [name for name in dict.fromkeys(wanted) if name in present]
        for name in found:
            if (count := present.count(name)) > 1:
                raise ValueError(f"{where} has {count} columns {name!r}; rename all but one")
        return found


def stream(path: Path, columns: Columns, label: str) -> Iterator[pa.Table]:
    """Read a file piece by piece.

    Args:
        path: A file whose name ends in one of `STREAMED`.
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
    if path.name.endswith(".parquet"):
        pieces = _parquet(path, columns)
    elif path.name.endswith(JSONL_SUFFIXES):
        pieces = _jsonl(path, columns)
    elif path.name.endswith(".csv"):
        pieces = _csv(path, columns)
    else:
        pieces = _plain(path, columns)
    rows = 0
    for piece in pieces:
        if piece.num_rows:
            yield uniform(piece, columns, str(path), label, short_name(path), rows + 1)
        rows += piece.num_rows
    if rows == 0:
        raise ValueError(f"{path} has no rows; write its rows again or leave the file out")


def check_file(path: Path) -> None:
    """Refuse a file that cannot be read, before anything else is done.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        ValueError: If its format is unknown or it is empty.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; {listing(path.parent)}")
    if not path.name.endswith(STREAMED):
        raise ValueError(f"{path}: unknown format; use one of {', '.join(STREAMED)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); write its rows again or leave it out")


def short_name(path: Path) -> str:
    """Give a file's name without its format's suffix."""
    for suffix in sorted(TEXT_SUFFIXES, key=len, reverse=True):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return stem(path)


def uniform(
    raw: pa.Table, columns: Columns, where: str, label: str, domain: str, first_row: int
) -> pa.Table:
    """Bring raw rows to ``id``, ``text`` and ``domain``.

    Args:
        raw: Rows as they were read.
        columns: Which columns to take.
        where: What to call the rows in an error.
        label: What numbered ids begin with.
        domain: Domain of rows that have none.
        first_row: Number of the first row in its file.

    Raises:
        ValueError: If a column is missing, or a value is null, no string or not UTF-8.
    """
    columns.among(raw.column_names, where)
    texts = [strings(raw, name, where, first_row).cast(pa.large_string()) for name in columns.text]
    text = (
        texts[0]
        if len(texts) == 1
        else pc.call_function(
            "binary_join_element_wise", [*texts, pa.scalar(" ", pa.large_string())]
        )
    )
    return pa.table(
        {
            "id": _ids(raw, columns, where, label, first_row),
            "text": text,
            "domain": _domains(raw, columns, where, domain, first_row),
        }
    )


def _ids(
    raw: pa.Table, columns: Columns, where: str, label: str, first_row: int
) -> pa.ChunkedArray | pa.Array:
    name = columns.id or "id"
    if name not in raw.column_names:
        numbers = pa.array(range(first_row, first_row + raw.num_rows)).cast(pa.string())
        return pc.call_function("binary_join_element_wise", [pa.scalar(label), numbers, "#"])
    return string_ids(raw, name, where, first_row)


def string_ids(raw: pa.Table, name: str, where: str, first_row: int = 1) -> pa.ChunkedArray:
    """Take a column of ids, strings or integers, as strings.

    Raises:
        ValueError: As `gotd.data.columns.strings`.
    """
    if name in raw.column_names and pa.types.is_integer(raw[name].type):
        raw = raw.set_column(raw.column_names.index(name), name, raw[name].cast(pa.string()))
    return strings(raw, name, where, first_row)


def _domains(
    raw: pa.Table, columns: Columns, where: str, otherwise: str, first_row: int
) -> pa.ChunkedArray | pa.Array:
    name = columns.domain or "domain"
    if name not in raw.column_names or raw[name].null_count == raw.num_rows:
        return pa.repeat(otherwise, raw.num_rows)
    return strings(filled(raw, name, otherwise), name, where, first_row)


# Formats --------------------------------------------------------------------------------


def _parquet(path: Path, columns: Columns) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            wanted = columns.among(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(_rows_per_batch(file), columns=wanted):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise no_parquet(path, error) from error


def _rows_per_batch(file: pq.ParquetFile) -> int:
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    heaviest = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=1)
    return int(min(ROWS_PER_PIECE, max(1, BYTES_PER_PIECE // max(1, heaviest))))


def _csv(path: Path, columns: Columns) -> Iterator[pa.Table]:
    try:
        reading = pa_csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES)
        parsing = pa_csv.ParseOptions(newlines_in_values=True)
        with pa_csv.open_csv(path, read_options=reading, parse_options=parsing) as file:
            present = file.schema.names
        converting = pa_csv.ConvertOptions(
            # As bytes: Arrow does not say which row is not UTF-8, `strings` does.
            column_types=dict.fromkeys(present, pa.binary()),
            include_columns=columns.among(present, str(path)),
            strings_can_be_null=False,
        )
        with pa_csv.open_csv(path, reading, parsing, converting) as file:
            for batch in file:
                yield _as_text(pa.Table.from_batches([batch]))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not CSV in UTF-8 with one header line ({first_line(error)}); "
            "save it again as UTF-8, with texts in double quotes"
        ) from error


def _as_text(table: pa.Table) -> pa.Table:
    """View bytes as strings without looking at them."""
    return pa.table(
        {
            name: pa.chunked_array([part.view(pa.string()) for part in table[name].chunks])
            for name in table.column_names
        }
    )


def _jsonl(path: Path, columns: Columns) -> Iterator[pa.Table]:
    kept: list[str] = []

    def rows() -> Iterator[list[str | None]]:
        for number, record in json_objects(path):
            if not kept:
                kept.extend(columns.among(list(record), f"{path} line {number}"))
                # A line that comes later may have a domain, and the rows before it none.
                kept.extend({columns.domain or "domain"}.difference(kept))
            elif "id" in record and "id" not in kept and columns.id is None:
                raise ValueError(
                    f"{path} line {number} has an id and the first line has none; give every "
                    "line one, or name the field that holds it (--id-column)"
                )
            yield [_json_text(path, number, name, record, columns) for name in kept]

    for group in _pieces(rows(), lambda row: sum(len(value or "") for value in row)):
        values = zip(*group, strict=True)
        yield pa.table(
            {name: pa.array(column, pa.string()) for name, column in zip(kept, values, strict=True)}
        )


def _json_text(
    path: Path, line: int, name: str, record: dict[str, Any], columns: Columns
) -> str | None:
    """Take a field that must be a string; an id may be an integer, a domain may be absent."""
    value = record.get(name)
    if isinstance(value, str):
        if says_utf8(value):
            return value
        problem = "holds half a character (a lone surrogate), which UTF-8 cannot say"
    elif name not in columns.text and name == (columns.domain or "domain") and value is None:
        return None
    elif name == (columns.id or "id") and type(value) is int:
        return str(value)
    else:
        problem = "is missing" if value is None else f"holds {type(value).__name__}, not a string"
    raise ValueError(f"{path} line {line}: field {name!r} {problem}; mend the line or drop it")


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
    piece, held = [], 0
    for row in rows:
        piece.append(row)
        held += size(row)
        if len(piece) >= ROWS_PER_PIECE or held >= BYTES_PER_PIECE:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece
