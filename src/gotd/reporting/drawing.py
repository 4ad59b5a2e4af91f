"""Elements that every figure shares: style, colours, panels, dots with their intervals.

Vector files are the same bytes for the same records: no date, salted ids, text as text.
Colours are Okabe and Ito's, which colour-blind readers can distinguish; markers differ too.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gotd.evaluation.metrics import Metric
from gotd.reporting.cells import Block
from gotd.reporting.render import one_line
from gotd.reporting.statistics import Interval
from gotd.selectors.registry import colours

_SPARE = ("#7F6A00", "#8B4A9E", "#3C8C8C", "#A0522D", "#4B6CB7", "#6B8E23")
FILLS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
LOWER = "lower is better"
_MARKERS = "osD^vP*X<>h"
STYLE = mpl.rc_params_from_file(
    Path(__file__).with_name("drawing.mplstyle"), use_default_template=False
)


FAR = 1.5
"""A number is far from others if it lies so many times their range outside of it."""


def to_svg(figure: Figure) -> str:
    """Write a figure as SVG text that depends on nothing but its content."""
    out = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "gotd"})
    return out.getvalue()


def grid(
    panels: int,
    width: float,
    height: float,
    names: Sequence[str],
    most_columns: int = 3,
    share_rows: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Build a figure of panels with space for the names of arms.

    With rows shared, only the left panels have the names.
    """
    columns = min(panels, most_columns)
    rows = -(-panels // columns)
    longest = max(map(len, names))
    figure = Figure(figsize=(width * columns + 0.07 * longest + 0.3, height * rows + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_rows)
    flat = list(axes.flat)
    for spare in flat[panels:]:
        spare.remove()
    return figure, flat[:panels]


def leave_far_out(axis: Axes, which: str, others: Sequence[float], far: float, name: str) -> None:
    """End an axis at most of its numbers, if one of them is far away; its value is written there.

    Args:
        axis: The axis, after everything was plotted.
        which: ``x`` or ``y``.
        others: The numbers that stay in view, ends of intervals included.
        far: The number that may lie far away.
        name: Its name, for the note.
    """
    known = [number for number in others if np.isfinite(number)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    room = high - low
    if not room or not np.isfinite(far) or low - FAR * room <= far <= high + FAR * room:
        return
    axis.set(**{f"{which}lim": (low - 0.08 * room, high + 0.08 * room)})
    end = 0.98 if far > high else 0.02
    place = (end, 0.98) if which == "x" else (0.98, end)
    aligned = "right" if which == "y" or far > high else "left"
    axis.text(
        *place,
        f"{name}: {far:.4g}",
        transform=axis.transAxes,
        horizontalalignment=aligned,
        verticalalignment="bottom" if which == "y" and far < low else "top",
        fontsize=8,
        color="#666666",
    )


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Set the labels of the rows of an axis, the first on top."""
    axis.set_yticks(range(len(names)), [one_line(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)


def whisker(axis: Axes, interval: Interval, y: int, factor: float, block: Block, arm: str) -> None:
    """Plot a dot with its interval; a single seed has a hollow dot and no interval."""
    if interval.n == 0:
        return
    half = None if np.isnan(interval.half_width) else [interval.half_width * factor]
    look_of_arm = look(block, arm)
    face = "white" if half is None else look_of_arm["color"]
    style = {**look_of_arm, "linestyle": "none", "linewidth": 1.6, "markerfacecolor": face}
    axis.errorbar([interval.mean * factor], [y], xerr=half, markersize=5, capsize=2.5, **style)


def look(block: Block, row: str) -> dict[str, Any]:
    """Return colour, marker, dash and label of a row."""
    arm, variant = block.names[row]
    arms = list(dict.fromkeys(block.names[row][0] for row in block.arms))
    return {**style(arm, arms, is_variant=variant != ""), "label": one_line(row)}


def style(arm: str, arms: Sequence[str], *, is_variant: bool = False) -> dict[str, Any]:
    """Return colour, marker, dash and label of one arm of several."""
    stated = colours()
    others = sorted(set(arms) - set(stated))
    dashed = arm in ("oracle", "none", "curated_tapt_duplicates") or is_variant
    return {
        "color": stated.get(arm) or _SPARE[others.index(arm) % len(_SPARE)],
        "marker": _MARKERS[arms.index(arm) % len(_MARKERS)],
        "linestyle": ":" if arm == "half_oracle" else "--" if dashed else "-",
        "label": one_line(arm),
    }


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Add one legend right of the panels, each name once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)


def axis_name(metric: Metric) -> str:
    """Return a metric's name for readers, with its factor and, where it is down, its direction."""
    name = one_line(metric.name).replace("_", " ")
    scaled = f"{name} × 100" if metric.factor > 1 else name
    return scaled if metric.higher_is_better else f"{scaled}\n({LOWER})"
