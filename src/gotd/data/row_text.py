"""Texts of rows: a plain column, or a template over columns; and rows that lack a column."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Protocol

log = logging.getLogger(__name__)

Row = Mapping[str, Any]


class TextOf(Protocol):
    """How the rows of one file become texts."""

    @property
    def name(self) -> str:
        """Return the name of the shape, as ``--format`` takes it."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that are read."""
        ...

    @property
    def required(self) -> tuple[str, ...]:
        """Return the columns whose missing values are counted."""
        ...

    @property
    def description(self) -> str:
        """Return the shape and its columns in words."""
        ...

    def text(self, row: Row, where: str) -> str:
        """Return the text of a row, empty where it has none.

        Args:
            row: Values by column.
            where: What to call the row in an error.

        Raises:
            ValueError: If a value is of a kind that the shape does not have; names the row.
        """
        ...


@dataclass(frozen=True)
class PlainText:
    """One or more columns of text, joined with a space.

    Args:
        columns: Their names.
    """

    columns: tuple[str, ...]
    name: str = "text"

    @property
    def required(self) -> tuple[str, ...]:
        """Return all columns."""
        return self.columns

    @property
    def description(self) -> str:
        """Return the shape and its columns in words."""
        return f"plain text, {named(self.columns)}"

    def text(self, row: Row, where: str) -> str:
        """Return the texts of a row that are there; see `TextOf.text`."""
        values = []
        for name in self.columns:
            value = row.get(name)
            if value is None:
                continue
            if not isinstance(value, str):
                raise ValueError(
                    f"{where}: field {name!r} holds {type(value).__name__}, not a string; "
                    "repair the line or drop it"
                )
            values.append(value)
        return " ".join(values)


@dataclass(frozen=True)
class Template:
    """A text with the values of columns in it.

    Args:
        template: Such as ``{question} {answer}``; ``{{`` and ``}}`` are braces.

    Raises:
        ValueError: If it names no column, or has more than names of columns in braces.
    """

    template: str
    name: str = "template"

    def __post_init__(self) -> None:
        try:
            pieces = list(Formatter().parse(self.template))
        except ValueError as error:
            raise _bad_template(self.template, str(error)) from error
        names = [name for _, name, _, _ in pieces if name is not None]
        if not names:
            raise _bad_template(self.template, "it names no column")
        for _, name, spec, conversion in pieces:
            # Also no attribute: a row must not reach the objects behind its values.
            if name is not None and (not name or set(name) & set(".[]") or spec or conversion):
                raise _bad_template(self.template, f"{{{name}}} is no plain name of a column")

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that it names."""
        names = (name for _, name, _, _ in Formatter().parse(self.template) if name)
        return tuple(dict.fromkeys(names))

    @property
    def required(self) -> tuple[str, ...]:
        """Return the columns that it names."""
        return self.columns

    @property
    def description(self) -> str:
        """Return the shape and its columns in words."""
        return f"template, {named(self.columns)}"

    def text(self, row: Row, where: str) -> str:
        """Return the filled template, or no text where all its columns are missing."""
        values = {name: _as_text(row.get(name)) for name in self.columns}
        if not any(values.values()):
            return ""
        # Not str.format, which evaluates more than names.
        pieces = Formatter().parse(self.template)
        return "".join(literal + (values[name] if name else "") for literal, name, _, _ in pieces)


def _bad_template(template: str, problem: str) -> ValueError:
    return ValueError(
        f"--template {template!r} cannot be read ({problem}); write text with names of columns "
        "in braces, such as '{question} {answer}'"
    )


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool | int | float):
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def named(columns: Sequence[str]) -> str:
    """Return the names of columns in words."""
    return f"column{'s' if len(columns) > 1 else ''} {', '.join(columns)}"


class Missing:
    """Counts of the rows of a file that lack a column.

    Args:
        where: Name of the file, for the message.
        columns: The columns that count.
    """

    def __init__(self, where: str, columns: Sequence[str]) -> None:
        self._where, self._columns = where, columns
        self._rows, self._lacking = 0, Counter[str]()

    def add(self, rows: int, lacking: Mapping[str, int]) -> None:
        """Count rows, and how many of them lack each column."""
        self._rows += rows
        self._lacking.update(lacking)

    def add_row(self, row: Row) -> None:
        """Count a row."""
        self._rows += 1
        for name in self._columns:
            if row.get(name) is None:
                self._lacking[name] += 1

    @property
    def counts(self) -> tuple[int, dict[str, int]]:
        """Return the rows, and how many of them lack each column, as `add` takes them."""
        return self._rows, dict(self._lacking)

    def report(self) -> None:
        """Log how many rows lack each column.

        Raises:
            ValueError: If all rows lack one.
        """
        for name in self._columns:
            count = self._lacking[name]
            if count and count == self._rows:
                raise ValueError(
                    f"{self._where}: {name!r} is missing or null in every row; name another "
                    "--text-column or --format, or leave the file out"
                )
            if count:
                log.warning("%s: %s of %s rows lack %r", self._where, count, self._rows, name)
