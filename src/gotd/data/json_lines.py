"""JSON lines: rows of texts one by one, or a table of all fields with their types."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from gotd.data.columns import Columns
from gotd.data.files import first_line, is_utf8, text_lines


def text_rows(path: Path, columns: Columns) -> Iterator[dict[str, str | None]]:
    """Read the fields of text, ids and domains, line by line; all rows have the same fields.

    Raises:
        ValueError: If a line cannot be read, or a value is missing or no string; names the line.
    """
    names: list[str] = []
    for number, record in json_objects(path):
        where = f"{path} line {number}"
        if not names:
            # A line that comes later may have a domain, and the rows before it none.
            present = columns.among(list(record), where)
            names = list(dict.fromkeys([*present, columns.domain_name]))
        elif "id" in record and "id" not in names and columns.id is None:
            raise ValueError(
                f"{where} has an id and the first line has none; give every line one, or name "
                "the field that holds it (--id-column)"
            )
        yield {name: _text(where, name, record, columns) for name in names}


def _text(where: str, name: str, record: dict[str, Any], columns: Columns) -> str | None:
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


def read_json_lines(path: Path) -> pa.Table:
    """Read all fields, with the types of their values.

    Raises:
        ValueError: If a line cannot be read, or the values of a field differ in type.
    """
    records = [record for _, record in json_objects(path)]
    names = dict.fromkeys(name for record in records for name in record)
    for name in names:
        if not is_utf8(name):
            raise ValueError(f"{path}: the name of field {name!r} is not UTF-8; rename it")
    return pa.table({name: _column(path, name, [r.get(name) for r in records]) for name in names})


_UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError)


def _column(path: Path, name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except _UNFIT as error:
        row = bisect_left(range(len(values)), 1, key=lambda count: not _fits(values[:count]))
        raise ValueError(
            f"{path} row {row}: field {name!r} cannot be read ({first_line(error)}); give every "
            "row UTF-8 text, or values of one type of at most 64 bits"
        ) from error


def _fits(values: list[Any]) -> bool:
    """Return whether values can be one column."""
    try:
        pa.array(values)
    except _UNFIT:
        return False
    return True


JSON_TEXT = pa.json_(pa.string())
"""Type of a column whose values no plain Arrow type holds unchanged: each value as JSON."""


def table_of(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return all fields of some rows, values unchanged.

    A field that a row lacks is null. Values that Arrow cannot hold as they are, such as
    objects of different fields or values of several types, become `JSON_TEXT`. So the type of a
    column may differ between the pieces of a file.
    """
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: _unchanged([record.get(name) for record in records]) for name in names}
    return pa.table(columns) if columns else pa.table({"": pa.nulls(len(records))}).select([])


def _unchanged(values: list[Any]) -> pa.Array:
    """Return values in an Arrow type that gives them back, else as JSON."""
    if len({type(value) for value in values if value is not None}) <= 1:
        try:
            array = pa.array(values)
            if not pa.types.is_nested(array.type) or array.to_pylist() == values:
                return array
        except _UNFIT:
            pass
    written = [None if value is None else json.dumps(value) for value in values]
    return pa.ExtensionArray.from_storage(JSON_TEXT, pa.array(written, pa.string()))


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number, from 1, and object of each line; blank lines are skipped.

    Raises:
        ValueError: If a line is not UTF-8, not JSON or no object, or the file is cut off.
    """
    # Read line by line rather than with Arrow's reader: that one guesses types (a column
    # of dates would stop being text) and does not say which line is not UTF-8.
    for number, line in text_lines(path):
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
