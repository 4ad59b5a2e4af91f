"""The figures of a block: scores, differences, what was selected, losses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gotd.reporting import drawing
from gotd.reporting.cells import Block, average_interval, task_interval
from gotd.reporting.render import one_line
from gotd.reporting.statistics import seed_differences, t_interval
from gotd.reporting.tables import AVERAGE
from gotd.selectors.registry import references

LOSSES = "pre_fine_tune_loss"


@mpl.rc_context(drawing.STYLE)
def block_figures(block: Block) -> dict[str, Figure]:
    """Plot everything that one block supports, by file name."""
    makers = {
        "scores": scores_figure,
        "differences": differences_figure,
        "composition": composition_figure,
        "losses": losses_figure,
    }
    return {name: figure for name, make in makers.items() if (figure := make(block)) is not None}


def scores_figure(block: Block) -> Figure | None:
    """Plot mean and 95 % t-interval per arm and task, each seed as a faint dot."""
    if not any(block.of(arm) for arm in block.arms):
        return None
    panels = [*block.tasks, *([AVERAGE] if block.has_average else [])]
    figure, axes = drawing.grid(len(panels), 2.6, 0.8 + 0.24 * len(block.arms), block.arms)
    for axis, panel in zip(axes, panels, strict=True):
        metric = block.metric if panel == AVERAGE else block.metric_of(panel)
        factor = metric.factor
        ends: dict[str, list[float]] = {}
        for y, arm in enumerate(block.arms):
            scores = block.scores(arm)
            if panel == AVERAGE:
                interval, dots = average_interval(block, arm), scores.mean(axis=0)
            else:
                interval = task_interval(block, arm, panel)
                dots = scores[block.tasks.index(panel)]
            color = drawing.look(block, arm)["color"]
            axis.scatter(dots * factor, np.full(len(dots), y), s=9, color=color, alpha=0.3)
            drawing.whisker(axis, interval, y, factor, block, arm)
            half = np.nan_to_num(interval.half_width)
            ends[arm] = [factor * (interval.mean + h) for h in (-half, half)]
            ends[arm] += (dots * factor).tolist()
        leave_out_none(axis, ends)
        axis.set_title(one_line(panel))
        axis.set_xlabel(AVERAGE if panel == AVERAGE else drawing.axis_name(metric))
        drawing.name_rows(axis, block.arms)
    figure.suptitle(f"Scores, mean and 95 % interval over {len(block.seeds)} seeds")
    return figure


def differences_figure(block: Block) -> Figure | None:
    """Plot paired differences with 95 % intervals, one panel per reference arm."""
    shown = [arm for arm in references() if arm in block.arms]
    if not shown or not block.comparable or len(block.arms) < 2:
        return None
    factor = block.metric.factor
    height = 0.8 + 0.26 * len(block.arms)
    figure, axes = drawing.grid(len(shown), 2.9, height, block.arms, most_columns=2)
    for axis, reference in zip(axes, shown, strict=True):
        axis.axvline(0, color="#444444", linewidth=1)
        ends: dict[str, list[float]] = {}
        for y, arm in enumerate(block.arms):
            if arm != reference:
                difference = t_interval(
                    seed_differences(block.scores(arm), block.scores(reference))
                )
                drawing.whisker(axis, difference, y, factor, block, arm)
                half = np.nan_to_num(difference.half_width)
                ends[arm] = [factor * (difference.mean + h) for h in (-half, half)]
        leave_out_none(axis, {**ends, "": [0.0]})
        axis.set_title(f"minus {one_line(reference)}")
        unit = "paired difference, points" if factor > 1 else "paired difference"
        axis.set_xlabel(unit if block.metric.higher_is_better else f"{unit}\n({drawing.LOWER})")
        drawing.name_rows(axis, block.arms)
    what = "average over tasks" if block.has_average else one_line("".join(block.tasks))
    figure.suptitle(f"Paired differences with 95 % intervals, {what}")
    return figure


def leave_out_none(axis: Axes, ends: dict[str, list[float]]) -> None:
    """End an axis at the other arms if the one without a selection is far away.

    Args:
        axis: The axis, after everything was plotted.
        ends: The numbers that are plotted for each arm, ends of intervals included.
    """
    base = ends.pop("none", [])
    shown = [*itertools.chain.from_iterable(ends.values())]
    if base and shown:
        drawing.leave_far_out(axis, "x", shown, float(np.mean(base)), "none")


def composition_figure(block: Block) -> Figure | None:
    """Plot the domains of what each arm selected, and those of the target."""
    of_arms = {arm: block.selections(arm) for arm in block.arms}
    bars = {arm: _mean_shares(reports, "domains") for arm, reports in of_arms.items()}
    bars = {arm: shares for arm, shares in bars.items() if len(shares)}
    if not bars:
        return None
    target = _mean_shares(sum(of_arms.values(), []), "target_domains")
    if len(target):
        bars = {"target": target, **bars}
    widths = 100 * pd.DataFrame(bars).fillna(0.0).sort_index()
    largest = widths.max(axis=1).sort_values(ascending=False, kind="stable").index
    shown = sorted(largest[: len(drawing.FILLS)])
    layers = [
        (domain, widths.loc[domain], {"color": fill, "edgecolor": "white"})
        for domain, fill in zip(shown, drawing.FILLS, strict=False)
    ]
    rest = 100 - widths.loc[shown].sum()
    if (rest > 0.05).any():
        look = {"color": "white", "edgecolor": "#666666", "hatch": "////"}
        layers.append(("other domains", rest, look))
    figure = Figure(figsize=(7.2, 1.2 + 0.3 * len(bars)))
    axis = figure.subplots()
    left = np.zeros(len(bars))
    for domain, width, look in layers:
        style = {"height": 0.72, "linewidth": 0.6, "label": one_line(domain), **look}
        axis.barh(range(len(bars)), width, left=left, **style)
        left += width.to_numpy()
    drawing.name_rows(axis, list(bars))
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of rows, %, mean over tasks and seeds")
    axis.grid(visible=False, axis="y")
    drawing.legend(figure, [axis])
    axis.set_title("What each arm selected, by domain", loc="left")
    return figure


def losses_figure(block: Block) -> Figure | None:
    """Plot the pre-fine-tuning loss, mean over seeds, one panel per task."""
    curves = {
        (task, arm): losses
        for task in block.tasks
        for arm in block.arms
        if (losses := [c for r in block.of(arm, task) if (c := r["curves"].get(LOSSES))])
    }
    tasks = list(dict.fromkeys(task for task, _ in curves))
    if not tasks:
        return None
    figure, axes = drawing.grid(len(tasks), 2.8, 2.2, block.arms, share_rows=False)
    for axis, task in zip(axes, tasks, strict=True):
        for arm in block.arms:
            if (task, arm) in curves:
                # At the steps that all curves have; shorter runs are not extended.
                points = pd.DataFrame([dict(curve) for curve in curves[task, arm]])
                mean = points.dropna(axis=1).mean().sort_index()
                style = {"linewidth": 1.4, "markevery": [-1], "markersize": 5}
                axis.plot(mean.index, mean, **style, **drawing.look(block, arm))
        axis.set_title(one_line(task))
        axis.set_xlabel("update")
        axis.set_ylabel("loss")
    drawing.legend(figure, axes[:1] if len(tasks) == 1 else axes)
    figure.suptitle("Pre-fine-tuning loss, mean over seeds")
    return figure


def _mean_shares(reports: Sequence[dict[str, Any]], field: str) -> pd.Series:
    """Average the shares of the domains over selections, each scaled to sum to one."""
    counts = [report.get(field) or {} for report in reports]
    filled = pd.DataFrame([of for of in counts if sum(of.values()) > 0]).fillna(0.0)
    return filled.div(filled.sum(axis=1), axis=0).mean()
