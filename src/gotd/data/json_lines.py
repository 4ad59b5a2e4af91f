"""JSON lines and arrays: rows of texts one by one, or a table of all fields with their types."""

from __future__ import annotations

import io
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from gotd.data.columns import BadName, Columns
from gotd.data.files import errors_of, first_line, is_utf8, kind_of, open_bytes, text_lines
from gotd.data.row_text import Missing, TextOf
from gotd.data.uniform import checked_text

TextRow = tuple[str | None, str, str | None]
"""Id, text and domain."""


def text_rows(
    records: Iterable[tuple[str, dict[str, Any]]], columns: Columns, shape: TextOf, missing: Missing
) -> Iterator[TextRow]:
    """Read id, text and domain of each row; the id is ``None`` where no row has one.

    Args:
        records: Place and fields of each row.
        columns: The columns of ids and domains.
        shape: How fields become the text.
        missing: Counts the rows without a field of the text.

    Raises:
        ValueError: If a value is missing or of another kind; names the line.
    """
    has_ids = None
    for where, record in records:
        if has_ids is None:
            has_ids = columns.id_name is not None and (
                columns.id is not None or columns.id_name in record
            )
        elif columns.id_name in record and not has_ids:
            raise BadName(
                f"{where} has an id and the first line has none; give every line one, or name "
                "the field that holds it (--id-column)"
            )
        missing.add_row(record)
        name = None
        if has_ids and columns.id_name is not None:
            name = _string(where, columns.id_name, record, is_id=True)
        text = checked_text(shape, record, where)
        domain = None
        if columns.domain_name is not None:
            domain = _string(where, columns.domain_name, record)
        yield name, text, domain


def _string(where: str, name: str, record: dict[str, Any], is_id: bool = False) -> str | None:
    """Return a field of strings or whole numbers as a string; a domain may be absent."""
    value = record.get(name)
    if isinstance(value, str):
        if is_utf8(value):
            return value
        problem = "holds half a character (a lone surrogate), which UTF-8 cannot hold"
    elif value is None and not is_id:
        return None
    elif type(value) is int:
        return str(value)
    elif is_id and isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return str(int(value))  # an integer that a program has written as a float
    else:
        problem = "is missing" if value is None else f"holds {type(value).__name__}, not a string"
    otherwise = "" if is_id else ", or name another --domain-column"
    raise BadName(f"{where}: field {name!r} {problem}; repair the line or drop it{otherwise}")


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


MOST_LEVELS = 32
"""Values that are nested deeper are kept as JSON: Arrow writes types of some 60 levels at most."""


def _nested_deeper(values: Sequence[Any], levels: int) -> bool:
    """Return whether a value has lists or objects nested deeper than so many levels."""
    inside = [value for value in values if isinstance(value, list | dict)]
    for _ in range(levels):
        if not inside:
            return False
        held = (v for one in inside for v in (one.values() if isinstance(one, dict) else one))
        inside = [value for value in held if isinstance(value, list | dict)]
    return bool(inside)


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
            if _nested_deeper(values, MOST_LEVELS):
                raise pa.ArrowInvalid("too deep")
            if not pa.types.is_nested(array.type) or array.to_pylist() == values:
                return array
        except _UNFIT:
            pass
    written = [None if value is None else json.dumps(value) for value in values]
    return pa.ExtensionArray.from_storage(JSON_TEXT, pa.array(written, pa.string()))


def json_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and fields of each row of JSON lines, a JSON array or a sequence of objects.

    Raises:
        ValueError: If a row cannot be read or is no object; names the line or row.
    """
    if kind_of(path) == "json":
        values = ((f"{path} row {number}", value) for number, value in _json_values(path))
        for where, value in values:
            if not isinstance(value, dict):
                raise ValueError(
                    f"{where} holds a JSON {type(value).__name__}; write an array of objects, "
                    'such as [{"id": "1", "text": "…"}]'
                )
            yield where, value
    else:
        for number, record in json_objects(path):
            yield f"{path} line {number}", record


ARRAY = "an array of objects, or one object a line"
_READ_CHARS = 2**20


def not_json(where: str, error: Exception, text: str, form: str) -> ValueError:
    """Return the error for a text that is no JSON, with what is wrong with it.

    Args:
        where: Place of the text.
        error: What the reader of JSON said.
        text: The text, or its beginning.
        form: What can be read.
    """
    if isinstance(error, RecursionError):
        return ValueError(f"{where} is nested too deeply to be read; write values of fewer levels")
    # A reader of JSON says no more of it than that it expected something else.
    stop = error.pos if isinstance(error, json.JSONDecodeError) else 0
    if "\0" in text[: stop + 1]:
        return ValueError(
            f"{where} holds a NUL character (byte 0), which JSON cannot; the file is damaged, or "
            "no text: copy it again, or remove that character"
        )
    reason = first_line(error)
    ended = isinstance(error, json.JSONDecodeError) and stop >= len(text.rstrip())
    # What ends too early is wrong at its end, or in a string that does not end.
    if ended or "Unterminated" in reason:
        return ValueError(
            f"{where} is not JSON that can be read ({reason}); the file may be cut off: "
            f"write {form}"
        )
    return ValueError(f"{where} is not JSON that can be read ({reason}); write {form}")


def _json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number, from 1, and value of each element of an array, or each value of a file."""
    decode, held, at, number, ended = json.JSONDecoder().raw_decode, "", 0, 0, False
    with (
        errors_of(path, "cut off, damaged or not UTF-8", "copy it again, or save it as UTF-8"),
        io.TextIOWrapper(open_bytes(path), "utf-8-sig") as file,
    ):
        in_array = None
        while True:
            at = _after_space(held, at)
            if in_array is None and at < len(held):
                in_array = held[at] == "["
                at += in_array
                continue
            if in_array and at < len(held) and held[at] in ",]":
                ended = held[at] == "]"
                at += 1
                continue
            problem = None
            if in_array and not ended:
                end = "it ends before its array does"
                problem = json.JSONDecodeError(end, held, len(held))
            if at < len(held):
                if ended:
                    raise ValueError(f"{path} goes on after its array; write one array a file")
                try:
                    value, at = decode(held, at)
                except RecursionError as error:
                    raise not_json(f"{path} row {number + 1}", error, held, ARRAY) from error
                except ValueError as error:
                    problem = error
                else:
                    number += 1
                    yield number, value
                    continue
            # As much again, so that a long value is not decoded for every piece of it.
            more = file.read(max(_READ_CHARS, len(held) - at))
            if not more and problem is not None:
                raise not_json(f"{path} row {number + 1}", problem, held, ARRAY)
            if not more:
                return
            held, at = held[at:] + more, 0


_SPACE = re.compile(r"[ \t\r\n]*")


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


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
            raise not_json(f"{path} line {number}", error, line, "one object a line") from error
        if not isinstance(record, dict):
            raise ValueError(
                f"{path} line {number} holds a JSON {type(record).__name__}; "
                'write one object a line, such as {"id": "1", "text": "…"}'
            )
        yield number, record
