"""Raw rows to ids, texts and domains, whatever the shape of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.columns import Columns, string_domains, string_ids, strings
from gotd.data.files import is_utf8
from gotd.data.row_text import Missing, PlainText, Row, TextOf


def uniform_tables(
    pieces: Iterable[pa.Table],
    columns: Columns,
    shape: TextOf,
    where: str,
    label: str,
    domain: str | None = None,
    first_row: int = 1,
    missing: Missing | None = None,
) -> Iterator[pa.Table]:
    """Convert the pieces of a part to ids, texts and domains, and report missing values.

    Args:
        pieces: Raw rows, in order.
        columns: The columns of ids and domains.
        shape: How rows become texts.
        where: What to call the rows in an error.
        label: What numbered ids begin with.
        domain: Domain of rows that have none; ``None``: the label.
        first_row: Number of the first row in its file.
        missing: Counts missing values, for the caller to report; ``None``: they are reported.

    Raises:
        ValueError: If a column is missing, a value is of another kind or not UTF-8, an id
            is null, or a column of the text is null in every row; names the row.
    """
    counted = Missing(where, shape.required) if missing is None else missing
    for raw in pieces:
        if raw.num_rows:
            yield _uniform(
                raw,
                columns,
                shape,
                counted,
                where=where,
                label=label,
                domain=domain or label,
                first_row=first_row,
            )
        first_row += raw.num_rows
    if missing is None:
        counted.report()


def _uniform(
    raw: pa.Table,
    columns: Columns,
    shape: TextOf,
    missing: Missing,
    *,
    where: str,
    label: str,
    domain: str,
    first_row: int,
) -> pa.Table:
    """Convert raw rows to ``id`` (string), ``text`` (large_string) and ``domain`` (string).

    Args:
        raw: Rows as they were read.
        columns: The columns of ids and domains.
        shape: How they become texts.
        missing: Counts the rows without a column of the text.
        where: What to call the rows in an error.
        label: What numbered ids begin with.
        domain: Domain of rows that have none.
        first_row: Number of the first row in its file.

    Raises:
        ValueError: If a column is missing, a value is of another kind or not UTF-8, or
            an id is null.
    """
    present = columns.among(raw.column_names, where, shape.columns)
    if isinstance(shape, PlainText):
        text = _plain_texts(raw, shape, where, first_row)
    else:
        text = _shaped_texts(raw, shape, where, first_row)
    counted = [name for name in shape.required if name in raw.column_names]
    missing.add(raw.num_rows, {name: raw[name].null_count for name in counted})
    ids = numbered_ids(label, first_row, raw.num_rows)
    if columns.id_name is not None and columns.id_name in present:
        ids = string_ids(raw, columns.id_name, where, first_row)
    domains = pa.repeat(domain, raw.num_rows)
    named = columns.domain_name
    if named is not None and named in present and raw[named].null_count < raw.num_rows:
        domains = string_domains(raw, named, where, first_row, domain)
    return pa.table({"id": ids, "text": text, "domain": domains})


def _plain_texts(raw: pa.Table, shape: PlainText, where: str, first_row: int) -> pa.ChunkedArray:
    """Return the texts of rows, empty where all columns are null."""
    texts = [_filled(raw, name, where, first_row) for name in shape.columns]
    if len(texts) == 1:
        return texts[0]
    if not any(raw[name].null_count for name in shape.columns):
        return _join(texts, " ")
    # A column that is missing in a row must leave no separator.
    there = [raw[name].is_valid().to_pylist() for name in shape.columns]
    joined = [
        " ".join(text for text, is_there in zip(row, valid, strict=True) if is_there)
        for row, valid in zip(
            zip(*(text.to_pylist() for text in texts), strict=True),
            zip(*there, strict=True),
            strict=True,
        )
    ]
    return pa.chunked_array([pa.array(joined, pa.large_string())])


def _filled(raw: pa.Table, name: str, where: str, first_row: int) -> pa.ChunkedArray:
    if raw[name].null_count == raw.num_rows:
        return pa.chunked_array([pa.array([""] * raw.num_rows, pa.large_string())])
    return strings(raw, name, where, first_row, null="").cast(pa.large_string())


def _shaped_texts(raw: pa.Table, shape: TextOf, where: str, first_row: int) -> pa.Array:
    """Return the texts of rows, one by one."""
    rows = raw.select([name for name in shape.columns if name in raw.column_names])
    return pa.array(
        (
            checked_text(shape, row, f"{where} row {number}")
            for number, row in enumerate(rows_of(rows, where), start=first_row)
        ),
        pa.large_string(),
    )


def rows_of(table: pa.Table, where: str) -> list[Row]:
    """Return the rows of a table as mappings.

    Raises:
        ValueError: If a text is not UTF-8.
    """
    try:
        return table.to_pylist()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} holds text that is not UTF-8; write the file again with the right encoding"
        ) from error


def checked_text(shape: TextOf, row: Row, where: str) -> str:
    """Return the text of a row.

    Raises:
        ValueError: If a value is of a kind that the shape does not have, or the text is
            not UTF-8; names the row.
    """
    text = shape.text(row, where)
    if not text.isascii() and not is_utf8(text):
        raise ValueError(
            f"{where}: field {', '.join(map(repr, shape.columns))} holds half a character (a lone "
            "surrogate), which UTF-8 cannot hold; repair the line or drop it"
        )
    return text


def numbered_ids(label: str, first: int, count: int) -> pa.ChunkedArray:
    """Return the ids of rows that have none: label and number in the file."""
    numbers = pa.array(range(first, first + count)).cast(pa.string())
    return _join([pa.scalar(label), numbers], "#")


def _join(columns: list, separator: str) -> pa.ChunkedArray:
    kind = columns[-1].type
    return pc.call_function("binary_join_element_wise", [*columns, pa.scalar(separator, kind)])
