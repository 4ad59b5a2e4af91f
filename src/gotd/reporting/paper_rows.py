"""One table per paper: each row of its tables beside what was measured here, with a status."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from gotd.reporting import paper
from gotd.reporting.cells import Block
from gotd.reporting.published import (
    Ours,
    Published,
    measured_rows,
    printed_gain,
    setting_of,
)
from gotd.reporting.render import Table
from gotd.reporting.statistics import format_interval, t_interval
from gotd.selectors.registry import arm_of

STATUSES = {
    "run": "run with the paper's models and data",
    "stand-in": "run on real rows with a small model in the place of the paper's",
    "generated": "run on generated text alone",
    "never run": "no record here",
}
# Deviation D4: the paper's curated TAPT repeats rows; ours with distinct rows is the usual arm.
REPEATED, DISTINCT = "curated_tapt_duplicates", "curated_tapt"
_COLUMNS = (
    *("table", "setting", "method", "number", "published", "gain"),
    *("here, paper's setting", "here, real rows", "here, generated", "status"),
)


def paper_table(published: Sequence[Published], blocks: Sequence[Block]) -> Table:
    """Build the table of the GOT-D paper: a row for each method and setting of its tables.

    A row shows the number that sums it up: the average, or the first column. Gains are
    differences to the model before pre-fine-tuning, in the units of the table. Ours are
    paired by seed and averaged over the tasks that ran.

    Args:
        published: All published numbers.
        blocks: Blocks of all experiments.
    """
    rows = []
    for number in sorted({entry.table for entry in published}):
        entries = [entry for entry in published if entry.table == number]
        column = _summing_up(entries)
        printed = [entry for entry in entries if entry.column == column]
        bases = {entry.block: entry for entry in printed if arm_of(entry.row) == "none"}
        for entry in printed:
            base = bases.get(entry.block, bases.get("0"))
            if base is entry:
                continue
            gain = printed_gain(entry, base) if base else ""
            ours = _gains(entry, blocks)
            status = next((name for name in STATUSES if ours.get(name)), "never run")
            shown = (ours.get(name, "") for name in STATUSES if name != "never run")
            cells = (str(number), entry.block, entry.row, column, entry.mean, gain)
            rows.append((*cells, *shown, status))
    notes = (
        "A published gain is the difference to the model before pre-fine-tuning. Ours: the same, "
        "paired by seed, mean ± half-width of the 95 % t-interval, of the setting with the most "
        "seeds. With other data and models, compare signs, never levels.",
        "With *: distinct rows, where the published selection repeats rows (D4).",
        "Status: " + "; ".join(f"{name}, {words}" for name, words in STATUSES.items()) + ".",
    )
    return Table("Each row of the paper's tables", _COLUMNS, tuple(rows), notes)


def _summing_up(entries: Sequence[Published]) -> str:
    """Return the column that sums up a row: an average, or the first column."""
    columns = dict.fromkeys(entry.column for entry in entries)
    return next((column for column in columns if column in paper.AVERAGES), next(iter(columns)))


def _gains(entry: Published, blocks: Sequence[Block]) -> dict[str, str]:
    """Return our gains beside a published row, by status."""
    experiment = next(name for name, of in paper.TABLES_OF.items() if entry.table in of)
    found: dict[str, list[Ours]] = defaultdict(list)
    distinct: dict[str, list[Ours]] = defaultdict(list)
    for one in measured_rows([b for b in blocks if b.experiment.startswith(experiment)]):
        is_distinct = arm_of(entry.row) == REPEATED and one.arm == DISTINCT
        if is_distinct and one.block.scale != paper.SCALE:
            name = "generated" if one.block.seed_is_world else "stand-in"
            distinct[name].append(one)
        elif not one.is_as(entry.row):
            continue
        elif one.block.scale == paper.SCALE:
            if one.is_at(*setting_of(entry.table, entry.block)):
                found["run"].append(one)
        else:
            found["generated" if one.block.seed_is_world else "stand-in"].append(one)
    marked = {name: (of, "") for name, of in found.items()}
    marked = {name: (of, " *") for name, of in distinct.items()} | marked
    return {
        name: text + mark
        for name, (of, mark) in marked.items()
        if (text := _gain(max(of, key=_weight), entry)) is not None
    }


def _weight(one: Ours) -> tuple[int, int]:
    """Return what ranks the settings of one row: the number of seeds, then the budget."""
    return len(one.block.seeds), max(one.budgets, default=0)


def _gain(one: Ours, entry: Published) -> str | None:
    """Return our difference to the model before pre-fine-tuning; ``None`` without both."""
    block, base = one.block, one.reference()
    measure = paper.MEASURES_OF_TABLE.get(entry.table, {}).get(entry.column)
    task = paper.TASK_OF.get(entry.column)
    if base is None or (measure is None and not block.comparable):
        return None
    differences = block.scores(one.row, measure or "headline")
    differences = differences - block.scores(base, measure or "headline")
    if task is not None and measure is None:
        if task not in block.tasks:
            return None
        differences = differences[[block.tasks.index(task)]]
    interval = t_interval(differences.mean(axis=0))
    if interval.n == 0:
        return None
    factor = (100.0 if entry.table in paper.IN_PERCENT else 1.0) if measure else block.metric.factor
    text = format_interval(interval, len(block.seeds), factor, 2)
    return text if interval.mean < 0 else f"+{text}"
