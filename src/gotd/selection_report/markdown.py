"""A selection on one page of Markdown, and the data card that goes with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gotd.selection_report.measures import plain_excerpt

MOST_DOMAINS, MOST_NAMES = 30, 30

_NAMES = {
    "target": "read target",
    "candidates": "read candidates",
    "target_embeddings": "embed target",
    "candidates_embeddings": "embed candidates",
    "scored": "score",
    "select": "select, write, report",
}


def report(manifest: Mapping[str, Any], summaries: Mapping[int, Mapping[str, Any]]) -> str:
    """Write the report.

    Args:
        manifest: What `gotd.pipeline.output` writes down about the run.
        summaries: What was chosen, by budget (`gotd.pipeline.select.Chosen.summary`).
    """
    largest = summaries[max(summaries)]
    request = manifest["request"]
    parts = [
        f"# Selection by {request['method']}\n",
        f"`{manifest['command']}`\n",
        f"{manifest['rows']['candidates']:,} candidates, {manifest['rows']['target']:,} target "
        f"texts; encoder {request['encoder'] or 'none'}, seed {request['seed']}."
        + _blank(manifest["blank_rows"]),
        _budgets(summaries),
        _domains(summaries),
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
    """Write the data card, a README as the Hugging Face Hub reads it.

    Args:
        manifest: What is written down about the run.
        summaries: What was chosen, by budget.
        files: The file of each budget.
        licence: Identifier of the texts' licence, where it is known.
    """
    request, largest = manifest["request"], summaries[max(summaries)]
    head = ["---", f"license: {licence or 'unknown'}", "tags:", "- data-selection", "configs:"]
    for budget, name in sorted(files.items()):
        named = "default" if len(files) == 1 else f'"{budget}"'
        head += [f"- config_name: {named}", f"  data_files: {name}"]
    counts = markdown_table(
        ("source", "rows"),
        [(plain(name), f"{rows:,}") for name, rows in largest["domains"].items()],
    )
    stated = (
        f"Stated by who made the selection: {licence}."
        if licence
        else "Not known. The texts keep the terms of the sources they come from; look these up "
        "before you pass the texts on."
    )
    inputs = {side: _names(parts) for side, parts in manifest["inputs"].items()}
    return "\n".join(
        [
            *head,
            "---\n",
            "# Selected passages\n",
            f"{largest['rows']:,} of {manifest['rows']['candidates']:,} passages, chosen by "
            f"`{request['method']}` for a target of {manifest['rows']['target']:,} texts "
            f"with gotd {manifest['versions']['gotd']}. Columns: `id`, `text`, `score` (lower was "
            "selected first), `rank` (from 1), `domain`; with `--explain` also `target_id` and "
            "`target_share`. `manifest.json` has everything needed to get it again, `report.md` "
            "shows what was chosen.\n",
            "## Where the texts come from\n",
            f"Candidates: {inputs['candidates']}. Target: {inputs['target']}.\n",
            counts,
            "\n## Licence\n",
            stated,
            "\n## Biases and limits\n",
            "The selection is like its target and as one-sided as that is: it is not a sample of "
            "its sources, and counts by source differ from the pool's (see `report.md`). Texts "
            "were chosen by machine and not read by anybody; they may hold errors, personal data "
            "or offensive passages. Whether they help a model has to be measured.\n",
        ]
    )


def _names(parts: Sequence[Mapping[str, Any]]) -> str:
    found = [plain(str(p.get("file") or p.get("hub") or p.get("table"))) for p in parts]
    more = f" and {len(found) - MOST_NAMES:,} more" if len(found) > MOST_NAMES else ""
    return ", ".join(found[:MOST_NAMES]) + more


def _blank(blank: Mapping[str, int]) -> str:
    total = sum(blank.values())
    return f" {total:,} rows without a visible character were left out." if total else ""


def _budgets(summaries: Mapping[int, Mapping[str, Any]]) -> str:
    rows = []
    for budget, found in sorted(summaries.items()):
        lengths, near = found["length_chars"], found["coverage"]
        rows.append(
            (
                f"{budget:,}",
                f"{found['distinct_rows']:,}",
                f"{found['duplicate_texts']:,}",
                f"{lengths['selected']['q50']:.0f} ({lengths['pool']['q50']:.0f})",
                "" if near is None else f"{near['mean_distance']:.4g}",
                "" if near is None else f"{near['mean_distance_random']:.4g}",
                "" if near is None else f"{100 * near['share_nearer']:.0f} %",
            )
        )
    head = (
        "budget",
        "distinct rows",
        "near-copies",
        "median chars (pool)",
        "distance to target",
        "at random",
        "targets nearer than at random",
    )
    notes = "\nNear-copies have the letters and digits of another chosen row. "
    near = summaries[max(summaries)]["coverage"]
    if near is not None:
        notes += (
            f"Distances are from {near['targets']:,} target texts to the nearest of "
            f"{near['rows']:,} chosen, or random, rows."
        )
    return "\n## What was chosen\n\n" + markdown_table(head, rows) + "\n" + notes


def _domains(summaries: Mapping[int, Mapping[str, Any]]) -> str:
    largest = max(summaries)
    names = list(summaries[largest]["expected_domains"])
    head = ["domain", *(f"{budget:,}" for budget in sorted(summaries)), "at random", "ratio"]
    rows = []
    for name in names[:MOST_DOMAINS]:
        selected = summaries[largest]["domains"].get(name, 0)
        expected = summaries[largest]["expected_domains"][name]
        counts = (f"{summaries[b]['domains'].get(name, 0):,}" for b in sorted(summaries))
        ratio = selected / expected
        rows.append((plain(name), *counts, f"{expected:,.0f}", f"{ratio:.2f}"))
    left_out = len(names) - MOST_DOMAINS
    note = f"\n{left_out:,} more domains gave fewer rows.\n" if left_out > 0 else ""
    return (
        f"\n## By domain\n\n{markdown_table(head, rows)}\n{note}\n"
        f"`at random` and `ratio` are for a budget of {largest:,}."
    )


def _certificate(diagnostics: Mapping[str, Any]) -> str:
    plain = {
        name: value
        for name, value in diagnostics.items()
        if isinstance(value, int | float | str | bool)
    }
    if not plain:
        return ""
    rows = [(name, _number(value)) for name, value in plain.items()]
    return "\n## What the method reports\n\n" + markdown_table(("", ""), rows)


def _targets(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    rows = [
        (plain(t["target_id"]), f"{100 * t['share']:.2f} %", f"{t['rows']:,}", _excerpt(t["text"]))
        for t in found["largest"]
    ]
    return (
        f"\n## Which targets are served\n\n{found['targets']:,} targets, served as evenly "
        f"as {found['effective_targets']:.1f} with equal shares; {found['starved_targets']:,} "
        "get under a tenth of an equal share. Those that get most:\n\n"
        + markdown_table(("target", "share of the mass", "rows it comes first for", "text"), rows)
    )


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
    return "\n## Time\n\n" + markdown_table(head, rows)


def _first_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = [
        (str(row["rank"]), plain(row["domain"]), f"{row['score']:.4g}", _markdown(row["excerpt"]))
        for row in rows
    ]
    head = ("rank", "domain", "score", "text")
    return "\n## First rows\n\n" + markdown_table(head, shown) + "\n"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if not isinstance(value, str) else plain(value)


def _excerpt(text: str) -> str:
    return _markdown(plain_excerpt(text, 120))


def plain(text: str) -> str:
    """Cut a text to one line that neither Markdown nor HTML will interpret."""
    return _markdown(plain_excerpt(text))


def _markdown(line: str) -> str:
    """Escape what Markdown would interpret in a line that is already safe for HTML."""
    return re.sub(r"([\\`*_\[\]|~!])", r"\\\1", line)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; cells are taken as they are."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
