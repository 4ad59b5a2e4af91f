"""The report on a selection as a page: what its Markdown says, and a map of its rows.

The page is one file that loads nothing. Its content policy allows one script, by its
checksum: the one that shows the text of a mark. Without a script the map is a picture, in
which a browser shows the text of a mark as its title.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from gotd.reporting.map_layout import layout
from gotd.reporting.render import render
from gotd.selection_report.map_rows import SelectionMap

_READING = (
    "Each mark is a row. Marks that are near each other have similar texts, as far as two "
    "dimensions can show it. Black crosses are the target, marks with a dark outline were chosen, "
    "and small pale dots are the pool."
)
_NUMBER = re.compile(r"[\d.,%()e+\-\s]*")


def selection_page(
    report: str,
    manifest: Mapping[str, Any],
    summary: Mapping[str, Any],
    sampled: SelectionMap | None,
) -> str:
    """Return the page.

    Args:
        report: The report in Markdown (`gotd.selection_report.markdown.report`).
        manifest: What is recorded about the run.
        summary: What was chosen (`SelectedRows.summary`), for the largest budget.
        sampled: The map; ``None`` if there is none.
    """
    opening, tables = _html(report)
    script = Path(__file__).with_name("templates").joinpath("map.js").read_text("utf-8")
    method = manifest["request"]["method"]
    return render(
        "selection.html",
        f"Selection by {method}",
        [],
        opening=opening,
        tables=tables,
        sentence=_no_map(method) if sampled is None else _READING,
        notes=[] if sampled is None else _notes(sampled),
        map=None if sampled is None else layout(sampled, summary["domains"]),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


# The text of the report ----------------------------------------------------------------


def _html(report: str) -> tuple[Markup, Markup]:
    """Convert the report to HTML: what is before its first section, and the rest.

    HTML, links and images in it stay text, should the report ever fail to escape one.
    """
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")
    parser.disable(["html_block", "html_inline", "link", "image", "autolink", "reference"])
    tokens = parser.parse(report)
    _align_numbers(tokens)
    sections = (i for i, t in enumerate(tokens) if t.type == "heading_open" and t.tag == "h2")
    first = next(sections, len(tokens))
    parts = (tokens[:first], tokens[first:])
    before, after = (
        parser.renderer.render(part, parser.options, {})
        .replace("<table>", '<div class="scroll"><table>')  # a cell has no tag: it is escaped
        .replace("</table>", "</table></div>")
        for part in parts
    )
    return Markup(before), Markup(after)


def _align_numbers(tokens: Sequence[Token]) -> None:
    """Mark the cells of a table as text or numbers, as the page aligns them."""
    cells: list[list[Token]] = []
    column = 0
    for number, token in enumerate(tokens):
        if token.type == "table_open":
            cells = []
        elif token.type == "tr_open":
            column = 0
        elif token.type in ("th_open", "td_open"):
            cells += [[]] * (column == len(cells))
            cells[column] = [*cells[column], token]
            token.meta["content"] = tokens[number + 1].content
            column += 1
        elif token.type == "table_close":
            for members in cells:
                body = [one.meta["content"] for one in members if one.tag == "td"]
                numbers = any(body) and all(_NUMBER.fullmatch(content) for content in body)
                for one in members:
                    one.attrSet("class", "n" if numbers else "w")


# The map -------------------------------------------------------------------------------


def _no_map(method: str) -> str:
    return (
        f"There is no map: {method} compares no vectors of the rows, and none were computed. "
        "With the default encoder and explanations of each row (--explain) there is one."
    )


def _notes(sampled: SelectionMap) -> list[str]:
    """Return what is below the map: what is shown, and how far it can be trusted."""
    shown = [len(kind) for kind in (sampled.pool, sampled.target, sampled.selected)]
    pool, target, chosen = (
        f"{count:,} of {total:,}" for count, total in zip(shown, sampled.rows, strict=True)
    )
    notes = [
        f"Shown are {pool} candidates, {target} target texts and {chosen} chosen rows, taken by a "
        "hash of their ids. So the kinds are not shown in proportion to each other.",
        f"The axes are the two principal components of the vectors that {sampled.space} gives to "
        "pool and target, each side with half of the weight.",
    ]
    if sampled.explained is None:
        notes.append("All these vectors are equal, so all marks are in one place.")
    else:
        notes.append(
            f"They have {100 * sampled.explained:.0f} % of the variance, so rows that are near "
            "each other here can be far apart in the space that the method uses."
        )
    if sampled.unreadable:
        notes.append(
            f"{sampled.unreadable:,} sampled rows are not shown: the encoder knows no word of them."
        )
    return notes
