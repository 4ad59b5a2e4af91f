"""A selection on one page of Markdown, and the data card that goes with it.

The texts are the templates ``report.md.jinja`` and ``card.md.jinja`` beside this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gotd.selection_report.measures import EXCERPT_CHARS, plain_excerpt

MOST_DOMAINS, MOST_NAMES, MOST_VALUES = 30, 30, 3


def report(manifest: Mapping[str, Any], summaries: Mapping[int, Mapping[str, Any]]) -> str:
    """Return the report as Markdown.

    Args:
        manifest: What `gotd.pipeline.output` records about the run.
        summaries: What was chosen, by budget (`SelectedRows.summary`).
    """
    diagnostics = manifest["diagnostics"].items()
    context = {
        **manifest,
        "summaries": [summaries[budget] for budget in sorted(summaries)],
        "largest": summaries[max(summaries)],
        "blank": sum(manifest["blank_rows"].values()),
        "unreadable": manifest["unreadable_rows"],
        "certificate": {k: v for k, v in diagnostics if isinstance(v, int | float | str)},
    }
    return _templates().get_template("report.md.jinja").render(context)


def card(
    manifest: Mapping[str, Any],
    summaries: Mapping[int, Mapping[str, Any]],
    files: Mapping[int, str],
    licence: str | None,
) -> str:
    """Return the data card, a README as the Hugging Face Hub reads it.

    Args:
        manifest: What is recorded about the run.
        summaries: What was chosen, by budget.
        files: The file of each budget.
        licence: Identifier of the texts' licence, where it is known.
    """
    context = {
        **manifest,
        "largest": summaries[max(summaries)],
        "files": sorted(files.items()),
        "licence": licence,
    }
    return _templates().get_template("card.md.jinja").render(context)


@cache
def _templates() -> Environment:
    """Return the templates; what they show of the data goes through the filter ``plain``."""
    templates = Environment(  # noqa: S701 - Markdown, in which `plain` escapes HTML, too
        loader=PackageLoader("gotd.selection_report", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    commas = "{:,}".format
    templates.filters |= {"brief": brief, "commas": commas, "escaped": _escaped, "plain": plain}
    templates.globals |= {"most_domains": MOST_DOMAINS, "most_names": MOST_NAMES}
    return templates


def brief(value: Any) -> str:
    """Format a value of a manifest: few digits, the start of a checksum, the end of a list."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        if len(value) > MOST_VALUES:
            return f"{len(value)} values, the last {brief(value[-1])}"
        return ", ".join(map(brief, value))
    if isinstance(value, str):
        return value[:12] if re.fullmatch("[0-9a-f]{40,64}", value) else value
    return json.dumps(value)


def plain(text: str, length_chars: int = EXCERPT_CHARS) -> str:
    """Cut a text to one line that neither Markdown nor HTML will interpret."""
    return _escaped(plain_excerpt(text, length_chars))


def _escaped(line: str) -> str:
    """Escape what Markdown would interpret in a line that is already safe for HTML."""
    return re.sub(r"([\\`*_\[\]|~!])", r"\\\1", line)


def section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """Return a section: a table, whose cells are taken as they are, and a note below it.

    Args:
        title: Of the section; without one there is no heading.
        head: Names of the columns.
        rows: Cells of each row.
        note: Text below the table.
    """
    lines = ["", f"## {title}", ""] if title else [""]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", note] if note else [*lines, ""])
