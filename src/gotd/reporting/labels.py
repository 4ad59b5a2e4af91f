"""Score against the number of labels: what a selection is worth in labels (Figure 1)."""

from __future__ import annotations

from collections import defaultdict

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gotd.reporting.cells import Block, average_interval, display_factor
from gotd.reporting.drawing import STYLE, axis_name, look
from gotd.reporting.render import Table
from gotd.reporting.statistics import Interval
from gotd.reporting.tables import AVERAGE, WORDS

Curve = list[tuple[int, str, Interval]]
"""Label limit, row of the block and score, fewest labels first."""


def label_curves(block: Block) -> dict[str, Curve]:
    """Sort the rows of each arm by their label limit; empty unless several were run."""
    curves: dict[str, Curve] = defaultdict(list)
    for row in block.arms:
        limits = {(r["config"].get("limits") or {}).get("labels") for r in block.of(row)}
        if len(limits) == 1 and (labels := limits.pop()) is not None:
            curves[block.names[row][0]].append((labels, row, average_interval(block, row)))
    curves = {arm: sorted(curve, key=lambda point: point[0]) for arm, curve in curves.items()}
    several = any(len({labels for labels, _, _ in curve}) > 1 for curve in curves.values())
    return curves if several and block.comparable else {}


def labels_figure(block: Block) -> Figure | None:
    """Draw score against labels, a line per arm; ``None`` where labels were not swept."""
    curves = label_curves(block)
    if not curves:
        return None
    factor = display_factor(block.metric)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8))
        axis = figure.subplots()
        for place, (arm, curve) in enumerate(curves.items()):
            # A nudge on the logarithmic axis keeps whiskers of different arms apart.
            xs = [labels * 1.012 ** (place - len(curves) / 2) for labels, _, _ in curve]
            means = [i.mean * factor for _, _, i in curve]
            halves = [np.nan_to_num(i.half_width) * factor for _, _, i in curve]
            line = "--" if arm == "none" else "-"
            style = {**look(block, curve[0][1]), "label": arm, "linestyle": line}
            axis.errorbar(xs, means, yerr=halves, markersize=4, linewidth=1.4, capsize=2, **style)
        limits = sorted({labels for curve in curves.values() for labels, _, _ in curve})
        axis.set_xscale("log")
        axis.set_xticks(limits, [f"{n:,}" for n in limits])
        axis.minorticks_off()
        axis.set_xlabel("labelled rows")
        axis.set_ylabel(AVERAGE if len(block.tasks) > 1 else axis_name(block.metric))
        figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=8)
        axis.set_title("Score by labels, mean and 95 % interval over seeds", loc="left")
    return figure


def labels_table(block: Block) -> Table | None:
    """Say how many labels the arm without a selection needs for the same score.

    Between two measured numbers of labels the mean is taken to grow evenly with their
    logarithm; beyond the most that were run nothing is said but that.
    """
    curves = label_curves(block)
    one_step = curves.pop("none", [])
    if not curves or not one_step:
        return None
    factor = display_factor(block.metric)
    rows = [
        (arm, f"{labels:,}", f"{interval.mean * factor:.2f}", _needed(interval.mean, one_step))
        for arm, curve in curves.items()
        for labels, _, interval in curve
    ]
    notes = (
        "Labels that fine-tuning alone (arm none) needs for the same mean, read off its curve; "
        "the means carry the intervals of the table of scores.",
    )
    columns = ("arm", "labels", "score", "labels without a selection")
    return Table("What a selection is worth in labels", columns, tuple(rows), WORDS, notes)


def _needed(score: float, curve: Curve) -> str:
    """Interpolate the fewest labels at which the curve reaches a score."""
    points = [(labels, interval.mean) for labels, _, interval in curve if interval.n]
    if np.isnan(score) or not points:
        return ""
    if points[0][1] >= score:
        return f"at most {points[0][0]:,}"
    for (fewer, low), (more, high) in zip(points, points[1:], strict=False):
        if high >= score:
            share = (score - low) / (high - low)
            return f"{fewer * (more / fewer) ** share:,.0f}"
    return f"more than {points[-1][0]:,}"
