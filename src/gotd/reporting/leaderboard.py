"""A ranking of all selectors, with the uncertainty of each rank, their cost and their command.

One table for each experiment, scale and base: of its settings the one in which most selectors ran.
A ranking may differ between bases, so none is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gotd.reporting.cells import BASE, VARIANT, Block
from gotd.reporting.render import Section, Table
from gotd.reporting.statistics import Floats, t_interval
from gotd.reporting.tables import seeds_note
from gotd.selectors.registry import entries

LEAST_ARMS = 5
"""Fewer arms than this are no leaderboard."""
LEAST_SEEDS = 6
"""With fewer seeds, resampled ranks are too certain, and are left out."""
RESAMPLES, SEED = 10_000, 0
SWEEPS = {
    ("glue_varied", "micro"): "experiment=glue scale=varied",
    ("domain_few_labels", "paper"): "experiment=domain scale=paper_few_labels",
    ("domain_labels", "paper"): "experiment=domain scale=paper_labels",
    ("domain_labels", "folder"): "experiment=domain scale=folder_labels",
    ("zeroshot_boolq", "paper"): "experiment=zeroshot scale=paper_boolq",
}
"""How a command names the experiments whose records have another name, by name and scale."""
SELECTING = {"pool_scores", "pool_ranking", "ranking", "selection"}
"""Steps of a selector, without embeddings, which selectors share."""


def leaderboard(blocks: Sequence[Block]) -> list[Section]:
    """Rank the selectors of each experiment, scale and base by their mean gain over ``none``.

    Args:
        blocks: Blocks of all experiments.

    Returns:
        A section for each experiment, scale and base with which at least five selectors ran
        on the seeds and tasks of the arm without pre-fine-tuning, in the order of ``blocks``.
    """
    best: dict[tuple[str, str, str], Block] = {}
    for block in blocks:
        place = block.experiment, block.scale, block.axes.get(BASE, "")
        if place not in best or _size(block) > _size(best[place]):
            best[place] = block
    tables = ((block, _table(block)) for block in best.values())
    return [
        Section(f"{block.experiment}: {block.label}", (table,))
        for block, table in tables
        if table is not None
    ]


def _size(block: Block) -> tuple[int, int, int]:
    return len(_gains(block)), len(block.tasks), len(block.seeds)


def _gains(block: Block) -> dict[str, Floats]:
    """Return each arm's gain over ``none`` by seed, ``[n_seed]``, higher is better.

    Arms are left out that lack a seed or a task, and all where scores cannot be averaged.
    """
    if "none" not in block.arms or not block.comparable:
        return {}
    sign = 1 if block.metric.higher_is_better else -1
    base = block.scores("none")
    gains = {arm: sign * (block.scores(arm) - base).mean(axis=0) for arm in block.arms}
    return {arm: gain for arm, gain in gains.items() if not np.isnan(gain).any()}


def _table(block: Block) -> Table | None:
    gains = _gains(block)
    truth = {entry.name for entry in entries() if not entry.offered} - {"none"}
    ranked = [arm for arm in gains if block.names[arm][0] not in truth]
    if len(ranked) < LEAST_ARMS:
        return None
    places = dict(zip(ranked, _places([gains[arm] for arm in ranked]), strict=True))
    factor, digits = block.metric.factor, block.metric.digits
    rows = []
    for arm in sorted(gains, key=lambda arm: (-gains[arm].mean(), arm)):
        interval = t_interval(gains[arm])
        ends = f"{interval.low * factor:+.{digits}f} to {interval.high * factor:+.{digits}f}"
        rank = 1 + sum(gains[other].mean() > gains[arm].mean() for other in ranked)
        row = {
            "selector": arm,
            "rank": str(rank) if arm in ranked else "*",
            "rank, 95 %": places.get(arm, ""),
            "gain": f"{interval.mean * factor:+.{digits}f}",
            "95 % interval": ends if interval.n > 1 else "",
            "selection, s": _seconds(block, arm),
            "command": _command(block, arm),
        }
        rows.append(row)
    unit = "points" if factor > 1 else block.metric.unit or block.metric.name
    notes = (
        f"Gain over the arm without pre-fine-tuning in {unit}, paired by seed, higher is better, "
        f"whatever the direction of {block.metric.name}; t-interval. {seeds_note(block)}",
        f"Rank, 95 %: ranks over resampled seeds, from {LEAST_SEEDS} seeds on. Intervals that "
        "overlap show no order, and no correction is made for the number of selectors.",
        "*: knows the truth of the benchmark, so it has no rank. Seconds: scores and selection, "
        "without embeddings, which selectors share.",
        "A selector of another package gets a row when its command and gotd report have run.",
    )
    return Table.of("Leaderboard", rows, *notes)


def _places(gains: Sequence[Floats]) -> Iterable[str]:
    """Return the 95 % interval of each rank, by resampling seeds."""
    values = np.stack(gains)
    if values.shape[1] < LEAST_SEEDS:
        return [""] * len(values)
    resampled = np.random.default_rng(SEED).integers(
        0, values.shape[1], (RESAMPLES, values.shape[1])
    )
    counts = np.stack([np.bincount(row, minlength=values.shape[1]) for row in resampled])
    means = counts @ values.T
    ranks = 1 + (means[:, :, None] < means[:, None, :]).sum(axis=2)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0, method="nearest")
    return [f"{a:.0f} to {b:.0f}" if a < b else f"{a:.0f}" for a, b in zip(low, high, strict=True)]


def _seconds(block: Block, arm: str) -> str:
    """Return the mean seconds of an arm's own steps."""
    spent = [
        sum(seconds for name, seconds in steps.items() if name in SELECTING)
        for record in block.of(arm)
        if (steps := record["cost"].get("stages_s") or {}).keys() & SELECTING
    ]
    return f"{np.mean(spent):.2g}" if spent else ""


def _command(block: Block, arm: str) -> str:
    """Return the command that runs the cells of a row."""
    name, variant = block.names[arm]
    if block.experiment == "compare":  # whose files the records do not name
        return f"gotd compare … --methods {name}"
    own = f"experiment={block.experiment} scale={block.scale}"
    words = ["gotd run", SWEEPS.get((block.experiment, block.scale), own), f"selector={name}"]
    words += [f"{n}={v}" for n in ("model", "budget", "budget_unit") if (v := block.axes.get(n))]
    if block.axes.get("protocol", "clean") != "clean":
        words.append(f"protocol={block.axes['protocol']}")
    if block.axes.get("tuning", "full") != "full":
        words.append(f"pre_fine_tune.tuning={block.axes['tuning']}")
    words += [block.axes.get(BASE, ""), block.axes.get(VARIANT, ""), variant]
    return " ".join(filter(None, words))
