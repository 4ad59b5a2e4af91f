"""Paired comparisons of arms, with the smallest difference they could have detected.

Differences are paired by task and seed, and pairs exist only where both cells are done.
Over several tasks the unit is the seed. The registered comparisons of a table are the main arm
against each of `registered`. Holm's correction runs over them, and only they have a verdict; so at
most 5 % of tables without any true difference hold one. Other pairs have an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from gotd.evaluation.metrics import Metric
from gotd.reporting.cells import Block
from gotd.reporting.render import Table
from gotd.reporting.statistics import (
    LEVEL,
    PairedTest,
    holm,
    p_floor,
    paired_test,
    seed_differences,
)
from gotd.reporting.tables import AVERAGE, seeds_note
from gotd.selectors.registry import references

MAIN = "got_d"  # the arm the project is about
REGISTERED = ("none", "random", "nearest", "curated_tapt", "dsir")
"""The arms that the main arm is tested against, stated before any record is made."""
REGISTERED_OF = {
    "glue_varied": (
        *(*REGISTERED, "random_in_domain", "round_robin", "bm25", "classifier", "moore_lewis"),
        *("rds_plus", "loss_drop", "less", "perplexity", "mmd", "mmd_herding"),
        *("facility_location", "ensemble", "tsds", "tsds_kde", "unbalanced_ot", "partial_ot"),
        *("got_d_path", "got_d_clusters"),
    ),
    "instruction": (
        *("none", "full_pool", "random", "bm25", "rds_plus", "less", "tsds", "tsds_kde"),
        "got_d_path",
    ),
}
"""Those of experiments with a registration of their own (results/registrations)."""


@dataclass(frozen=True)
class Comparison:
    """An arm against a reference.

    Args:
        arm: The arm that is compared.
        reference: The arm it is compared with.
        task: One task, or ``None`` for the average over all.
        test: Paired differences, arm minus reference, in metric units.
        holm_p: The p-value after Holm's correction over the registered comparisons of the
            table; ``None`` for another pair, NaN without pairs of cells.
        expected: Pairs there would be if every cell were done.
        metric: What the differences are of.
    """

    arm: str
    reference: str
    task: str | None
    test: PairedTest
    holm_p: float | None
    expected: int
    metric: Metric

    @property
    def verdict(self) -> str:
        """Return the conclusion in words; empty where no corrected test allows one."""
        if self.holm_p is None or not self.holm_p <= LEVEL:
            return ""
        is_higher = self.test.difference.mean > 0
        word = "better" if is_higher == self.metric.higher_is_better else "worse"
        partial = "" if self.test.n == self.expected else " (incomplete)"
        return f"{word} than {self.reference}{partial}"


def compare_on_average(block: Block) -> list[Comparison]:
    """Compare arms on the average over tasks, or on the only task, with seeds as units.

    Empty where the tasks' scores have no common unit.
    """
    if block.has_average:
        return _compare(block, [None])
    return _compare(block, list(block.tasks)) if len(block.tasks) == 1 else []


def compare_per_task(block: Block) -> list[Comparison]:
    """Compare arms on each task, with seeds as units."""
    return _compare(block, list(block.tasks))


def registered(block: Block) -> tuple[str, ...]:
    """Return the arms that the main arm is tested against in this experiment."""
    return REGISTERED_OF.get(block.experiment, REGISTERED)


def is_registered(block: Block, row: str, reference: str) -> bool:
    """Whether a pair of rows is a registered comparison."""
    return block.names[row][0] == MAIN and block.names[reference][0] in registered(block)


def pairs(block: Block) -> list[tuple[str, str]]:
    """List (row, reference row) once per unordered pair, the registered comparisons first.

    Then follow all rows against each reference in their order. The main arm comes last as a
    reference, for the arms that are no reference themselves.
    A row that carries overrides is compared with the reference under the same overrides
    where that exists, else with the plain one, and also with its own plain arm.
    """
    rows = {name: row for row, name in block.names.items()}
    listed: list[tuple[str, str]] = []

    def add(row: str, reference: str | None) -> None:
        if reference not in (None, row) and not {(row, reference), (reference, row)} & {*listed}:
            listed.append((row, reference))

    ours = [row for row in block.arms if block.names[row][0] == MAIN]
    for compared, arms in ((ours, registered(block)), (block.arms, (*references(), MAIN))):
        for arm, row in product(arms, compared):
            own, variant = block.names[row]
            if own != arm:
                add(row, rows.get((arm, variant), rows.get((arm, ""))))
    for row in block.arms:
        if block.names[row][1]:
            add(row, rows.get((block.names[row][0], "")))
    return listed


def _compare(block: Block, tasks: Sequence[str | None]) -> list[Comparison]:
    """Compare every pair on every task, ``None`` for the average over tasks."""
    scores = {arm: block.scores(arm) for arm in block.arms}
    comparisons = []
    for task in tasks:
        rows = slice(None) if task is None else [block.tasks.index(task)]
        for arm, reference in pairs(block):
            differences = seed_differences(scores[arm][rows], scores[reference][rows])
            # A fresh generator each: the p of one row cannot depend on the rows before it.
            test = paired_test(differences, np.random.default_rng(0))
            of = block.metric if task is None else block.metric_of(task)
            comparison = Comparison(arm, reference, task, test, None, len(block.seeds), of)
            comparisons.append(comparison)
    family = [n for n, c in enumerate(comparisons) if is_registered(block, c.arm, c.reference)]
    adjusted = holm([comparisons[n].test.p_value for n in family])
    for n, p in zip(family, adjusted, strict=True):
        comparisons[n] = replace(comparisons[n], holm_p=float(p))
    return comparisons


def average_comparisons_table(block: Block) -> Table | None:
    """Show the registered comparisons on the average over tasks."""
    tested = [c for c in compare_on_average(block) if c.holm_p is not None]
    return _comparisons("Registered comparisons", tested, block)


def remaining_comparisons_table(block: Block) -> Table | None:
    """Show the other pairs on the average, without a test."""
    rest = [c for c in compare_on_average(block) if c.holm_p is None]
    return _comparisons("Other pairs", rest, block)


def task_comparisons_table(block: Block) -> Table | None:
    """Show all pairs on each of several tasks."""
    compared = compare_per_task(block) if len(block.tasks) > 1 else []
    return _comparisons("Paired comparisons, by task", compared, block)


def _comparisons(title: str, comparisons: Sequence[Comparison], block: Block) -> Table | None:
    rows = []
    for c in comparisons:
        factor, digits = c.metric.factor, c.metric.digits
        mean = c.test.difference
        low, high = (f"{end * factor:+.{digits}f}" for end in (mean.low, mean.high))
        has_spread = not np.isnan(mean.half_width)
        row = {
            "arm": c.arm,
            "against": c.reference,
            "task": c.task or AVERAGE,
            "pairs": f"{c.test.n}/{c.expected}",
            "difference": f"{mean.mean * factor:+.{digits}f}" if c.test.n else "",
            "95 % interval": f"{low} to {high}" if has_spread else "",
            "detectable": f"{c.test.detectable * factor:.{digits}f}" if has_spread else "",
            "p": "" if c.holm_p is None else _p(c.test.p_value),
            "Holm p": "" if c.holm_p is None else _p(c.holm_p),
            "verdict": c.verdict,
        }
        rows.append(row)
    if not any(c.holm_p is not None for c in comparisons):
        rows = [{k: v for k, v in row.items() if k not in _TESTED} for row in rows]
    return Table.of(title, rows, *_notes(block))


_TESTED = ("p", "Holm p", "verdict")
"""Columns of registered comparisons."""


def _notes(block: Block) -> list[str]:
    points = " in points" if block.metric.factor > 1 else ""
    n = len(block.seeds)
    too_few = (
        f"With {n} seed{'s' if n > 1 else ''} the least two-sided sign-flip p is 2 / 2^{n} = "
        f"{p_floor(n):.4g}, so intervals can be read but no test can be passed; "
        "use at least 6 seeds, better 10."
    )
    return [
        f"Arm minus reference{points}, paired by task and seed; over several tasks the "
        f"differences are averaged within a seed. {seeds_note(block)}",
        f"Registered comparisons are {MAIN} against {', '.join(registered(block))}. p: two-sided "
        "sign-flip permutation test. Holm's correction runs over the registered comparisons of "
        "the table, and a verdict needs a corrected p of .05. Other pairs have an interval, "
        "which shows no difference by itself.",
        "Detectable: the smallest true difference that has power 0.8 in a paired t-test at "
        "level 0.05 with the spread seen.",
        *([too_few] if p_floor(n) > LEVEL else []),
    ]


def _p(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
