"""The loss on held-out texts of the target, in tables and figures of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure

from gotd.evaluation.metrics import metric
from gotd.reporting.cells import Block
from gotd.reporting.comparisons import average_comparisons_table
from gotd.reporting.figures import differences_figure, scores_figure
from gotd.reporting.render import Table
from gotd.reporting.tables import metrics_table, scores_table

METRIC = "target_loss"
"""Metric of the records; the loss of the base and of parts of the target begin with it."""

NOTE = (
    "Loss of the pre-fine-tuned language model on held-out texts of the target, in nats per "
    "predicted token, before any fine-tuning; the arm none is the base. Lower is better."
)


def loss_block(block: Block) -> Block | None:
    """Return the block with the target loss as the headline of its records.

    Returns:
        ``None`` where no record has it, or where it is the headline already.
    """
    if any(block.metric_of(task).name.startswith(METRIC) for task in block.tasks):
        return None
    cells = {cell: _with_loss(record) for cell, record in block.cells.items() if _has_loss(record)}
    names = {row: name for row, name in block.names.items() if any(row == r for _, r, _ in cells)}
    return replace(block, cells=cells, names=names) if cells else None


def _has_loss(record: dict[str, Any]) -> bool:
    return record["status"] == "done" and record["metrics"].get(METRIC) is not None


def _with_loss(record: dict[str, Any]) -> dict[str, Any]:
    headline = {
        "headline_name": METRIC,
        "headline": record["metrics"][METRIC],
        "headline_higher_is_better": metric(METRIC).higher_is_better,
    }
    return {**record, "metrics": {**record["metrics"], **headline}}


def loss_tables(block: Block) -> tuple[Table, ...]:
    """Build the tables of a block from `loss_block`: losses, paired tests, parts of the target."""
    scores = scores_table(block)
    losses = replace(scores, title="Target loss", notes=(NOTE, *scores.notes))
    parts = metrics_table(block, "Target loss by part", lambda name: name.startswith(METRIC))
    tables = (losses, average_comparisons_table(block), parts)
    return tuple(table for table in tables if table is not None)


def loss_figures(block: Block) -> dict[str, Figure]:
    """Plot the losses of a block from `loss_block` and their differences, by file name."""
    makers = {"target_loss": scores_figure, "target_loss_differences": differences_figure}
    return {name: figure for name, make in makers.items() if (figure := make(block)) is not None}
