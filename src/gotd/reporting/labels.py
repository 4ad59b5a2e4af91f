"""The number of labels that a selection is worth (Figure 1 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gotd.reporting.render import Table
from gotd.reporting.statistics import Interval
from gotd.reporting.sweeps import Sweep, averages, numbers

LABELS = "limits.labels="
"""The axis of a sweep that limits the labels of the target."""


def labels_table(sweep: Sweep) -> Table | None:
    """Estimate how many labels the arm without a selection needs for the same score.

    Between two measured numbers of labels the mean is taken to grow evenly with their
    logarithm; nothing is extrapolated. ``None`` where labels do not vary.
    """
    limits = [int(value) for value in numbers(sweep, LABELS)]
    others = [axis for axis in sweep.axes if axis not in ("arm", LABELS)]
    intervals, _ = averages(sweep.cells, ("arm", LABELS), (*others, "task")) if limits else ({}, {})
    without = [(n, intervals["none", n]) for n in limits if ("none", n) in intervals]
    if len(limits) < 2 or not without:
        return None
    factor = sweep.metric.factor
    rows = tuple(
        (arm, f"{n:,}", f"{mean * factor:.2f}", _needed(mean, without))
        for arm in sweep.arms
        for n in limits
        if arm != "none" and (arm, n) in intervals
        for mean in [intervals[arm, n].mean]
    )
    notes = (
        "Labels that fine-tuning alone (arm none) needs for the same mean, read off its curve; "
        "the means carry the intervals of the table of scores.",
    )
    columns = ("arm", "labels", "score", "labels without a selection")
    return Table("What a selection is worth in labels", columns, rows, notes)


def _needed(score: float, curve: Sequence[tuple[int, Interval]]) -> str:
    """Interpolate the fewest labels at which the curve reaches a score."""
    points = [(labels, interval.mean) for labels, interval in curve if interval.n]
    if np.isnan(score) or not points:
        return ""
    if points[0][1] >= score:
        return f"at most {points[0][0]:,}"
    for (fewer, low), (more, high) in zip(points, points[1:], strict=False):
        if high >= score:
            share = (score - low) / (high - low)
            return f"{fewer * (more / fewer) ** share:,.0f}"
    return f"more than {points[-1][0]:,}"
