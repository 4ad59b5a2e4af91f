"""What every figure shares: style, colours, panels, dots with their intervals.

Vector files are the same bytes for the same records: no date, salted ids, text as text.
Colours are Okabe and Ito's, told apart by colour-blind readers; markers say it again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gotd.reporting.cells import Block, display_factor, lower_is_better
from gotd.reporting.render import one_line
from gotd.reporting.statistics import Interval
from gotd.selectors.registry import colours

_SPARE = ("#7F6A00", "#8B4A9E", "#3C8C8C", "#A0522D", "#4B6CB7", "#6B8E23")
FILLS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442")
LOWER = "lower is better"
_MARKERS = "osD^vP*X<>h"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "gotd",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a '$' in a name is a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


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
    block: Block,
    most_columns: int = 3,
    share_rows: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Lay out panels; with rows shared, only the left ones name the arms."""
    columns = min(panels, most_columns)
    rows = -(-panels // columns)
    longest = max(len(arm) for arm in block.arms)
    figure = Figure(figsize=(width * columns + 0.07 * longest + 0.3, height * rows + 0.4))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_rows)
    flat = list(axes.flat)
    for spare in flat[panels:]:
        spare.remove()
    return figure, flat[:panels]


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Label the rows of an axis, the first on top."""
    axis.set_yticks(range(len(names)), [one_line(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)


def whisker(axis: Axes, interval: Interval, y: int, factor: float, block: Block, arm: str) -> None:
    """Draw a dot with its interval; a single seed has a hollow dot and no interval."""
    if interval.n == 0:
        return
    style = look(block, arm)
    half = None if np.isnan(interval.half_width) else [interval.half_width * factor]
    axis.errorbar(
        [interval.mean * factor],
        [y],
        xerr=half,
        color=style["color"],
        marker=style["marker"],
        markersize=5,
        markerfacecolor="white" if half is None else style["color"],
        linewidth=1.6,
        capsize=2.5,
        linestyle="none",
    )


def colour(block: Block, row: str) -> str:
    """Give an arm its colour, the same in every figure of a block."""
    arm = block.names[row][0]
    stated = colours()
    others = sorted({a for a, _ in block.names.values()} - set(stated))
    return stated.get(arm) or _SPARE[others.index(arm) % len(_SPARE)]


def look(block: Block, row: str) -> dict[str, Any]:
    """Give colour, marker, dash and label of a row."""
    arm, variant = block.names[row]
    arms = list(dict.fromkeys(a for a, _ in (block.names[r] for r in block.arms)))
    dashed = arm in ("oracle", "none", "curated_tapt_duplicates") or variant != ""
    return {
        "color": colour(block, row),
        "marker": _MARKERS[arms.index(arm) % len(_MARKERS)],
        "linestyle": ":" if arm == "half_oracle" else "--" if dashed else "-",
        "label": one_line(row),
    }


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Put one legend beside the panels, each name once."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(found.values(), found.keys(), loc="outside right center", fontsize=8)


def axis_name(metric: str) -> str:
    """Name a metric for readers, with its factor and, where it is not up, its good direction."""
    name = one_line(metric).replace("_", " ")
    scaled = f"{name} × 100" if display_factor(metric) > 1 else name
    return f"{scaled}\n({LOWER})" if lower_is_better(metric) else scaled
