"""Paired comparisons of arms, with the smallest difference they could have detected.

Differences are paired by task and seed, and pairs exist only where both cells are done.
Over several tasks the unit is the seed. Holm's correction runs over the pairs with one
reference in one block; each pair counts once, with the first of its two arms in `references`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
BASELINES = ("none", "random")


@dataclass(frozen=True)
class Comparison:
    """An arm against a reference.

    Args:
        arm: The arm that is compared.
        reference: The arm it is compared with.
        task: One task, or ``None`` for the average over all.
        test: Paired differences, arm minus reference, in metric units.
        holm_p: The p-value after Holm's correction within the family; NaN without pairs.
        holm_floor: The smallest Holm's p possible, whatever the differences.
        expected: Pairs there would be if every cell were done.
        metric: What the differences are of.
    """

    arm: str
    reference: str
    task: str | None
    test: PairedTest
    holm_p: float
    holm_floor: float
    expected: int
    metric: Metric

    @property
    def verdict(self) -> str:
        """Return the conclusion in words."""
        if self.test.n == 0:
            return "not measured"
        if self.test.n == 1:
            return "one seed: nothing can be said"
        is_higher = self.test.difference.mean > 0
        word = "better" if is_higher == self.metric.higher_is_better else "worse"
        partial = "" if self.test.n == self.expected else " (incomplete)"
        if self.holm_p <= LEVEL:
            return f"{word} than {self.reference}{partial}"
        outside = self.test.difference.low > 0 or self.test.difference.high < 0
        if self.holm_floor > LEVEL:
            limit = f"too few seeds for a test (Holm p cannot go below {self.holm_floor:.2g})"
            return f"{word} by its interval, {limit}{partial}" if outside else limit + partial
        if outside:
            return f"{word} by its interval alone, not after correction{partial}"
        return f"no difference shown{partial}"


def compare_on_average(block: Block) -> list[Comparison]:
    """Compare arms on the average over tasks, with seeds as units.

    Empty with a single task or where the tasks' scores have no common unit.
    """
    return _compare(block, [None]) if block.has_average else []


def compare_per_task(block: Block) -> list[Comparison]:
    """Compare arms on each task, with seeds as units."""
    return _compare(block, list(block.tasks))


def is_primary(block: Block, comparison: Comparison) -> bool:
    """Whether a comparison belongs in the first table.

    These are the main arm against every other and every arm against ``none`` and
    ``random``. Only what is shown first depends on it; Holm's families do not.
    """
    arm, reference = (block.names[row][0] for row in (comparison.arm, comparison.reference))
    return MAIN in (arm, reference) or reference in BASELINES


def pairs(block: Block) -> list[tuple[str, str]]:
    """List (row, reference row) once per unordered pair, references in their order.

    The main arm comes last as a reference, for the arms that are no reference themselves.
    A row that carries overrides is compared with the reference under the same overrides
    where that exists, else with the plain one, and also with its own plain arm.
    """
    rows = {name: row for row, name in block.names.items()}
    listed: list[tuple[str, str]] = []

    def add(row: str, reference: str | None) -> None:
        if reference not in (None, row) and not {(row, reference), (reference, row)} & {*listed}:
            listed.append((row, reference))

    for arm in (*references(), MAIN):
        for row in block.arms:
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
    listed = pairs(block)
    for reference in dict.fromkeys(reference for _, reference in listed):
        family = [(arm, task) for task in tasks for arm, r in listed if r == reference]
        tests = []
        for arm, task in family:
            rows = slice(None) if task is None else [block.tasks.index(task)]
            differences = seed_differences(scores[arm][rows], scores[reference][rows])
            # A fresh generator each: the p of one row cannot depend on the rows before it.
            tests.append(paired_test(differences, np.random.default_rng(0)))
        adjusted = holm([test.p_value for test in tests])
        floors = [test.floor for test in tests if test.n > 0]
        # The smallest of m adjusted values is m times the smallest p; no other is below it.
        least = len(floors) * min(floors, default=1.0)
        for (arm, task), test, p in zip(family, tests, adjusted, strict=True):
            floor, expected = min(1.0, max(test.floor, least)), len(block.seeds)
            metric = block.metric if task is None else block.metric_of(task)
            found = Comparison(arm, reference, task, test, float(p), floor, expected, metric)
            comparisons.append(found)
    return comparisons


_ON_AVERAGE = (
    "differences averaged over tasks within a seed. Holm's families: the pairs with one "
    "reference, a pair once (none, random, nearest, dsir, got_d in this order), in whichever of "
    "the two tables it is shown"
)


def average_comparisons_table(block: Block) -> Table | None:
    """Show the primary paired comparisons on the average over tasks."""
    primary = [c for c in compare_on_average(block) if is_primary(block, c)]
    return _comparisons("Paired comparisons, average", primary, block, _ON_AVERAGE)


def remaining_comparisons_table(block: Block) -> Table | None:
    """Show the paired comparisons on the average that are not primary."""
    rest = [c for c in compare_on_average(block) if not is_primary(block, c)]
    return _comparisons("Paired comparisons, average, remaining pairs", rest, block, _ON_AVERAGE)


def task_comparisons_table(block: Block) -> Table | None:
    """Show paired comparisons on each task."""
    unit = "one difference per seed. Holm's families: the pairs with one reference, all tasks"
    return _comparisons("Paired comparisons, by task", compare_per_task(block), block, unit)


def _comparisons(
    title: str, comparisons: Sequence[Comparison], block: Block, unit: str
) -> Table | None:
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
            "p": _p(c.test.p_value),
            "Holm p": _p(c.holm_p),
            "least p": _p(c.test.floor) if c.test.n else "",
            "detectable": f"{c.test.detectable * factor:.{digits}f}" if has_spread else "",
            "verdict": c.verdict,
        }
        rows.append(row)
    points = " in points" if block.metric.factor > 1 else ""
    notes = [
        f"Arm minus reference{points}, paired by task and seed: {unit}. {seeds_note(block)}",
        "p: two-sided sign-flip permutation test; least p: the smallest this many pairs can "
        "give, 2 / 2^n; detectable: smallest true difference that has power 0.8 in a paired "
        "t-test at level 0.05 with the spread seen.",
    ]
    n = len(block.seeds)
    if p_floor(n) > LEVEL:
        notes.append(
            f"With {n} seed{'s' if n > 1 else ''} the least two-sided sign-flip p is 2 / 2^{n} = "
            f"{p_floor(n):.4g}, so intervals can be read but no test can be passed; "
            "use at least 6 seeds, better 10."
        )
    return Table.of(title, rows, *notes)


def _p(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
