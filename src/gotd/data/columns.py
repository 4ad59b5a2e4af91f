"""The columns of rows: which are read, and the checks on their values.

What a row holds never depends on how its file was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.row_shapes import FORMATS, ROLES, SHAPES, Role
from gotd.data.row_text import PlainText, Row, Template, TextOf
from gotd.storage.keys import added_later
from gotd.storage.printing import listed

ORIGIN = b"origin"
NUMBERED = "none"
"""The column of ids that stands for no column: rows are numbered, whatever they have."""


@dataclass(frozen=True)
class Columns:
    """Which columns of the raw rows are read.

    Args:
        text: Columns that hold the text; several are joined with a space. Rows without a
            column ``text`` may be of another shape.
        id: Column of unique ids (strings or integers); ``None``: ``id`` where there is
            one, else rows are numbered ``<file>#<row>``. ``none``: they are numbered in any case.
        domain: Column of the domain; ``None``: ``domain`` where there is one, else the
            file's name.
        format: Shape of the rows, one of `FORMATS`; ``None``: found in the first rows.
        role: Whose turns make the text, where rows have turns.
        template: Text with names of columns in braces, instead of a shape.
        text_alone: Number the rows, and read neither ids nor domains.

    Raises:
        ValueError: If format, role or template cannot be, or two of them, or one and a column
            of the text, say how rows become texts.
    """

    text: tuple[str, ...] = ("text",)
    id: str | None = None
    domain: str | None = None
    format: str | None = added_later(None)
    role: Role = added_later("all")
    template: str | None = added_later(None)
    text_alone: bool = added_later(False)

    def __post_init__(self) -> None:
        for option, names in (("--text-column", self.text), ("--id-column", (self.id or "id",))):
            if not all(names) or len(set(names)) < len(names):
                raise ValueError(
                    f"{option} takes the names of columns, each once, not {','.join(names)!r}"
                )
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"--format must be one of {', '.join(FORMATS)}, not {self.format!r}")
        if self.role not in ROLES:
            raise ValueError(f"--role must be one of {', '.join(ROLES)}, not {self.role!r}")
        if self.template is not None:
            Template(self.template)
        given = {
            "--text-column": self.text != ("text",),
            "--format": self.format not in (None, "text"),
            "--template": self.template is not None,
        }
        names = [name for name, is_given in given.items() if is_given]
        if len(names) > 1:
            raise ValueError(f"{' and '.join(names)} contradict each other; give one of them")

    @property
    def id_name(self) -> str | None:
        """Return the name of the column of ids, if there is one; ``None``: rows are numbered."""
        return None if self.text_alone or self.id == NUMBERED else self.id or "id"

    @property
    def domain_name(self) -> str | None:
        """Return the name of the column of domains, if there is one; ``None``: none is read."""
        return None if self.text_alone else self.domain or "domain"

    @property
    def may_have_turns(self) -> bool:
        """Return whether rows may be of a shape with turns, which their values decide."""
        plain = self.format == "text" or self.text != ("text",)
        return not plain and self.template is None

    def shape(self, names: Sequence[str], rows: Callable[[], Sequence[Row]], where: str) -> TextOf:
        """Find how the rows of a file become texts.

        Args:
            names: The columns that there are.
            rows: Returns the first rows; it is not called where the names are enough.
            where: What to call the rows in an error.

        Raises:
            NoShape: If the columns for it are not there; lists those that are.
        """
        if self.template is not None:
            template = Template(self.template)
            _check_there(template.columns, names, where, "text", "correct the --template")
            return template
        if not self.may_have_turns or (self.format is None and self.text[0] in names):
            _check_there(self.text, names, where, "text")
            return PlainText(self.text)
        shapes = [shape for shape in SHAPES if self.format in (None, shape.name)]
        first = rows()
        for shape in shapes:
            if (found := shape.find(first, self.role)) is not None:
                return found
        if self.format is None:
            _check_there(self.text, names, where, "text")
        raise NoShape(
            f"{where} has no rows of the format {self.format}, which needs {shapes[0].needs}; it "
            f"has {listed(names)}: give another --format or a --template"
        )

    def among(
        self, present: Sequence[str], where: str, text: Sequence[str] | None = None
    ) -> list[str]:
        """Return the columns to read among those that are ``present``.

        Args:
            present: The columns that there are.
            where: What to call the rows in an error.
            text: The columns of the text; ``None``: those of plain text, which must be there.

        Raises:
            ValueError: If one that was named is absent (lists what there is), or one to
                read is there twice.
        """
        if text is None:
            _check_there(self.text, present, where, "text")
        for role, name in {"id": self.id, "domain": self.domain}.items():
            if name is not None and (role, name) != ("id", NUMBERED):
                _check_there([name], present, where, role)
        names = (*(text or self.text), self.id_name, self.domain_name)
        wanted = dict.fromkeys(name for name in names if name is not None)
        for name in wanted:
            if (count := present.count(name)) > 1:
                raise ValueError(f"{where} has {count} columns {name!r}; rename all but one")
        return [name for name in wanted if name in present]


def both_columns(
    text_column: str = "text",
    target_text_column: str | None = None,
    *,
    id_column: str | None = None,
    domain_column: str | None = None,
    format: str | None = None,
    target_format: str | None = None,
    template: str | None = None,
    target_template: str | None = None,
    role: Role = "all",
) -> tuple[Columns, Columns]:
    """Return the columns of candidates and target, as a user names them.

    Ids and domains are named for the candidates; a target has its own or is numbered. How rows
    become texts is the same for both unless the target's is given.

    Args:
        text_column: Column of the text; several with commas are joined.
        target_text_column: The target's.
        id_column: The candidates' column of unique ids.
        domain_column: The candidates' column of the domain.
        format: Shape of the rows.
        target_format: The target's.
        template: Text with names of columns in braces.
        target_template: The target's.
        role: Whose turns make the text, of both sides.

    Raises:
        ValueError: As `Columns`.
    """
    columns = Columns(_names(text_column), id_column, domain_column, format, role, template)
    own = (target_text_column, target_format, target_template)
    if own == (None, None, None):
        return columns, Columns(columns.text, None, None, format, role, template)
    target_text, target_format, target_template = own
    text = _names(target_text) if target_text else ("text",)
    return columns, Columns(text, None, None, target_format, role, target_template)


def _names(given: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in given.split(","))


class NoShape(ValueError):  # noqa: N818 - it is caught to look at more rows
    """Rows whose columns make no text."""


class BadName(ValueError):  # noqa: N818 - it is caught where names of rows are not needed
    """Rows whose ids or domains cannot be used."""


def _check_there(
    names: Sequence[str], present: Sequence[str], where: str, role: str, remedy: str = ""
) -> None:
    otherwise = ", or give a --format or a --template" if role == "text" else ""
    remedy = remedy or f"rename the one that holds the {role}, or name it (--{role}-column)"
    for name in names:
        if name not in present:
            raise NoShape(
                f"{where} has no column {name!r}; it has {listed(present, name)}: "
                f"{remedy}{otherwise}"
            )


def string_ids(raw: pa.Table, name: str, where: str, first_row: int = 1) -> pa.ChunkedArray:
    """Return a column of ids, strings or whole numbers, as strings.

    Floats are whole numbers where a program has written integers as floats.

    Raises:
        BadName: As `strings`.
    """
    if name in raw.column_names and pa.types.is_floating(raw[name].type):
        known = pc.less_equal(pc.abs(raw[name]), 2.0**53)  # beyond, floats skip integers
        whole = pc.and_(known, pc.equal(raw[name], pc.floor(raw[name])))
        if pc.all(whole, skip_nulls=True).as_py():
            raw = raw.set_column(raw.column_names.index(name), name, raw[name].cast(pa.int64()))
    if name in raw.column_names and pa.types.is_integer(raw[name].type):
        raw = raw.set_column(raw.column_names.index(name), name, raw[name].cast(pa.string()))
    try:
        return strings(raw, name, where, first_row)
    except ValueError as error:
        raise BadName(str(error)) from error


def string_domains(
    raw: pa.Table, name: str, where: str, first_row: int, otherwise: str
) -> pa.ChunkedArray:
    """Return a column of domains, strings or whole numbers, as strings.

    Raises:
        BadName: As `strings`.
    """
    if pa.types.is_integer(raw[name].type):
        raw = raw.set_column(raw.column_names.index(name), name, raw[name].cast(pa.string()))
    try:
        return strings(raw, name, where, first_row, null=otherwise)
    except ValueError as error:
        raise BadName(f"{error}, or name another --domain-column") from error


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
            f"{where} has no column {column!r}; it has {listed(table.column_names, column)}: "
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
