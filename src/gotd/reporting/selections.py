"""What every arm selected, beside chance and beside the other arms.

Users ask first which corpus dominates, whether rows repeat, how long they are and how much
two methods agree; these two tables answer that from the selection reports in the records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gotd.reporting.cells import Block
from gotd.reporting.render import Table

_ARM = frozenset({"arm"})


def selections_table(block: Block) -> Table | None:
    """Describe each arm's selections, means over tasks and seeds; ``None`` without any."""
    measures: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
        "rows": lambda s: s["rows"],
        "distinct": lambda s: s["distinct_rows"],
        "repeated texts": lambda s: s.get("duplicate_texts"),
        "median chars": lambda s: _at(s, "lengths", "selected", "chars", "q50"),
        "pool chars": lambda s: _at(s, "lengths", "pool", "chars", "q50"),
        "distance to target": lambda s: _at(s, "coverage", "mean_distance"),
        "at random": lambda s: _at(s, "coverage", "mean_distance_random"),
        "nearer than random %": lambda s: _percent(_at(s, "coverage", "share_nearer")),
        "largest marginal error": lambda s: _at(s, "diagnostics", "marginal_error"),
    }
    rows = []
    for arm in block.arms:
        reports = [r["selection"] for r in block.of(arm) if r["selection"] is not None]
        if not reports:
            continue
        cells = [arm]
        for name, measure in measures.items():
            values = [v for report in reports if (v := measure(report)) is not None]
            over = max if name.startswith("largest") else np.mean
            cells.append(_short(float(over(values))) if values else "")
        rows.append(tuple(cells))
    if not rows:
        return None
    notes = (
        "Means over tasks and seeds; the marginal error is the largest of all solves.",
        "Distances are Euclidean, from each target point to the nearest selected row, beside a "
        "random selection of as many distinct rows.",
    )
    return Table("Selections", ("arm", *measures), tuple(rows), _ARM, notes)


def overlap_table(block: Block) -> Table | None:
    """Show how far two arms chose the same rows: Jaccard index in %, mean over cells.

    Reads ``selection.overlap`` (other arm to index), which stands in the records of a
    report only: what else was run is no part of a cell.
    """
    pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for arm in block.arms:
        for record in block.of(arm):
            for other, index in ((record["selection"] or {}).get("overlap") or {}).items():
                pairs[arm, other].append(100 * index)
    arms = [arm for arm in block.arms if any(arm in pair for pair in pairs)]
    if len(arms) < 2:
        return None
    rows = tuple(
        (arm, *(_short(_mean(pairs[arm, other])) if arm != other else "" for other in arms))
        for arm in arms
    )
    notes = ("Rows chosen by both arms in % of the rows chosen by either, for the same task.",)
    return Table("Overlap of selections", ("arm", *arms), rows, _ARM, notes)


def _at(report: Mapping[str, Any], *path: str) -> float | None:
    value: Any = report
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


def _short(value: float | None) -> str:
    """Write a number with three digits at least; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
