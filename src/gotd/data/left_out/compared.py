"""Columns and constants in the types in which a condition compares them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.column_types import to_json, type_of, values_of
from gotd.data.json_lines import JSON_TEXT

Path = tuple[str, ...]
"""A column, and fields of its objects."""
LARGE = 2**24
"""Beyond this Arrow refuses to compare an integer with a fraction."""
EXACT = pa.decimal128(20, 0)
"""Type that holds all integers of 64 bits, with sign or without, and compares with any number."""
NO_TEXT = "\U0010ffff"
"""First sign of what stands for a value that is no text, beside texts: no text has it."""


def literal(value: Any) -> Any:
    """Return a constant as it is compared: an integer exactly."""
    return pa.scalar(Decimal(value), EXACT) if type(value) is int else value


def literals(values: Sequence[Any]) -> pa.Array:
    """Return constants of one type as they are compared."""
    if all(type(value) is int for value in values):
        return pa.array([Decimal(value) for value in values], EXACT)
    return pa.array([float(v) if type(v) is int else v for v in values])


def values_at(rows: pa.Table, path: Path, no_text: str) -> pa.Array | None:
    """Return the values of a column or of a field in it; ``None`` where there is none.

    Args:
        rows: The rows.
        path: The column, and the field.
        no_text: What begins a value that is no text, where others are.
    """
    if path[0] not in rows.column_names:
        return None
    column, fields = rows[path[0]].combine_chunks(), path[1:]
    if column.type == JSON_TEXT:
        values = values_of(column)
        for name in fields:
            values = [v.get(name) if isinstance(v, dict) else None for v in values]
        if type_of(values) is None:
            values = [
                v if v is None or isinstance(v, str) else no_text + to_json(v) for v in values
            ]
        return pa.array(values)
    for name in fields:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(name) < 0:
            return None
        column = pc.struct_field(column, name)  # null where the object is
    return column


def type_without(rows: pa.Table, path: Path, field: pa.Array | None) -> pa.DataType | None:
    """Return the type of a column in which no row has a field; ``None`` if one may have it."""
    kind = rows[path[0]].type
    known = field is not None and (kind != JSON_TEXT or field.null_count < len(field))
    return None if known or pa.types.is_null(kind) else kind


def comparable(column: pa.Array) -> pa.Array:
    """Return values in a type that constants of a condition have.

    Times become texts in ISO form up to the second, of UTC where they have a zone. Decimals
    become floats, and large integers decimals.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_timestamp(kind):
        seconds = column.cast(pa.timestamp("s"), safe=False)
        return pc.strftime(seconds, "%Y-%m-%dT%H:%M:%S")
    if pa.types.is_date(kind):
        return pc.strftime(column.cast(pa.timestamp("s")), "%Y-%m-%d")
    if pa.types.is_time(kind):
        return column.cast(pa.string())
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return column.cast(pa.float64())
    if pa.types.is_integer(kind) and kind.bit_width > 16 and _has_large(column):
        return column.cast(EXACT)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    return column


def _has_large(column: pa.Array) -> bool:
    ends = pc.min_max(column).as_py()
    return ends["min"] is not None and max(-ends["min"], ends["max"]) > LARGE


def truth(column: pa.Array) -> pa.Array:
    """Read the texts ``true`` and ``false`` of CSV, in any case; others are missing values."""
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(column))
    known = pc.is_in(lower, value_set=pa.array(["true", "false"]))
    return pc.if_else(known, pc.equal(lower, "true"), None)
