"""Rows that do not fulfil a condition on their columns: ``lang == 'en' and n > 3``.

The condition is parsed, never evaluated as Python: comparisons, ``in``, ``is None``, ``and``,
``or``, ``not``, columns and constants, and nothing else.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import Part
from gotd.data.files import first_line
from gotd.data.left_out.compared import (
    NO_TEXT,
    Path,
    comparable,
    literal,
    literals,
    truth,
    type_without,
    values_at,
)
from gotd.data.left_out.record import FILTERED, LeftOut
from gotd.data.original_rows import rows_with_ids
from gotd.data.unique_ids import hash_strings
from gotd.storage.printing import listed
from gotd.storage.progress import tick

_COMPARE = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ALLOWED = (
    "use columns, constants, == != < <= > >=, in (…), is None, and, or, not; write col('a name') "
    "for a column whose name is no word, and meta.lang for a field of an object"
)


WHERE_VERSION = 2
"""Raise it when a condition holds for other rows."""
MOST_SHOWN = 80
"""Characters of a condition in an error."""
MOST_NODES = 2000
"""Parts of a condition; Arrow overflows its stack on far longer ones."""


class Where:
    """A condition on the columns of a row; a comparison with a missing value does not hold.

    Args:
        text: The condition, in Python's syntax.

    Raises:
        ValueError: If it is no such condition.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.columns: dict[str, None] = {}
        self._paths: dict[Path, None] = {}
        self._numeric: set[Path] = set()
        self._types: dict[Path, pa.DataType] = {}
        self._texts: dict[Path, list[int]] = {}  # values and numbers among them
        self._fields: dict[Path, pa.DataType | None] = {}  # type of a column without the field
        if not text.strip():
            raise ValueError(f"--where is empty; {_ALLOWED}, or leave the option out")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", "") or first_line(error)
            raise ValueError(
                f"--where {shown(text)} cannot be read ({reason}); {_ALLOWED}"
            ) from error
        if sum(1 for _ in ast.walk(tree)) > MOST_NODES:
            raise ValueError(f"--where has more than {MOST_NODES:,} parts; make it shorter")
        try:
            self._condition = self._parsed(tree.body)
        except RecursionError as error:
            raise ValueError(f"--where is too deep; {_ALLOWED}") from error
        if not self.columns:
            raise ValueError(f"--where {shown(text)} names no column; {_ALLOWED}")

    def holds(self, rows: pa.Table, label: str) -> np.ndarray:
        """Return where the condition holds: bool ``[n]``.

        Args:
            rows: Rows with all columns; one that is missing counts as null.
            label: Name of the rows, for an error.

        Raises:
            ValueError: If a column's type cannot be compared so.
        """
        columns = {"\0".join(path): self._column(rows, path) for path in self._paths}
        columns["\0row"] = pa.array(np.arange(rows.num_rows))
        try:
            found = pa.table(columns).filter(self._condition)["\0row"].to_numpy()
        except (pa.ArrowException, KeyError) as error:
            types = ", ".join(
                f"{'.'.join(p)} ({columns[chr(0).join(p)].type})" for p in self._paths
            )
            raise ValueError(
                f"--where {shown(self.text)} does not fit the columns of {label}: {types} "
                f"({first_line(error)})"
            ) from error
        mask = np.zeros(rows.num_rows, dtype=bool)
        mask[found] = True
        return mask

    def check_numbers(self) -> None:
        """Check that a text that was compared with a number was one in some row.

        Raises:
            ValueError: If no value of such a column is a number.
        """
        for path, (texts, numbers) in self._texts.items():
            if texts and not numbers:
                raise ValueError(
                    f"--where compares {'.'.join(path)!r} with a number, and none of its "
                    f"{texts:,} values is one; put the number in quotes to compare texts"
                )

    def check_fields(self) -> None:
        """Check that a field that is named was one of the objects of some row.

        Raises:
            ValueError: If no row has it.
        """
        for path, kind in self._fields.items():
            if kind is not None:
                raise ValueError(
                    f"--where: no candidate has a field {'.'.join(path)!r}; column {path[0]!r} "
                    f"holds {kind}"
                )

    def _column(self, rows: pa.Table, path: Path) -> pa.Array:
        """Return the values of a column, or of a field of its objects, as they are compared."""
        wanted = self._types.get(path)
        as_read = path in self._numeric or wanted == pa.bool_()
        column = values_at(rows, path, "" if as_read else NO_TEXT)
        if len(path) > 1 and path[0] in rows.column_names and self._fields.get(path, True):
            self._fields[path] = type_without(rows, path, column)
        if column is None or pa.types.is_null(column.type):
            # Without any value it has the type of what it is compared with.
            return pa.nulls(rows.num_rows, wanted or pa.bool_())
        column = comparable(column)
        if pa.types.is_string(column.type):
            if path in self._numeric:  # the columns of CSV are texts
                numbers = pd.to_numeric(column.to_pandas(), errors="coerce")
                known = self._texts.setdefault(path, [0, 0])
                known[0] += len(column) - column.null_count
                known[1] += int(numbers.notna().sum())
                return pa.array(numbers, pa.float64(), from_pandas=True)
            if wanted == pa.bool_():
                return truth(column)
        return column

    def _parsed(self, node: ast.expr) -> pc.Expression:
        if isinstance(node, ast.BoolOp):
            join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
            first, *others = map(self._parsed, node.values)
            for other in others:
                first = join(first, other)
            return first
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._parsed(node.operand)
        if isinstance(node, ast.Compare):
            return self._compared(node)
        return self._field(node)

    def _compared(self, node: ast.Compare) -> pc.Expression:
        sides = [node.left, *node.comparators]
        found: pc.Expression | None = None
        for one, sign, other in zip(sides, node.ops, sides[1:], strict=False):
            single = self._pair(one, sign, other)
            found = single if found is None else found & single
        assert found is not None
        return found

    def _pair(self, one: ast.expr, sign: ast.cmpop, other: ast.expr) -> pc.Expression:
        if isinstance(sign, ast.Is | ast.IsNot):
            if not (isinstance(other, ast.Constant) and other.value is None):
                raise self._refused(other)
            null = self._field(one).is_null()
            return ~null if isinstance(sign, ast.IsNot) else null
        if isinstance(sign, ast.In | ast.NotIn):
            if not isinstance(other, ast.Tuple | ast.List | ast.Set) or not other.elts:
                raise self._refused(other)
            values = [self._constant(item) for item in other.elts]
            kinds = {float if type(value) is int else type(value) for value in values}
            if any(value is None for value in values) or len(kinds) > 1:
                raise self._refused(other)
            self._note(one, values)
            field = self._field(one)
            # Arrow casts values to the column's type, so 1 would be True and '1' would be 1; an
            # equality of other types is an error.
            inside = field.isin(literals(values)) & (field == literal(values[0])).is_valid()
            return ~inside & field.is_valid() if isinstance(sign, ast.NotIn) else inside
        first, second = (self._side(side) for side in (one, other))
        for column, constant in ((one, second), (other, first)):
            self._note(column, [constant])
        if not any(isinstance(side, pc.Expression) for side in (first, second)):
            raise self._refused(one)
        found = _COMPARE[type(sign)](literal(first), literal(second))
        for side, against in ((first, second), (second, first)):
            if isinstance(against, str) and not isinstance(sign, ast.Eq | ast.NotEq):
                found &= side < NO_TEXT  # a value that is no text is neither before nor after one
        return found

    def _side(self, node: ast.expr) -> Any:
        """Return the value of a constant, or the field of a column."""
        constant = self._constant(node)
        return self._field(node) if constant is None else constant

    def _note(self, column: ast.expr, values: Sequence[Any]) -> None:
        """Note the type of what a column is compared with."""
        if not isinstance(column, ast.Name | ast.Call | ast.Attribute):
            return
        name = tuple(self._path(column))
        for value in values:
            if isinstance(value, bool | str):
                self._types[name] = pa.bool_() if isinstance(value, bool) else pa.string()
            elif isinstance(value, int | float):
                self._types[name] = pa.float64()
                self._numeric.add(name)

    def _field(self, node: ast.expr) -> pc.Expression:
        path = tuple(self._path(node))
        self.columns[path[0]] = self._paths[path] = None
        return pc.field("\0".join(path))

    def _path(self, node: ast.expr) -> list[str]:
        if isinstance(node, ast.Name):
            return [node.id]
        if isinstance(node, ast.Attribute):
            return [*self._path(node.value), node.attr]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            name = self._constant(node.args[0]) if len(node.args) == 1 else None
            if node.func.id == "col" and isinstance(name, str):
                return [name]
        raise self._refused(node)

    def _constant(self, node: ast.expr) -> Any:
        """Return a string, a number or a truth value; ``None`` if it is none of them."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._constant(node.operand)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return -value if is_number else None
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool):
            if isinstance(node.value, int) and not -(2**63) <= node.value < 2**64:
                raise ValueError(
                    f"--where {shown(self.text)} has an integer of more than 64 bits; compare "
                    "with a fraction such as 1e20, or put it in quotes to compare texts"
                )
            return node.value
        return None

    def _refused(self, node: ast.expr) -> ValueError:
        part = ast.get_source_segment(self.text.strip(), node) or self.text
        return ValueError(f"--where: {shown(part)} is not allowed here; {_ALLOWED}")


def shown(text: str) -> str:
    """Return a text in quotes, cut where it is long."""
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…")


def leave_out_filtered(left_out: LeftOut, where: Where, parts: Sequence[Part]) -> None:
    """Leave out rows for which a condition does not hold; eight bytes of memory for each.

    Args:
        left_out: The pool.
        where: The condition.
        parts: The sources of the pool, which are read again with all columns.

    Raises:
        ValueError: If no source has a column that is named, or its type does not fit.
    """
    refused, names = [np.empty(0, np.uint64)], dict.fromkeys([])
    for part in parts:
        for ids, rows in rows_with_ids(part):
            names |= dict.fromkeys(rows.column_names)
            tick(rows.num_rows)
            fails = ~where.holds(rows, part.label)
            refused.append(hash_strings(ids.filter(pa.array(fails))))
    missing = [name for name in where.columns if name not in names]
    if missing:
        raise ValueError(
            f"--where: the candidates have no column {missing[0]!r}; they have "
            f"{listed(names, missing[0])}"
        )
    where.check_fields()
    where.check_numbers()
    hashes = np.sort(np.concatenate(refused))
    for end, shard in zip(left_out.ends, left_out.shards, strict=True):
        if len(hashes):
            found = hash_strings(shard.ids)
            place = np.minimum(np.searchsorted(hashes, found), len(hashes) - 1)
            rows = np.flatnonzero(hashes[place] == found) + int(end) - len(shard)
            left_out.add(rows, FILTERED, f"not ({where.text})")
