"""A selection on one page of Markdown, and the data card that goes with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gotd.selection_report.measures import EXCERPT_CHARS, plain_excerpt

MOST_DOMAINS, MOST_NAMES = 30, 30

_NAMES = {
    "target": "read target",
    "candidates": "read candidates",
    "target_embeddings": "embed target",
    "candidates_embeddings": "embed candidates",
    "scored": "score",
    "select": "select, write, report",
}

_CARD = """
# Selected passages

{rows:,} of {candidates:,} passages, chosen by `{method}` for a target of {target:,} texts with \
gotd {version}. Columns: `id`, `text`, `score` (lower was selected first), `rank` (from 1), \
`domain`; with `--explain` also `target_id` and `target_share`. `manifest.json` has everything \
needed to get it again, `report.md` shows what was chosen.

## Where the texts come from

Candidates: {candidate_names}. Target: {target_names}.
{sources}
## Licence

{licence}

## Biases and limits

The selection is like its target and as one-sided as that is: it is not a sample of its \
sources, and counts by source differ from the pool's (see `report.md`). Texts were chosen by \
machine and not read by anybody; they may hold errors, personal data or offensive passages. \
Whether they help a model has to be measured.
"""


def report(manifest: Mapping[str, Any], summaries: Mapping[int, Mapping[str, Any]]) -> str:
    """Return the report as Markdown.

    Args:
        manifest: What `gotd.pipeline.output` records about the run.
        summaries: What was chosen, by budget (`SelectedRows.summary`).
    """
    budgets = sorted(summaries)
    largest = summaries[budgets[-1]]
    request, rows = manifest["request"], manifest["rows"]
    blank = sum(manifest["blank_rows"].values())
    parts = [
        f"# Selection by {request['method']}\n",
        f"`{manifest['command']}`\n",
        f"{rows['candidates']:,} candidates, {rows['target']:,} target texts; "
        f"encoder {request['encoder'] or 'none'}, seed {request['seed']}."
        + (f" {blank:,} rows without a visible character were left out." if blank else ""),
        _budgets([summaries[budget] for budget in budgets]),
        _domains([summaries[budget] for budget in budgets]),
        _certificate(manifest["diagnostics"]),
        _targets(largest["targets"]),
        _times(manifest),
        _first_rows(largest["first_rows"]),
    ]
    return "\n".join(part for part in parts if part)


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
    head = ["---", f"license: {licence or 'unknown'}", "tags:", "- data-selection", "configs:"]
    for budget, name in sorted(files.items()):
        config = "default" if len(files) == 1 else f'"{budget}"'
        head += [f"- config_name: {config}", f"  data_files: {name}"]
    largest = summaries[max(summaries)]
    counts = [(plain(name), f"{rows:,}") for name, rows in largest["domains"].items()]
    unknown = (
        "Not known. The texts keep the terms of the sources they come from; look these up before "
        "you pass the texts on."
    )
    stated = f"Stated by who made the selection: {licence}."
    text = _CARD.format(
        rows=largest["rows"],
        candidates=manifest["rows"]["candidates"],
        target=manifest["rows"]["target"],
        method=manifest["request"]["method"],
        version=manifest["versions"]["gotd"],
        candidate_names=_names(manifest["inputs"]["candidates"]),
        target_names=_names(manifest["inputs"]["target"]),
        sources=section("", ("source", "rows"), counts),
        licence=stated if licence else unknown,
    )
    return "\n".join([*head, "---", text])


def _names(parts: Sequence[Mapping[str, Any]]) -> str:
    names = [plain(str(p.get("file") or p.get("hub") or p.get("table"))) for p in parts]
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _budgets(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of all budgets, ascending."""
    rows = []
    note = "Near-copies have the letters and digits of another chosen row."
    for summary in summaries:
        lengths, near = summary["length_chars"], summary["coverage"]
        distances = ("", "", "")
        if near is not None:
            distances = (
                f"{near['mean_distance']:.4g}",
                f"{near['mean_distance_random']:.4g}",
                f"{100 * near['share_nearer']:.0f} %",
            )
        rows.append(
            (
                f"{summary['rows']:,}",
                f"{summary['distinct_rows']:,}",
                f"{summary['duplicate_texts']:,}",
                f"{lengths['selected']['q50']:.0f} ({lengths['pool']['q50']:.0f})",
                *distances,
            )
        )
    if near is not None:
        note += (
            f" Distances are from {near['targets']:,} target texts to the nearest of "
            f"{near['rows']:,} chosen, or random, rows."
        )
    head = ("budget", "distinct rows", "near-copies", "median chars (pool)")
    head += ("distance to target", "at random", "targets nearer than at random")
    return section("What was chosen", head, rows, note)


def _domains(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows by domain of all budgets, ascending."""
    largest = summaries[-1]
    rows = []
    for name, expected in list(largest["expected_domains"].items())[:MOST_DOMAINS]:
        counts = [summary["domains"].get(name, 0) for summary in summaries]
        cells = [f"{count:,}" for count in counts]
        rows.append((plain(name), *cells, f"{expected:,.0f}", f"{counts[-1] / expected:.2f}"))
    note = f"`at random` and `ratio` are for a budget of {largest['rows']:,}."
    left_out = len(largest["expected_domains"]) - MOST_DOMAINS
    if left_out > 0:
        note = f"{left_out:,} more domains gave fewer rows. {note}"
    head = ["domain", *(f"{summary['rows']:,}" for summary in summaries), "at random", "ratio"]
    return section("By domain", head, rows, note)


def _certificate(diagnostics: Mapping[str, Any]) -> str:
    rows = [
        (name, _number(value))
        for name, value in diagnostics.items()
        if isinstance(value, int | float | str)
    ]
    return section("What the method reports", ("", ""), rows) if rows else ""


def _targets(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return ""
    rows = [
        (
            plain(target["target_id"]),
            f"{100 * target['share']:.2f} %",
            f"{target['rows']:,}",
            plain(target["text"], 120),
        )
        for target in summary["largest"]
    ]
    note = (
        f"{summary['targets']:,} targets, served as evenly as "
        f"{summary['effective_targets']:.1f} with equal shares; {summary['starved_targets']:,} "
        "get under a tenth of an equal share. Listed are those that get most."
    )
    head = ("target", "share of the mass", "rows it comes first for", "text")
    return section("Which targets are served", head, rows, note)


def _times(manifest: Mapping[str, Any]) -> str:
    rows = [
        (
            _NAMES[time["step"]],
            "found" if time["found"] else "built",
            f"{time['elapsed_s']:.1f}",
            f"{time['built_s']:.1f}",
            f"{time['peak_memory_gib']:.2f}",
        )
        for time in manifest["steps"]
    ]
    total = sum(time["elapsed_s"] for time in manifest["steps"])
    rows.append(("in all", "", f"{total:.1f}", "", f"{manifest['peak_memory_gib']:.2f}"))
    head = ("step", "", "seconds now", "seconds when built", "peak memory, GiB")
    return section("Time", head, rows)


def _first_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = [
        (str(row["rank"]), plain(row["domain"]), f"{row['score']:.4g}", _escaped(row["excerpt"]))
        for row in rows
    ]
    return section("First rows", ("rank", "domain", "score", "text"), shown)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if not isinstance(value, str) else plain(value)


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
