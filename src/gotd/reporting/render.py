"""Tables as Markdown, LaTeX, HTML and terminal output.

Names of arms, tasks and domains, error messages and selected texts come from outside, so
everything is escaped here, at the edge, and nowhere else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

# Headings of columns of text, the first column of every table apart.
_TEXT = {
    *("against", "arm", "domain", "error", "id", "message", "method", "metric", "task", "text"),
    *("value", "verdict", "where", "who"),
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


@dataclass(frozen=True)
class Section:
    """A heading with its tables and figures."""

    title: str
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...] = ()


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_MARKDOWN = re.compile(r"([\\`*\[\]|~$#])|(?<![^\W_])_|_(?![^\W_])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
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
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def escape_html(text: str) -> str:
    """Escape text for HTML content and quoted attributes."""
    return html.escape(one_line(text), quote=True)


def _comment(text: str) -> str:
    """Escape text for an HTML comment."""
    return one_line(text).replace("-->", "--&gt;").replace("--!>", "--!&gt;")


def to_markdown(title: str, sections: Sequence[Section], stamp: Sequence[str]) -> str:
    """Write a document of tables in GitHub Markdown.

    Args:
        title: Heading of the document.
        sections: What it holds.
        stamp: Lines for the comment at its head: command, fingerprint.
    """
    lines = [f"<!-- {_comment(line)} -->" for line in stamp]
    lines += ["", f"# {escape_markdown(title)}", ""]
    for section in sections:
        lines += [f"## {escape_markdown(section.title)}", ""]
        for table in section.tables:
            lines += _markdown_table(table)
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(table: Table) -> list[str]:
    head = "| " + " | ".join(map(escape_markdown, table.columns)) + " |"
    rule = "|" + "|".join(":--" if is_text else "--:" for is_text in table.is_text) + "|"
    body = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in table.rows]
    notes = [line for note in table.notes for line in (escape_markdown(note), "")]
    return [f"### {escape_markdown(table.title)}", "", head, rule, *body, "", *notes]


def to_latex(title: str, sections: Sequence[Section], stamp: Sequence[str]) -> str:
    r"""Write the tables for LaTeX; the document needs ``\usepackage{booktabs,textcomp}``."""
    lines = [f"% {one_line(line)}" for line in (*stamp, title)]
    lines += [r"% \usepackage[T1]{fontenc} \usepackage{booktabs,textcomp}", ""]
    for section in sections:
        lines += [f"% {one_line(section.title)}"]
        for table in section.tables:
            lines += _latex_table(table, section.title)
    return "\n".join(lines).rstrip() + "\n"


def _latex_table(table: Table, section: str) -> list[str]:
    align = "".join("l" if is_text else "r" for is_text in table.is_text)
    caption = f"{table.title} ({section})"
    body = [" & ".join(map(escape_latex, row)) + r" \\" for row in table.rows]
    notes = [r"\par\footnotesize " + escape_latex(" ".join(table.notes))] if table.notes else []
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        " & ".join(map(escape_latex, table.columns)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *notes,
        r"\end{table}",
        "",
    ]


def to_html(table: Table) -> str:
    """Write one table as an HTML fragment."""
    classes = ["w" if is_text else "n" for is_text in table.is_text]

    def row(tag: str, cells: Sequence[str]) -> str:
        inside = "".join(
            f'<{tag} class="{kind}">{escape_html(cell)}</{tag}>'
            for cell, kind in zip(cells, classes, strict=True)
        )
        return f"<tr>{inside}</tr>"

    body = "\n".join(row("td", cells) for cells in table.rows)
    notes = "".join(f'<p class="note">{escape_html(note)}</p>' for note in table.notes)
    return (
        f'<div class="table"><h4>{escape_html(table.title)}</h4>\n<div class="scroll"><table>'
        f"<thead>{row('th', table.columns)}</thead>\n<tbody>{body}</tbody></table></div>"
        f"{notes}</div>"
    )


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
