"""Chosen rows with every column of their sources, copied in one pass and read by rank.

Memory is a block of rows, and a few numbers for each chosen row. Records have the values of
the sources. In a table each column has one type; values without a common type become JSON text.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import Part, check_unchanged
from gotd.data.files import is_utf8
from gotd.data.json_lines import JSON_TEXT
from gotd.data.readers import original_rows


class OriginalRows:
    """The rows of some ids, as they are in their sources.

    Args:
        parts: The sources.
        identities: Their identities when the pool was written.
        ids: ``[k]`` ids of the pool; one may repeat.
        folder: Empty folder for the copies.

    Raises:
        ValueError: If a source has changed since, or lacks a row; names it.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        identities: Sequence[dict[str, Any]],
        ids: pa.Array,
        folder: Path,
    ) -> None:
        wanted = pc.unique(ids)
        self._of = pc.index_in(ids, value_set=wanted).to_numpy()
        self._folder = folder
        self._schemas: list[pa.Schema] = []  # of each copied file
        self._types: dict[str, pa.DataType | None] = {}
        # File, batch and row of each wanted id.
        self._place = np.full((3, len(wanted)), -1, dtype=np.int64)
        self._open = cache(self._opened)
        for part, identity in zip(parts, identities, strict=True):
            if (self._place[0] >= 0).all():
                break
            check_unchanged(part, identity)
            self._copy(part, wanted)
            check_unchanged(part, identity)
        missing = np.flatnonzero(self._place[0] < 0)
        if len(missing):
            raise ValueError(
                f"row {wanted[int(missing[0])].as_py()!r} is no longer in the candidates; "
                "run the same command again"
            )

    def __len__(self) -> int:
        return len(self._of)

    @property
    def schema(self) -> pa.Schema:
        """Return the columns as a table has them, in the order in which they first occur."""
        text = pa.large_string()
        return pa.schema([(n, text if self._as_json(n) else t) for n, t in self._types.items()])

    def records(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return the rows of some places of the ranking, as objects."""
        found: list[dict[str, Any]] = [{}] * (stop - start)
        for positions, batch in self._batches(start, stop):
            for position, record in zip(positions, _records(batch), strict=True):
                found[position] = record
        return found

    def table(self, start: int, stop: int) -> pa.Table:
        """Return the rows of some places of the ranking, with the columns of `schema`."""
        tables, order = [self.schema.empty_table()], []
        for positions, batch in self._batches(start, stop):
            order.append(positions)
            tables.append(self._uniform(batch))
        back = np.argsort(np.concatenate(order))
        return pa.concat_tables(tables).combine_chunks().take(pa.array(back))

    def _copy(self, part: Part, wanted: pa.Array) -> None:
        """Copy the wanted rows of a part; pieces of one schema share a file."""
        writer, batches = None, 0
        try:
            for ids, rows in rows_with_ids(part):
                index = pc.index_in(ids, value_set=wanted)
                chosen = np.flatnonzero(index.is_valid())
                if not len(chosen):
                    continue
                batch = self._batch(rows.take(pa.array(chosen)), part.label)
                if writer is None or batch.schema != self._schemas[-1]:
                    if writer is not None:
                        writer.close()
                    writer = pa.ipc.new_file(self._file(len(self._schemas)), batch.schema)
                    batches = 0
                    self._schemas.append(batch.schema)
                writer.write_batch(batch)
                place = index.drop_null().to_numpy()
                self._place[0, place], self._place[1, place] = len(self._schemas) - 1, batches
                self._place[2, place] = np.arange(len(chosen))
                batches += 1
        finally:
            if writer is not None:
                writer.close()

    def _batch(self, rows: pa.Table, label: str) -> pa.RecordBatch:
        """Return rows as a batch to copy, and note the types of their columns."""
        names = rows.column_names
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{label} has two columns {twice[0]!r}; rename one of them")
        (batch,) = rows.replace_schema_metadata().combine_chunks().to_batches()
        for field in batch.schema:
            is_json = field.type == JSON_TEXT
            kind = type_of(values_of(batch[field.name])) if is_json else field.type
            old = self._types.get(field.name, kind)
            self._types[field.name] = None if None in (kind, old) else common_type(old, kind)
        return batch

    def _as_json(self, name: str) -> bool:
        kind = self._types[name]
        return kind is None or _has_empty_struct(kind)

    def _file(self, number: int) -> str:
        return str(self._folder / f"originals-{number:05d}.arrow")

    def _opened(self, number: int) -> pa.ipc.RecordBatchFileReader:
        return pa.ipc.open_file(pa.memory_map(self._file(number)))

    def _batches(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """Yield places from ``start`` on and their rows, batch by batch of the copies."""
        file, batch, row = self._place[:, self._of[start:stop]]
        order = np.lexsort((row, batch, file))
        ends = np.flatnonzero(np.diff(file[order]) | np.diff(batch[order])) + 1
        for group in np.split(order, ends):
            if len(group):
                reader = self._open(int(file[group[0]]))
                yield group, reader.get_batch(int(batch[group[0]])).take(pa.array(row[group]))

    def _uniform(self, batch: pa.RecordBatch) -> pa.Table:
        """Convert copied rows to the columns of `schema`."""
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


def rows_with_ids(part: Part) -> Iterator[tuple[pa.Array, pa.Table]]:
    """Yield the ids that the pool gives to rows, and the rows with all their columns."""
    ids, held = (table["id"].combine_chunks() for table in part.pieces()), pa.array([], pa.string())
    for rows in original_rows(part):
        while len(held) < rows.num_rows:
            more = next(ids, None)
            if more is None:
                raise ValueError(f"{part.label} has changed while it was read; run it again")
            held = pa.concat_arrays([held, pa.array(more).cast(pa.string())])
        yield held[: rows.num_rows], rows
        held = held[rows.num_rows :]


def type_of(values: list[Any]) -> pa.DataType | None:
    """Return the type of a column of values from JSON; ``None`` if they have no common one."""
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
        return None
    # A column for which Arrow would change a value: 2**53 + 1 beside 0.5.
    if pa.types.is_floating(kind) and any(type(v) is int and abs(v) > 2**53 for v in values):
        return None
    return kind


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return a type that holds the values of both; ``None`` if there is none."""
    if one == other:
        return one
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


def to_json(value: Any) -> str:
    """Return a value as JSON on one line.

    Dates become ISO text, bytes base64, NaN and infinities null. Half a surrogate pair stays
    an escape.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_as_text)
    except ValueError:
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


def _records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
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
