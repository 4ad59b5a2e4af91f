"""The tables of paired comparisons: which differences between arms hold after correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gotd.reporting.cells import Block
from gotd.reporting.comparisons import (
    Comparison,
    compare_on_average,
    compare_per_task,
    is_primary,
)
from gotd.reporting.render import Table
from gotd.reporting.statistics import LEVEL, p_floor
from gotd.reporting.tables import AVERAGE, seeds_note

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
        *_too_few(len(block.seeds)),
    ]
    return Table.of(title, rows, *notes)


def _too_few(n: int) -> list[str]:
    """Return a warning that the seeds are too few for a test; empty where they are enough."""
    if p_floor(n) <= LEVEL:
        return []
    return [
        f"With {n} seed{'s' if n > 1 else ''} the least two-sided sign-flip p is 2 / 2^{n} = "
        f"{p_floor(n):.4g}, so intervals can be read but no test can be passed; "
        "use at least 6 seeds, better 10."
    ]


def _p(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
