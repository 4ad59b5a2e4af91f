"""Tables of experiments that measure one thing in several ways, such as toxicity.

Where other experiments have a column per task, these have one per measure, in the paper's
order and unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gotd.reporting.cells import Block, task_interval
from gotd.reporting.render import Table
from gotd.reporting.statistics import Interval


@dataclass(frozen=True)
class Measure:
    """A column: a metric of the records, its heading, and how many decimals it gets."""

    metric: str
    heading: str
    digits: int = 3


_TOXICITY = (
    Measure("expected_max_toxicity/toxic", "EMT toxic"),
    Measure("expected_max_toxicity/nontoxic", "EMT nontoxic"),
    Measure("toxicity_probability/toxic", "TP toxic"),
    Measure("toxicity_probability/nontoxic", "TP nontoxic"),
)
_SECOND = tuple(Measure(f"second/{m.metric}", f"2nd scorer, {m.heading}") for m in _TOXICITY)
MEASURES_OF: dict[str, tuple[Measure, ...]] = {
    "expected_max_toxicity": (
        *_TOXICITY,
        *_SECOND,
        Measure("corpus_perplexity", "PPL, corpus", 2),
        Measure("mean_text_perplexity", "PPL, mean of texts", 2),
        Measure("utility_accuracy", "utility acc"),
        Measure("failed_scores", "failed scores", 1),
    ),
}
"""Columns by the headline metric; those that no record has are left out."""
NOTES_OF = {
    "expected_max_toxicity": (
        "EMT: mean over prompts of the highest toxicity of a prompt's continuations; TP: share of "
        "prompts with one of 0.5 or more; both for toxic and other prompts apart. PPL: perplexity "
        "of held-out text, of the corpus and as the mean of texts (the paper's). Lower is better "
        "everywhere but in utility. A prompt is measured by the scores that could be had; the "
        "others are counted as failed."
    ),
}


def measures_of(block: Block) -> tuple[Measure, ...]:
    """Give the columns of a block's table; empty where tasks are its columns."""
    wanted = MEASURES_OF.get(block.metric, ()) if len(block.tasks) == 1 else ()
    return tuple(m for m in wanted if not np.isnan(_all(block, m.metric)).all())


def _all(block: Block, metric: str) -> np.ndarray:
    return np.array([block.scores(arm, metric) for arm in block.arms])


def measures_table(block: Block, seeds_note: str, rows_of: Mapping[str, Sequence[str]]) -> Table:
    """Show arms by measures.

    Args:
        block: The records.
        seeds_note: What its seeds are.
        rows_of: Further cells of each arm: what it selected.
    """
    measures = measures_of(block)
    rows = []
    for arm in block.arms:
        found = [task_interval(block, arm, block.tasks[0], m.metric) for m in measures]
        cells = [_cell(i, m, len(block.seeds)) for i, m in zip(found, measures, strict=True)]
        rows.append((arm, *cells, str(found[0].n) if found else "", *rows_of[arm]))
    columns = ("arm", *[m.heading for m in measures], "seeds", "distinct / rows")
    notes = (
        f"Mean ± half-width of the 95 % t-interval; {seeds_note}",
        NOTES_OF[block.metric],
    )
    return Table("Scores", columns, tuple(rows), frozenset({"arm"}), notes)


def _cell(interval: Interval, measure: Measure, expected: int) -> str:
    if interval.n == 0:
        return "–"
    text = f"{interval.mean:.{measure.digits}f}"
    if not np.isnan(interval.half_width):
        text += f" ± {interval.half_width:.{measure.digits}f}"
    return text if interval.n == expected else f"{text} ({interval.n}/{expected})"


def prompts_table(block: Block) -> Table | None:
    """Show how far the choice of prompts alone moves each measure; ``None`` without any."""
    measures = [m for m in measures_of(block) if _has_interval(block, m)]
    if not measures:
        return None
    rows = []
    for arm in block.arms:
        cells = []
        for m in measures:
            name, _, kind = m.metric.rpartition("/")
            ends = [np.nanmean(block.scores(arm, f"{name}_{e}/{kind}")) for e in ("low", "high")]
            cells.append("–" if np.isnan(ends).any() else f"{ends[0]:.3f} to {ends[1]:.3f}")
        rows.append((arm, *cells))
    notes = (
        "95 % bootstrap interval over prompts, its ends averaged over seeds: the noise of which "
        "prompts are asked, training and sampling held fixed.",
    )
    columns = ("arm", *[m.heading for m in measures])
    return Table("Noise of the prompts", columns, tuple(rows), frozenset({"arm"}), notes)


def _has_interval(block: Block, measure: Measure) -> bool:
    name, _, kind = measure.metric.rpartition("/")
    return not np.isnan(_all(block, f"{name}_low/{kind}")).all()
