"""A selection on one page of Markdown, and the data card that goes with it.

The texts are the templates ``report.md.jinja`` and ``card.md.jinja`` beside this module.
Names and texts of others are shown as code: nothing in it is interpreted, and who reads the
file itself sees them as they are.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gotd.selection_report.flags import flags
from gotd.selection_report.meanings import MEANINGS
from gotd.selection_report.measures import EXCERPT_CHARS, excerpt
from gotd.selection_report.opening import opening
from gotd.storage.printing import printable

MOST_DOMAINS, MOST_NAMES, MOST_VALUES, NAME_CHARS = 30, 30, 3, 80


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
        "opening": opening(manifest, summaries[max(summaries)], _name),
        "certificate": {k: v for k, v in diagnostics if isinstance(v, int | float | str)},
    }
    unreadable = {"unreadable_rows": manifest["unreadable_rows"]}
    flagged = {n: {**s, "flags": flags({**s, **unreadable}, _name)} for n, s in summaries.items()}
    return _render("report", manifest, flagged, **given)


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
    """Return the templates; what they show of the data goes through ``code`` or ``cell``."""
    templates = Environment(  # noqa: S701 - Markdown, in which nothing in code is interpreted
        loader=PackageLoader("gotd.selection_report", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "brief": brief,
        "cell": cell,
        "code": code,
        "commas": "{:,}".format,
        "typed": _typed,
        "unescaped": html.unescape,
        "value": value_cell,
        "yaml_string": _yaml_string,
    }
    constants = {"meanings": MEANINGS, "most_domains": MOST_DOMAINS, "most_names": MOST_NAMES}
    templates.globals |= constants
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


def code(text: str, length_chars: int = EXCERPT_CHARS) -> str:
    """Cut a text to one line of code, in which neither Markdown nor HTML is interpreted."""
    return _fenced(excerpt(text, length_chars))


def cell(text: str, length_chars: int = EXCERPT_CHARS) -> str:
    """Cut a text to one line of code in a table, where a bar would end the cell."""
    return code(text, length_chars).replace("|", "\\|")


def value_cell(text: str) -> str:
    """Return a value as it stands in a table: numbers and truth values as they are, else code."""
    return text if re.fullmatch(r"[-+]?[\d.,]+(e[-+]?\d+)?|true|false", text) else cell(text)


def _yaml_string(name: str) -> str:
    """Return a name as YAML has it, in quotes unless it is simple; JSON is YAML."""
    return name if re.fullmatch(r"[\w./-]*[A-Za-z][\w./-]*", name) else json.dumps(name)


def _name(text: str) -> str:
    return code(text, NAME_CHARS)


def _typed(command: str) -> str:
    """Return a command as code, of its full length."""
    return _fenced(printable(command))


def _fenced(line: str) -> str:
    """Return a line between more backticks than stand together in it; nothing for nothing."""
    if not line:
        return ""
    together = {len(run) for run in re.findall("`+", line)}
    fence = "`" * next(n for n in range(1, len(together) + 2) if n not in together)
    space = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{space}{line}{space}{fence}"


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
