"""Tables as Markdown, LaTeX, HTML and terminal output; the templates have the layout.

Names of arms, tasks and domains, error messages and selected texts come from outside, so
everything is escaped here, at the edge, and nowhere else. The page loads nothing from anywhere
and runs nothing: figures are embedded as images, and a content policy forbids scripts, should
escaping ever fail.
"""

from __future__ import annotations

import base64
import functools
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

# Headings of columns of text, the first column of every table apart.
_TEXT = {
    *("against", "arm", "domain", "error", "id", "message", "method", "metric", "task", "text"),
    *("command", "value", "verdict", "where", "who"),
}


@dataclass(frozen=True)
class Table:
    """Cells of plain text with a caption.

    Args:
        title: What the table shows.
        columns: Headings.
        rows: Cells, one per column in each row; empty where nothing was measured.
        notes: How to read it, one sentence each.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table '{self.title}': a row of {len(row)} cells for "
                    f"{len(self.columns)} columns: {row}"
                )

    @classmethod
    def of(cls, title: str, rows: Sequence[Mapping[str, str]], *notes: str) -> Table | None:
        """Build a table of rows that map each heading to a cell; ``None`` without rows."""
        if not rows:
            return None
        return cls(title, tuple(rows[0]), tuple(tuple(row.values()) for row in rows), notes)

    @property
    def is_text(self) -> list[bool]:
        """Return for each column whether it holds text; the others are aligned right."""
        return [not index or name in _TEXT for index, name in enumerate(self.columns)]


@dataclass(frozen=True)
class Picture:
    """A figure for a file and for the page.

    Args:
        name: End of its file's name, different from the experiment's other figures.
        caption: What it shows.
        svg: The figure.
    """

    name: str
    caption: str
    svg: str

    @property
    def base64(self) -> str:
        """Return the figure as a data URL has it."""
        return base64.b64encode(self.svg.encode()).decode()


@dataclass(frozen=True)
class Section:
    """A heading with its tables and figures."""

    title: str
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...] = ()


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_MARKDOWN = re.compile(r"([\\`*\[\]|~$#])|(?<![^\W_])_|_(?![^\W_])")
_LATEX = {
    **{character: f"\\{character}" for character in "{}$&%#_"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "–": "--",
}


def one_line(text: str) -> str:
    """Replace line breaks, control and bidirectional marks by one space."""
    return _CONTROL.sub(" ", text).strip()


def escape_markdown(text: str) -> str:
    """Escape text for a GitHub table cell; an underscore inside a word may stay."""
    text = html.escape(one_line(text), quote=False)
    return _MARKDOWN.sub(lambda match: "\\" + match.group(0), text)


def escape_latex(text: str) -> str:
    """Escape text for LaTeX; the report's own signs become mathematics."""
    return one_line(text).translate(str.maketrans(_LATEX))


def escape_html(text: str) -> str:
    """Escape text for HTML content and quoted attributes."""
    return html.escape(one_line(text), quote=True)


_ESCAPES = {"md": escape_markdown, "tex": escape_latex, "html": escape_html}
"""How text is escaped, by the format of a template."""


def _comment(text: str) -> Markup:
    """Escape text for an HTML or LaTeX comment."""
    return Markup(one_line(text).replace("-->", "--&gt;").replace("--!>", "--!&gt;"))


@functools.cache
def _template(name: str) -> jinja2.Template:
    """Load a template; every value that it shows is escaped for its format."""
    escape = _ESCAPES[name.rpartition(".")[2]]

    def escaped(value: Any) -> Markup:
        return value if isinstance(value, Markup) else Markup(escape(str(value)))

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,  # so that a macro returns Markup, which is not escaped again
        finalize=escaped,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["comment"] = _comment
    return environment.get_template(f"{name}.jinja")


def render(name: str, title: str, sections: Sequence[Section], **more: Any) -> str:
    """Write a document of tables, and figures where the format has them.

    Args:
        name: Template: ``tables.md``, ``tables.tex`` or ``page.html``.
        title: Heading of the document.
        sections: What it holds.
        more: ``stamp``, the lines at its head (command, fingerprint); for the page also
            ``details``, sections that are folded away at the end.
    """
    text = _template(name).render(title=title, sections=sections, **more)
    return text.strip() + "\n"


def to_terminal(sections: Sequence[Section]) -> RichTable:
    """Build a terminal table of the first table of each section; markup in names stays text.

    On a narrow terminal a cell breaks before its ± and a heading after its hyphen; names of
    arms never break.
    """
    stack = RichTable.grid()
    stack.add_column()
    for section in sections:
        table = section.tables[0]
        title = Text(one_line(section.title), style="bold")
        shown = RichTable(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        rows = [[one_line(cell).replace(" ± ", " ±") for cell in row] for row in table.rows]
        for index, heading in enumerate(table.columns):
            head = one_line(heading).replace("-", "- ")
            words = " ".join([head, *(row[index] for row in rows)]).split()
            is_name = table.is_text[index]
            shown.add_column(
                Text(head),
                justify="left" if is_name else "right",
                no_wrap=is_name,
                min_width=max(map(len, words)),
            )
        for row in rows:
            shown.add_row(*map(Text, row))
        stack.add_row(shown)
    return stack
