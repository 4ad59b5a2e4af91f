"""Tables and curves of a sweep: the score along every axis that varies, for any experiment.

A block shows what differs in nothing but task, arm and seed. A sweep is the blocks of one
experiment at one scale; it shows two axes at a time and averages over tasks and the rest.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gotd.evaluation.metrics import Metric
from gotd.reporting import drawing
from gotd.reporting.cells import BASE, VARIANT, Block, order_arms, order_tasks, shared_axes
from gotd.reporting.records import natural_order
from gotd.reporting.render import Table, one_line
from gotd.reporting.statistics import Interval, decimals, format_interval, t_interval
from gotd.reporting.tables import AVERAGE

DEFAULT = "default"
"""Value of an override in the cells that ran without it."""
LABELS = "limits.labels="
"""The axis of a sweep that limits the labels of the target."""
NONE = "none"
"""The arm without a selection, whose score may be far from all others."""
_OVERRIDE = re.compile(r"\s+(?=[\w./@]+=)")

Averages = dict[Any, Interval]
"""Interval over seeds by the values of some axes."""


@dataclass(frozen=True)
class Sweep:
    """The cells of one experiment and scale.

    Args:
        name: Experiment and scale in words.
        metric: What is averaged; all tasks share its direction and unit.
        axes: Axes that vary, each with its values in order.
        cells: A row for each cell: its value on every axis, ``task``, ``seed``, ``score`` (NaN
            where it failed) and ``own``, the axes that concern it.
    """

    name: str
    metric: Metric
    axes: dict[str, list[Any]]
    cells: pd.DataFrame

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the arms in table order."""
        return order_arms(self.cells["arm"])


def sweeps(blocks: Sequence[Block]) -> list[Sweep]:
    """Build a sweep of each experiment and scale in which more than the arm varies.

    None is built where the tasks' scores have no common unit and direction.
    """
    groups: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        groups[f"{block.experiment}: sweep, scale {block.scale}"].append(block)
    built = [_sweep(name, members) for name, members in groups.items()]
    return [sweep for sweep in built if sweep is not None and set(sweep.axes) - {"arm"}]


def _sweep(name: str, blocks: Sequence[Block]) -> Sweep | None:
    metrics = [m for b in blocks for task in b.tasks if (m := b.metric_of(task)).name]
    if len({metric.scale for metric in metrics}) != 1:
        return None
    # Python's own numbers and words: an axis may have both.
    cells = pd.DataFrame([cell for block in blocks for cell in _cells(block)], dtype=object)
    cells = cells.fillna({axis: DEFAULT for axis in cells if "=" in axis})
    names = sorted({*cells} - {"arm", "task", "seed", "score", "own"})
    values = {axis: sorted(cells[axis].dropna().unique(), key=natural_order) for axis in names}
    axes = {axis: of for axis, of in values.items() if len(of) > 1}
    arms = list(order_arms(cells["arm"]))
    if len(arms) > 1 or len(axes) == 1:
        axes = {"arm": arms, **axes}
    # A cell for which an axis does not exist, such as one of an older record, fits no table.
    return Sweep(name, metrics[0], axes, cells.dropna(subset=[*axes]))


def _cells(block: Block) -> Iterable[dict[str, Any]]:
    """Yield every cell of a block; each override becomes an axis ``name=``."""
    shared = {name: of for name, of in block.axes.items() if name not in (VARIANT, BASE)}
    for (task, row, seed), record in block.cells.items():
        variant = record["axes"].get(VARIANT) or ""
        parts = [part.partition("=") for part in _OVERRIDE.split(variant) if part]
        overrides = {f"{name}=": _number(value) for name, _, value in parts}
        yield {
            **shared,
            **overrides,
            "arm": block.names[row][0],
            "task": task,
            "seed": seed,
            "score": record["metrics"].get("headline", np.nan),
            "own": {*shared_axes(record), *overrides, "arm"},
        }


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def averages(
    cells: pd.DataFrame, by: Sequence[str], over: Sequence[str]
) -> tuple[Averages, dict[str, list[Any]]]:
    """Average scores within each seed over some axes, with a t-interval over seeds.

    Every average runs over the same settings: those that all averages have. A seed that
    lacks one of them is left out of its average.

    Args:
        cells: As in `Sweep`.
        by: Axes that an average is for one value of.
        over: Axes to average over.

    Returns:
        Intervals by values of ``by``, and the values that each axis of ``over`` has; both
        empty if no setting is common to all averages.
    """
    if cells.empty:
        return {}, {}
    keys, settings = list(by), list(over)
    ran = cells.groupby([*settings, *keys], sort=False).size().unstack(keys)
    common = cells.merge(ran.dropna().index.to_frame(index=False), on=settings)
    if common.empty:
        return {}, {}
    scores = common.pivot(index=[*keys, "seed"], columns=settings, values="score")
    means = scores.astype(float).mean(axis=1, skipna=False)
    intervals = {
        key: t_interval(of.to_numpy()) for key, of in means.groupby(level=keys, sort=False)
    }
    return intervals, {axis: sorted(common[axis].unique(), key=natural_order) for axis in over}


def sweep_tables(sweep: Sweep) -> list[Table]:
    """Build one table for every pair of axes that vary."""
    tables = [_pair_table(sweep, *pair) for pair in itertools.combinations(sweep.axes, 2)]
    return [table for table in tables if table is not None]


def _pair_table(sweep: Sweep, first: str, second: str) -> Table | None:
    """Show the score by two axes; arms are rows, else the axis with more values is."""
    row, column = first, second
    if first != "arm" and len(sweep.axes[first]) < len(sweep.axes[second]):
        row, column = second, first
    cells = sweep.cells
    if first != "arm":  # an average over arms is over those that both axes concern
        cells = cells.loc[cells["own"].map({row, column}.issubset)]
    others = [axis for axis in ("arm", *sweep.axes) if axis not in (row, column)]
    over = [*dict.fromkeys(others), "task"]
    # Cells without an override may have nothing in common with the others.
    overridden = cells.loc[(cells != DEFAULT).all(axis=1)]
    for of in (cells, overridden):
        intervals, used = averages(of, (row, column), over)
        if intervals:
            break
    else:
        return None
    factor, n_seed = sweep.metric.factor, len(set(of["seed"]))
    digits = decimals(intervals.values(), factor)
    shown = {key: format_interval(i, n_seed, factor, digits) for key, i in intervals.items()}
    of_rows, of_columns = map(set, zip(*shown, strict=True))
    columns = [value for value in sweep.axes[column] if value in of_columns]
    rows = tuple(
        (str(value), *(shown.get((value, other), "") for other in columns))
        for value in sweep.axes[row]
        if value in of_rows
    )
    used["task"] = list(order_tasks(used["task"]))
    if "arm" in used:
        used["arm"] = list(order_arms(used["arm"]))
    settings = "; ".join(f"{plain(a)} {', '.join(map(str, values))}" for a, values in used.items())
    notes = (
        f"Mean ± half-width of the 95 % t-interval over {n_seed} seeds; (n/N) marks n of N seeds. "
        f"Every mean is over the settings that all cells of this table have: {settings}.",
        "An arm that an axis does not concern has the same number at all its values.",
    )
    headings = tuple(f"{plain(column)} {value}" for value in columns)
    title = f"Scores by {plain(row)} and {plain(column)}"
    return Table(title, (plain(row), *headings), rows, notes)


def plain(axis: str) -> str:
    """Return the name of an axis for readers."""
    return axis.removesuffix("=")


@mpl.rc_context(drawing.STYLE)
def curve_figures(sweep: Sweep) -> dict[str, Figure]:
    """Plot the score against every axis of numbers, by the axis's short name."""
    figures = {}
    for axis in sweep.axes:
        name = plain(axis).rpartition(".")[2]
        if (figure := _curve_figure(sweep, axis)) is not None:
            figures["budgets" if name == "budget" else name] = figure
    return figures


def numbers(sweep: Sweep, axis: str) -> list[float]:
    """Return the values of an axis that are numbers."""
    return [v for v in sweep.axes.get(axis, []) if isinstance(v, int | float)]


def _curve_figure(sweep: Sweep, axis: str) -> Figure | None:
    """Plot a line per arm, a panel per setting of the other axes; ``None`` without numbers."""
    values = numbers(sweep, axis)
    if len(values) < 2:
        return None
    others = [other for other in sweep.axes if other not in ("arm", axis)]
    panels: dict[Any, pd.DataFrame] = {(): sweep.cells}
    if others:
        panels = dict(list(sweep.cells.groupby(others)))
    label = plain(axis).replace("_", " ")
    if axis == "budget":
        label += f", {_budget_unit(sweep)}"
    size = (6.0, 3.4) if len(panels) == 1 else (3.6, 2.8)
    figure, axes = drawing.grid(len(panels), *size, sweep.arms, share_rows=False)
    for panel, setting in zip(axes, sorted(panels, key=str), strict=True):
        intervals, _ = averages(panels[setting], ("arm", axis), ("task",))
        ends: dict[str, list[float]] = {}
        for index, arm in enumerate(sweep.arms):
            points = [(v, i) for v in values if (i := intervals.get((arm, v))) and i.n]
            # A nudge on the logarithmic axis keeps whiskers of different arms apart.
            xs = [x * 1.012 ** (index - len(sweep.arms) / 2) for x, _ in points]
            means = [i.mean * sweep.metric.factor for _, i in points]
            halves = [np.nan_to_num(i.half_width) * sweep.metric.factor for _, i in points]
            ends[arm] = [
                m + h for m, half in zip(means, halves, strict=True) for h in (-half, half)
            ]
            look = {"markersize": 4, "linewidth": 1.4, "capsize": 2}
            panel.errorbar(xs, means, yerr=halves, **look, **drawing.style(arm, sweep.arms))
        if base := ends.pop(NONE, []):
            shown = [*itertools.chain.from_iterable(ends.values())] or base
            drawing.leave_far_out(panel, "y", shown, float(np.mean(base)), NONE)
        if min(values) > 0:
            panel.set_xscale("log")
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.minorticks_off()
        panel.set_xlabel(label)
        panel.set_title(
            one_line(", ".join(f"{plain(o)} {v}" for o, v in zip(others, setting, strict=True)))
        )
        several = len(set(panels[setting]["task"])) > 1
        panel.set_ylabel(AVERAGE if several else drawing.axis_name(sweep.metric))
    drawing.legend(figure, axes)
    figure.suptitle(f"Score by {plain(axis)}, mean and 95 % interval over seeds")
    return figure


def _budget_unit(sweep: Sweep) -> str:
    """Return what budgets count, for readers."""
    known = {"tokens": "tokens", "permille": "thousandths of the pool"}
    units = set(sweep.cells["budget_unit"].dropna()) if "budget_unit" in sweep.cells else set()
    return known.get(units.pop(), "rows") if len(units) == 1 else "rows"


def labels_table(sweep: Sweep) -> Table | None:
    """Estimate how many labels the arm without a selection needs (Figure 1 of the paper).

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
