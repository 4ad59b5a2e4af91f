"""The columns of rows: which are read, and the checks on their values.

What a row holds never depends on how its file was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

ORIGIN = b"origin"


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

    @property
    def id_name(self) -> str:
        """Return the name of the column of ids, if there is one."""
        return self.id or "id"

    @property
    def domain_name(self) -> str:
        """Return the name of the column of domains, if there is one."""
        return self.domain or "domain"

    def among(self, present: Sequence[str], where: str) -> list[str]:
        """Return the columns to read among those that are ``present``.

        Raises:
            ValueError: If one that was named is absent (lists what there is), or one to
                read is there twice.
        """
        roles = {"text": self.text, "id": (self.id,), "domain": (self.domain,)}
        for role, names in roles.items():
            for name in names:
                if name is not None and name not in present:
                    raise ValueError(
                        f"{where} has no column {name!r}; it has {', '.join(present)}: rename "
                        f"the one that holds the {role}, or name it (--{role}-column)"
                    )
        wanted = dict.fromkeys((*self.text, self.id_name, self.domain_name))
        for name in wanted:
            if (count := present.count(name)) > 1:
                raise ValueError(f"{where} has {count} columns {name!r}; rename all but one")
        return [name for name in wanted if name in present]

    def uniform(
        self, raw: pa.Table, where: str, label: str, domain: str, first_row: int
    ) -> pa.Table:
        """Convert raw rows to ``id`` (string), ``text`` (large_string) and ``domain`` (string).

        Args:
            raw: Rows as they were read.
            where: What to call the rows in an error.
            label: What numbered ids begin with.
            domain: Domain of rows that have none.
            first_row: Number of the first row in its file.

        Raises:
            ValueError: If a column is missing, or a value is null, no string or not UTF-8.
        """
        present = self.among(raw.column_names, where)
        texts = [strings(raw, name, where, first_row) for name in self.text]
        if self.id_name in present:
            ids = string_ids(raw, self.id_name, where, first_row)
        else:
            numbers = pa.array(range(first_row, first_row + raw.num_rows)).cast(pa.string())
            ids = _join([pa.scalar(label), numbers], "#")
        domains = pa.repeat(domain, raw.num_rows)
        if self.domain_name in present and raw[self.domain_name].null_count < raw.num_rows:
            domains = strings(raw, self.domain_name, where, first_row, null=domain)
        text = _join([text.cast(pa.large_string()) for text in texts], " ")
        return pa.table({"id": ids, "text": text, "domain": domains})


def _join(columns: list, separator: str) -> pa.ChunkedArray:
    kind = columns[-1].type
    return pc.call_function("binary_join_element_wise", [*columns, pa.scalar(separator, kind)])


def string_ids(raw: pa.Table, name: str, where: str, first_row: int = 1) -> pa.ChunkedArray:
    """Return a column of ids, strings or integers, as strings.

    Raises:
        ValueError: As `strings`.
    """
    if name in raw.column_names and pa.types.is_integer(raw[name].type):
        raw = raw.set_column(raw.column_names.index(name), name, raw[name].cast(pa.string()))
    return strings(raw, name, where, first_row)


def strings(
    table: pa.Table, column: str, where: str, first_row: int = 1, null: str | None = None
) -> pa.ChunkedArray:
    """Return a column that must hold text in every row.

    Args:
        table: Rows as read from a file.
        column: Name of the column.
        where: What to call the rows in an error if they came from no file.
        first_row: Number of the table's first row, where it is a part of a file.
        null: What replaces a null; without it a null is an error.

    Returns:
        The column as Arrow ``string``; an empty text is a text.

    Raises:
        ValueError: If the column is missing (lists those there are), of another type,
            null in some row (names the row) or not UTF-8 (names the row).
    """
    where = origin(table, where)
    if column not in table.column_names:
        raise ValueError(
            f"{where} has no column {column!r}; it has {', '.join(table.column_names)}: "
            "rename the column that holds it"
        )
    values = table[column]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if values.type not in (*_BYTES_OF, pa.null()):
        raise ValueError(
            f"{where}: column {column!r} holds {values.type} from row {first_row} on, not strings; "
            "convert it to strings"
        )
    if null is not None:
        values = values.fill_null(null)
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


_BYTES_OF = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def _undecodable(values: pa.ChunkedArray) -> int:
    """Return the position of the first value that is not UTF-8."""
    parts = (part.view(_BYTES_OF[part.type]).to_pylist() for part in values.chunks)
    raw = enumerate(chain.from_iterable(parts))
    return next(row for row, value in raw if value.decode(errors="ignore").encode() != value)


def origin(table: pa.Table, otherwise: str) -> str:
    """Return the name of the file a table was read from, or ``otherwise``."""
    metadata = table.schema.metadata or {}
    return metadata.get(ORIGIN, otherwise.encode()).decode()
