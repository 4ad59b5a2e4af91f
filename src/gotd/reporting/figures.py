"""The figures of a block: scores, differences, what was selected, losses."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gotd.reporting.cells import (
    Block,
    average_interval,
    task_interval,
)
from gotd.reporting.drawing import (
    FILLS,
    LOWER,
    STYLE,
    axis_name,
    colour,
    grid,
    legend,
    look,
    name_rows,
    whisker,
)
from gotd.reporting.render import one_line
from gotd.reporting.statistics import seed_differences, t_interval
from gotd.reporting.tables import AVERAGE
from gotd.selectors.registry import references

LOSSES = "pre_fine_tune_loss"


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
    with mpl.rc_context(STYLE):
        figure, axes = grid(len(panels), 2.6, 0.8 + 0.24 * len(block.arms), block.arms)
        for axis, panel in zip(axes, panels, strict=True):
            metric = block.metric if panel == AVERAGE else block.metric_of(panel)
            factor = metric.factor
            for y, arm in enumerate(block.arms):
                scores = block.scores(arm)
                if panel == AVERAGE:
                    interval, dots = average_interval(block, arm), scores.mean(axis=0)
                else:
                    interval = task_interval(block, arm, panel)
                    dots = scores[block.tasks.index(panel)]
                axis.scatter(
                    dots * factor, np.full(len(dots), y), s=9, color=colour(block, arm), alpha=0.3
                )
                whisker(axis, interval, y, factor, block, arm)
            axis.set_title(one_line(panel))
            axis.set_xlabel(AVERAGE if panel == AVERAGE else axis_name(metric))
            name_rows(axis, block.arms)
        figure.suptitle(f"Scores, mean and 95 % interval over {len(block.seeds)} seeds")
    return figure


def differences_figure(block: Block) -> Figure | None:
    """Plot paired differences with 95 % intervals, one panel per reference arm."""
    shown = [arm for arm in references() if arm in block.arms]
    if not shown or not block.comparable or len(block.arms) < 2:
        return None
    factor = block.metric.factor
    with mpl.rc_context(STYLE):
        height = 0.8 + 0.26 * len(block.arms)
        figure, axes = grid(len(shown), 2.9, height, block.arms, most_columns=2)
        for axis, reference in zip(axes, shown, strict=True):
            axis.axvline(0, color="#444444", linewidth=1)
            for y, arm in enumerate(block.arms):
                if arm != reference:
                    difference = seed_differences(block.scores(arm), block.scores(reference))
                    whisker(axis, t_interval(difference), y, factor, block, arm)
            axis.set_title(f"minus {one_line(reference)}")
            unit = "paired difference, points" if factor > 1 else "paired difference"
            axis.set_xlabel(unit if block.metric.higher_is_better else f"{unit}\n({LOWER})")
            name_rows(axis, block.arms)
        what = "average over tasks" if block.has_average else one_line("".join(block.tasks))
        figure.suptitle(f"Paired differences with 95 % intervals, {what}")
    return figure


def composition_figure(block: Block) -> Figure | None:
    """Plot the domains of what each arm selected, and those of the target."""
    bars: dict[str, dict[str, float]] = {}
    targets = []
    for arm in block.arms:
        selections = block.selections(arm)
        targets += [s.get("target_domains") or {} for s in selections]
        if shares := _mean_shares([s.get("domains") or {} for s in selections]):
            bars[arm] = shares
    if not bars:
        return None
    if target := _mean_shares(targets):
        bars = {"target": target, **bars}
    domains = _largest(bars, len(FILLS))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.2 + 0.3 * len(bars)))
        axis = figure.subplots()
        left = np.zeros(len(bars))
        for domain, fill in zip(domains, FILLS, strict=False):
            width = np.array([100 * shares.get(domain, 0.0) for shares in bars.values()])
            axis.barh(
                range(len(bars)), width, left=left, color=fill, height=0.72,
                edgecolor="white", linewidth=0.6, label=one_line(domain),
            )  # fmt: skip
            left += width
        rest = 100 - left
        if (rest > 0.05).any():
            axis.barh(
                range(len(bars)), rest, left=left, color="white", height=0.72,
                edgecolor="#666666", linewidth=0.6, hatch="////", label="other domains",
            )  # fmt: skip
        name_rows(axis, list(bars))
        axis.set_xlim(0, 100)
        axis.set_xlabel("share of rows, %, mean over tasks and seeds")
        axis.grid(visible=False, axis="y")
        legend(figure, [axis])
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
    with mpl.rc_context(STYLE):
        figure, axes = grid(len(tasks), 2.8, 2.2, block.arms, share_rows=False)
        for axis, task in zip(axes, tasks, strict=True):
            for arm in block.arms:
                if (task, arm) in curves:
                    steps, values = _mean_curve(curves[task, arm])
                    axis.plot(
                        steps, values, linewidth=1.4, markevery=[-1], markersize=5,
                        **look(block, arm),
                    )  # fmt: skip
            axis.set_title(one_line(task))
            axis.set_xlabel("update")
            axis.set_ylabel("loss")
        legend(figure, axes[:1] if len(tasks) == 1 else axes)
        figure.suptitle("Pre-fine-tuning loss, mean over seeds")
    return figure


def _mean_shares(counts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Average shares over selections, each scaled to sum to one."""
    filled = [c for c in counts if sum(c.values()) > 0]
    names = sorted({name for c in filled for name in c})
    return {n: float(np.mean([c.get(n, 0.0) / sum(c.values()) for c in filled])) for n in names}


def _largest(bars: dict[str, dict[str, float]], most: int) -> list[str]:
    """Choose the domains that get a colour: the largest anywhere, in order of name."""
    domains = {domain for shares in bars.values() for domain in shares}
    peak = {d: max(shares.get(d, 0.0) for shares in bars.values()) for d in domains}
    return sorted(sorted(peak, key=lambda d: (-peak[d], d))[:most])


def _mean_curve(curves: Sequence[list[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    """Average curves at the steps they all have; shorter runs are not extended."""
    by_step = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*(set(one) for one in by_step)))
    return steps, [float(np.mean([one[step] for one in by_step])) for step in steps]
