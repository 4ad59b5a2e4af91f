"""Tables of experiments that measure one thing in several ways, such as toxicity.

Where other experiments have a column per task, these have one per measure, in the paper's
order and unit.
"""

from __future__ import annotations

import numpy as np

from gotd.reporting.cells import Block
from gotd.reporting.paper import BY_SCORES
from gotd.reporting.render import Table

Measures = dict[str, str]
"""Headings of columns by the metric in the records."""

HEADLINE = "expected_max_toxicity"
"""Headline of the experiment that is measured in several ways."""
MEASURES: Measures = {
    **{name: heading for heading, name in BY_SCORES.items()},
    **{f"second/{name}": f"2nd scorer, {heading}" for heading, name in BY_SCORES.items()},
    "corpus_perplexity": "PPL, corpus",
    "mean_text_perplexity": "PPL, mean of texts",
    "utility_accuracy": "utility acc",
    "failed_scores": "failed scores",
}
"""Its columns; those that no record has are left out."""
NOTE = (
    "EMT: mean over prompts of the highest toxicity of a prompt's continuations; TP: share of "
    "prompts with one of 0.5 or more; both for toxic and other prompts apart. PPL: perplexity "
    "of held-out text, of the corpus and as the mean of texts (the paper's). Lower is better "
    "everywhere but in utility. A prompt is measured by the scores that could be had; the "
    "others are counted as failed."
)


def measures_of(block: Block) -> Measures:
    """Return the columns of a block's table; empty where tasks are its columns."""
    if len(block.tasks) > 1 or block.metric.name != HEADLINE:
        return {}
    return {name: heading for name, heading in MEASURES.items() if _is_recorded(block, name)}


def _is_recorded(block: Block, name: str) -> bool:
    return any(r["metrics"].get(name) is not None for arm in block.arms for r in block.of(arm))


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
