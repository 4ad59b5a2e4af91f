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
from gotd.selection_report.opening import opening

MOST_DOMAINS, MOST_NAMES, MOST_VALUES = 30, 30, 3


def report(manifest: Mapping[str, Any], summaries: Mapping[int, Mapping[str, Any]]) -> str:
    """Return the report as Markdown.

    Args:
        manifest: What `gotd.pipeline.written` records about the run.
        summaries: What was chosen, by budget (`SelectedRows.summary`).
    """
    diagnostics = manifest["diagnostics"].items()
    given = {
        "blank": sum(manifest["blank_rows"].values()),
        "unreadable": manifest["unreadable_rows"],
        "short": sum(manifest["short_rows"].values()),
        "opening": opening(manifest, summaries[max(summaries)]),
        "certificate": {k: v for k, v in diagnostics if isinstance(v, int | float | str)},
    }
    return _render("report", manifest, summaries, **given)


def weights_report(manifest: Mapping[str, Any]) -> str:
    """Return the report on weights without a selection, as Markdown.

    Args:
        manifest: What `gotd.pipeline.written` records about the run.
    """
    return _templates().get_template("weights.md.jinja").render(**manifest, alone=True)


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
    prefix = "gotd_" if "gotd_score" in manifest["columns"] else ""
    more = {"files": sorted(files.items()), "licence": licence, "prefix": prefix}
    return _render("card", manifest, summaries, **more)


def _render(
    template: str,
    manifest: Mapping[str, Any],
    summaries: Mapping[int, Mapping[str, Any]],
    **more: Any,
) -> str:
    """Fill a template with a manifest, the summaries by budget, and what else it shows."""
    ordered = [summaries[budget] for budget in sorted(summaries)]
    context = {**manifest, "summaries": ordered, "largest": ordered[-1], **more}
    return _templates().get_template(f"{template}.md.jinja").render(context)


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
