"""Tables of experiments that measure one thing in several ways, such as toxicity.

Where other experiments have a column per task, these have one per measure, in the paper's
order and unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gotd.evaluation.metrics import metric
from gotd.reporting.cells import Block, task_interval
from gotd.reporting.paper import BY_SCORES
from gotd.reporting.render import Table
from gotd.reporting.statistics import format_interval

Measures = dict[str, str]
"""Headings of columns by the metric in the records."""

MEASURES_OF: dict[str, Measures] = {
    "expected_max_toxicity": {
        **{name: heading for heading, name in BY_SCORES.items()},
        **{f"second/{name}": f"2nd scorer, {heading}" for heading, name in BY_SCORES.items()},
        "corpus_perplexity": "PPL, corpus",
        "mean_text_perplexity": "PPL, mean of texts",
        "utility_accuracy": "utility acc",
        "failed_scores": "failed scores",
    },
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


def measures_of(block: Block) -> Measures:
    """Return the columns of a block's table; empty where tasks are its columns."""
    wanted = MEASURES_OF.get(block.metric.name, {}) if len(block.tasks) == 1 else {}
    return {name: heading for name, heading in wanted.items() if _is_recorded(block, name)}


def _is_recorded(block: Block, name: str) -> bool:
    return any(r["metrics"].get(name) is not None for arm in block.arms for r in block.of(arm))


def measures_table(
    block: Block, notes: Sequence[str], selected: Mapping[str, Mapping[str, str]]
) -> Table:
    """Show arms by measures.

    Args:
        block: The records.
        notes: What its seeds are, then further notes.
        selected: Cells by heading and arm: what each arm selected.
    """
    measures = measures_of(block)
    rows = []
    for arm in block.arms:
        intervals = [task_interval(block, arm, block.tasks[0], name) for name in measures]
        cells = [
            format_interval(interval, len(block.seeds), of.factor, of.digits) if interval.n else "–"
            for interval, of in zip(intervals, map(metric, measures), strict=True)
        ]
        chosen = [of[arm] for of in selected.values()]
        rows.append((arm, *cells, str(intervals[0].n), *chosen))
    columns = ("arm", *measures.values(), "seeds", *selected)
    seeds, *further = notes
    said = f"Mean ± half-width of the 95 % t-interval; {seeds}"
    return Table("Scores", columns, tuple(rows), (said, NOTES_OF[block.metric.name], *further))


def prompts_table(block: Block) -> Table | None:
    """Show how far the choice of prompts alone moves each measure; ``None`` without any."""
    measures = {
        ends: heading
        for name, heading in measures_of(block).items()
        if _is_recorded(block, (ends := _ends_of(name))[0])
    }
    if not measures:
        return None
    rows = []
    for arm in block.arms:
        cells = []
        for names in measures:
            ends = [np.nanmean(block.scores(arm, name)) for name in names]
            cells.append("–" if np.isnan(ends).any() else f"{ends[0]:.3f} to {ends[1]:.3f}")
        rows.append((arm, *cells))
    notes = (
        "95 % bootstrap interval over prompts, its ends averaged over seeds: the noise of which "
        "prompts are asked, training and sampling held fixed.",
    )
    columns = ("arm", *measures.values())
    return Table("Noise of the prompts", columns, tuple(rows), notes)


def _ends_of(name: str) -> tuple[str, str]:
    """Return the metrics that hold the ends of a measure's interval over prompts."""
    measure, _, kind = name.rpartition("/")
    return f"{measure}_low/{kind}", f"{measure}_high/{kind}"
