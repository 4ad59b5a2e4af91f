"""Check rows and choose among them by id: the part of reading that is about values.

Choices are a hash of (role, seed, id) and never of a position, so they stay the same
when files are split, merged or shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from gotd.data.files import origin, parquet_columns, read, stem

DOCUMENT_COLUMNS = ("id", "text", "domain")


def documents(paths: Sequence[Path]) -> pa.Table:
    """Read files of documents as one table.

    Only ``text`` must be there. A file without ``id`` gets ``<file name>/<row>``, one
    without ``domain`` (or with a row that has none) gets the file's name.

    Args:
        paths: Files in any of the known formats; their order is kept.

    Returns:
        String columns ``id`` (unique over all files), ``text`` and ``domain``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If there is no file, a text or id is null, not a string or not UTF-8,
            or an id occurs twice.
    """
    if not paths:
        raise ValueError("there is no file of documents to read; name at least one")
    check_text_columns([path for path in paths if path.is_file()])
    tables = [_read_documents(path) for path in paths]
    table = pa.concat_tables(tables)
    if len(table["id"].unique()) < table.num_rows:
        raise ValueError(_repeated_id(tables, paths))
    return table


def check_text_columns(paths: Sequence[Path]) -> None:
    """Look into the Parquet files of documents for their text, without reading rows.

    Raises:
        ValueError: If a file has no ``text`` (lists what it has), or is damaged.
    """
    for path in paths:
        if path.suffix == ".parquet" and path.stat().st_size:
            present = parquet_columns(path)
            if "text" not in present:
                raise _no_column(str(path), "text", present)


def _no_column(where: str, column: str, present: Sequence[str]) -> ValueError:
    return ValueError(
        f"{where} has no column {column!r}; it has {', '.join(present)}: "
        "rename the column that holds it"
    )


def _read_documents(path: Path) -> pa.Table:
    raw = read(path, DOCUMENT_COLUMNS if path.suffix == ".parquet" else None)
    text = strings(raw, "text", str(path))
    name = stem(path)
    if "id" in raw.column_names:
        ids = strings(raw, "id", str(path))
    else:
        ids = pa.chunked_array([[f"{name}/{row}" for row in range(1, raw.num_rows + 1)]])
    if "domain" in raw.column_names and raw["domain"].null_count < raw.num_rows:
        domain = strings(filled(raw, "domain", name), "domain", str(path))
    else:
        domain = pa.chunked_array([pa.repeat(name, raw.num_rows)])
    return pa.table({"id": ids, "text": text, "domain": domain})


def filled(table: pa.Table, column: str, otherwise: str) -> pa.Table:
    """Put a word where a column has none; a column of no text is left for `strings` to refuse."""
    try:
        values = table[column].fill_null(otherwise)
    except pa.ArrowException:
        return table
    return table.set_column(table.column_names.index(column), column, values)


def strings(table: pa.Table, column: str, where: str, first_row: int = 1) -> pa.ChunkedArray:
    """Take a column that must hold text in every row.

    Args:
        table: Rows as read from a file.
        column: Name of the column.
        where: What to call the rows in an error if they came from no file.
        first_row: Number of the table's first row, where it is a part of a file.

    Returns:
        The column as Arrow ``string``; an empty text is a text.

    Raises:
        ValueError: If the column is missing (lists those there are), of another type,
            null in some row (names the row) or not UTF-8 (names the row).
    """
    where = origin(table, where)
    if column not in table.column_names:
        raise _no_column(where, column, table.column_names)
    values = table[column]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not (pa.types.is_null(values.type) or _is_text(values.type)):
        raise ValueError(
            f"{where}: column {column!r} holds {values.type} from row {first_row} on, not strings; "
            "convert it to strings"
        )
    if values.null_count:
        row = values.is_null().index(pa.scalar(value=True)).as_py() + first_row
        raise ValueError(
            f"{where} row {row}: {column!r} is null ({values.null_count} such rows); "
            "fill it in or drop the row"
        )
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{where} row {_undecodable(values) + first_row}: {column!r} is not UTF-8; "
            "write the file again with the right encoding"
        ) from error
    return values.cast(pa.string())


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


_BYTES_OF = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def _undecodable(values: pa.ChunkedArray) -> int:
    row = 0
    for part in values.chunks:
        for value in part.view(_BYTES_OF.get(part.type, part.type)):
            try:
                value.as_py().decode()
            except UnicodeDecodeError:
                return row
            row += 1
    return row


def _repeated_id(tables: Sequence[pa.Table], paths: Sequence[Path]) -> str:
    seen: dict[str, str] = {}
    for table, path in zip(tables, paths, strict=True):
        for row, name in enumerate(table["id"].to_pylist(), start=1):
            here = f"{path} row {row}"
            if name in seen:
                return (
                    f"id {name!r} occurs twice: {seen[name]} and {here}; "
                    "ids must be unique over all files: drop a row or rename it"
                )
            seen[name] = here
    raise AssertionError("no id is repeated")  # pragma: no cover
