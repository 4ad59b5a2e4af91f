"""The columns of rows that were read, as a table has them: one type each, or JSON text.

Records keep the values of the sources. In a table each column has one type; values without a
common type become JSON text.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from gotd.data.files import is_utf8
from gotd.data.json_lines import JSON_TEXT

MOST_DEPTH = 32
"""Values that are nested deeper are JSON text; Arrow cannot write types of some 60 levels."""


class ColumnTypes:
    """The types of columns, noted batch by batch; ``None`` marks values without a common type."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType | None] = {}

    @property
    def schema(self) -> pa.Schema:
        """Return the columns as a table has them, in the order in which they first occur."""
        text = pa.large_string()
        return pa.schema([(n, text if self._as_json(n) else t) for n, t in self._types.items()])

    def note(self, rows: pa.Table, label: str) -> pa.RecordBatch:
        """Return rows as one batch, after noting the types of their columns.

        Args:
            rows: The rows, at least one.
            label: Their name, for an error.

        Raises:
            ValueError: If two columns have one name.
        """
        names = rows.column_names
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{label} has two columns {twice[0]!r}; rename one of them")
        (batch,) = rows.replace_schema_metadata().combine_chunks().to_batches()
        for field in batch.schema:
            is_json = field.type == JSON_TEXT
            kind = type_of(values_of(batch[field.name])) if is_json else field.type
            self._merge(field.name, kind)
        return batch

    def add(self, other: ColumnTypes) -> None:
        """Add the columns of other rows, which will be in the same table."""
        for name, kind in other._types.items():
            self._merge(name, kind)

    def _merge(self, name: str, kind: pa.DataType | None) -> None:
        old = self._types.get(name, kind)
        self._types[name] = None if None in (kind, old) else common_type(old, kind)

    def _as_json(self, name: str) -> bool:
        kind = self._types[name]
        return kind is None or _has_empty_struct(kind)

    def uniform(self, batch: pa.RecordBatch) -> pa.Table:
        """Convert rows whose types were noted to the columns of `schema`."""
        columns = []
        for field in self.schema:
            if field.name not in batch.schema.names:
                columns.append(pa.nulls(batch.num_rows, field.type))
                continue
            column, as_json = batch[field.name], self._as_json(field.name)
            if column.type == JSON_TEXT and as_json:
                columns.append(column.storage.cast(field.type))
            elif column.type == JSON_TEXT or as_json:
                values = values_of(batch[field.name])
                if as_json:
                    values = [None if value is None else to_json(value) for value in values]
                columns.append(pa.array(values, field.type))
            else:
                columns.append(_cast(column, field.type))
        return pa.table(columns, schema=self.schema)


def type_of(values: list[Any]) -> pa.DataType | None:
    """Return the type of a column of values from JSON; ``None`` if they have no common one."""
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
        return None
    if _depth(kind) > MOST_DEPTH:
        return None
    # A column for which Arrow would change a value: 2**53 + 1 beside 0.5.
    if pa.types.is_floating(kind) and any(type(v) is int and abs(v) > 2**53 for v in values):
        return None
    return kind


def _depth(kind: pa.DataType) -> int:
    """Return how many types are nested in one another, up to one more than `MOST_DEPTH`."""
    depth, kinds = 1, [kind]
    while kinds and depth <= MOST_DEPTH:
        kinds = [one.field(n).type for one in kinds for n in range(one.num_fields)]
        depth += bool(kinds)
    return depth


def common_type(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    """Return a type that holds the values of both; ``None`` if there is none."""
    if one is None or other is None or one == other:
        return one if one == other else None
    plain = [t.value_type if pa.types.is_dictionary(t) else t for t in (one, other)]
    schemas = [pa.schema([("value", kind)]) for kind in plain]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def _has_empty_struct(kind: pa.DataType) -> bool:
    """Return whether a type has an object without fields in it, which Parquet cannot hold."""
    if pa.types.is_struct(kind) and kind.num_fields == 0:
        return True
    return any(_has_empty_struct(kind.field(i).type) for i in range(kind.num_fields))


def to_json(value: Any, on_odd: Callable[[], None] = lambda: None) -> str:
    """Return a value as JSON on one line.

    Dates become ISO text, bytes base64, NaN and infinities null. Half a surrogate pair stays
    an escape.

    Args:
        value: The value.
        on_odd: Called where NaN or an infinity becomes null.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_as_text)
    except ValueError:
        on_odd()
        text = json.dumps(_finite(value), ensure_ascii=False, default=_as_text)
    return text if is_utf8(text) else json.dumps(_finite(value), default=_as_text)


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    is_odd = isinstance(value, float) and not np.isfinite(value)
    return None if is_odd else value


def records_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as objects, with the values of the source."""
    names = batch.schema.names
    columns = [values_of(batch[name]) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def values_of(column: pa.Array) -> list[Any]:
    """Return the values of a column, as they were in the source."""
    if column.type != JSON_TEXT:
        return column.to_pylist()
    return [None if text is None else json.loads(text) for text in column.storage.to_pylist()]


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    try:
        return values.cast(kind)
    except pa.ArrowException:
        return pa.array(values.to_pylist(), kind)
