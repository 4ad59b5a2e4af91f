"""Tables of what every arm selected, compared with chance and with the other arms.

Users ask first which corpus dominates, whether rows repeat, how long they are and how much
two methods agree; these tables answer that from the selection reports in the records.
"""

from __future__ import annotations

import html
import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gotd.reporting.cells import Block
from gotd.reporting.render import Table
from gotd.selection_report.flags import EXPLAINED, ONE_DOMAIN, distinct_texts, flags

TRAINING_NOTE = (
    "Tokens and updates (optimiser steps) are those of pre-fine-tuning, all epochs; older records "
    "lack them. Distinct texts differ in a letter or digit."
)
SHOWN_ROWS = 5
SHOWN_CHARS = 240
# Where a selection report has each measure; older records have the second path.
_MEASURES: dict[str, tuple[str, ...]] = {
    "rows": ("rows",),
    "distinct": ("distinct_rows",),
    "repeated texts": ("duplicate_texts",),
    "distinct texts": ("distinct_texts",),
    "tokens": ("trained_tokens",),
    "updates": ("updates",),
    "median chars": ("length_chars.selected.q50", "lengths.selected.chars.q50"),
    "pool chars": ("length_chars.pool.q50", "lengths.pool.chars.q50"),
    "distance to target": ("coverage.mean_distance",),
    "at random": ("coverage.mean_distance_random",),
    "nearer than random %": ("coverage.share_nearer",),
    "largest marginal error": ("diagnostics.marginal_error",),
}


def selections_table(block: Block) -> Table | None:
    """Describe each arm's selections, means over tasks and seeds; ``None`` without any."""
    rows = []
    seen: set[str] = set()
    for arm in block.arms:
        reports = [{**s, "distinct_texts": distinct_texts(s)} for s in block.selections(arm)]
        row = {"arm": arm}
        for name, paths in _MEASURES.items():
            values = [v for report in reports if (v := _at(report, paths)) is not None]
            factor = 100 if name.endswith("%") else 1
            reduce = max if name.startswith("largest") else np.mean
            row[name] = _short(factor * float(reduce(values))) if values else ""
        counts = count_flags(reports)
        seen |= set(counts)
        row["flags"] = ", ".join(f"{name} ({n})" for name, n in counts.items())
        if reports:
            rows.append(row)
    return Table.of(
        "Selections",
        rows,
        "Means over tasks and seeds; the marginal error is the largest of all solves.",
        "Distances are Euclidean, from each target point to the nearest selected row; at random: "
        "the same for a random selection of as many distinct rows.",
        TRAINING_NOTE,
        *(f"Flag {name} (cells): {EXPLAINED[name]}." for name in EXPLAINED if name in seen),
    )


def count_flags(reports: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the flags of selections, by name in the order of `EXPLAINED`."""
    counts = Counter(name for report in reports for name in flags(report))
    return {name: counts[name] for name in EXPLAINED if counts[name]}


def training_amounts(block: Block) -> dict[str, dict[str, str]]:
    """Return what each arm trained on, means over cells; empty for older records.

    Returns:
        Cells by heading (tokens, updates, distinct texts) and arm.
    """
    cells: dict[str, dict[str, str]] = {"tokens": {}, "updates": {}, "distinct texts": {}}
    for arm in block.arms:
        reports = [s for s in block.selections(arm) if s.get("updates") is not None]
        measured = (
            [s["trained_tokens"] for s in reports],
            [s["updates"] for s in reports],
            [n for s in reports if (n := distinct_texts(s)) is not None],
        )
        for of, values in zip(cells.values(), measured, strict=True):
            of[arm] = f"{float(np.mean(values)):,.0f}" if values else ""
    return cells if any(cells["updates"].values()) else {}


def flags_note(block: Block) -> tuple[str, ...]:
    """List arms whose budget is no equal amount of text; empty if there is none."""
    said = []
    for arm in block.arms:
        reports = block.selections(arm)
        counts = count_flags(reports)
        # One domain is an outcome of some arms, and their aim.
        of = [f"{name} in {n} of {len(reports)} cells" for name, n in counts.items()]
        of = [text for name, text in zip(counts, of, strict=True) if name != ONE_DOMAIN]
        said += [f"{arm} is {', '.join(of)}"] if of else []
    return (f"Degenerate selections, see Selections: {'; '.join(said)}.",) if said else ()


def overlap_table(block: Block) -> Table | None:
    """Show the share of equal rows of two arms: Jaccard index in %, mean over cells.

    Reads ``selection.overlap`` (other arm to index), which only the records of a report
    have: what else was run is no part of a cell.
    """
    pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for arm in block.arms:
        for report in block.selections(arm):
            for other, index in (report.get("overlap") or {}).items():
                pairs[arm, other].append(100 * index)
    arms = [arm for arm in block.arms if any(arm in pair for pair in pairs)]
    if len(arms) < 2:
        return None
    rows = tuple(
        (arm, *(_short(float(np.mean(of))) if (of := pairs.get((arm, o))) else "" for o in arms))
        for arm in arms
    )
    notes = ("Rows chosen by both arms in % of the rows chosen by either, for the same task.",)
    return Table("Overlap of selections", ("arm", *arms), rows, notes)


def first_rows_table(block: Block) -> Table | None:
    """Show the first rows that each arm selected for each task; ``None`` without any.

    A selection report has ``first_rows``: objects with ``id``, ``domain`` and ``excerpt``.
    An excerpt is HTML-escaped already and is unescaped here, because every cell is escaped
    once, when it is rendered. The lowest seed is shown.
    """
    rows = []
    for task, arm in itertools.product(block.tasks, block.arms):
        for report in block.selections(arm, task)[:1]:
            first = (report.get("first_rows") or [])[:SHOWN_ROWS]
            for rank, selected in enumerate(first, start=1):
                text = html.unescape(str(selected.get("excerpt") or ""))
                row = {
                    "task": task,
                    "arm": arm,
                    "rank": str(rank),
                    "id": str(selected.get("id", "")),
                    "domain": str(selected.get("domain") or ""),
                    "text": text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " …",
                }
                rows.append(row)
    return Table.of("First selected rows", rows)


def _at(report: Mapping[str, Any], paths: Sequence[str]) -> float | None:
    """Return the number at the first path that a report has, ``None`` without one."""
    for path in paths:
        value: Any = report
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            return value
    return None


def _short(value: float) -> str:
    """Format a number with three digits at least."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
