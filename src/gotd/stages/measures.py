"""Stages that measure a model: which ones depends on the kind of evaluation."""

from __future__ import annotations

from typing import Any

from gotd.artifacts import Stage
from gotd.evaluation.fine_tuned import FineTuned
from gotd.stages.models import predictions


def measured(
    evaluation: Any, model: Stage, rows: Stage, task: Any, tuning: Any, seed: int
) -> dict[str, Stage]:
    """Give the stages that hold what a model did on every example, by role.

    The record reads all of them; ``evaluation.results`` turns them into numbers.

    Args:
        evaluation: What conf/evaluation built; its class decides.
        model: The model to measure.
        rows: The task's rows.
        task: The task.
        tuning: Settings of fine-tuning, for evaluations that fine-tune.
        seed: Seed of whatever chance there is in the measurement.

    Raises:
        TypeError: If no stages are known for the evaluation.
    """
    if isinstance(evaluation, FineTuned):
        return {"predictions": predictions(model, rows, task, tuning, seed)}
    raise TypeError(f"no stages are known for the evaluation {type(evaluation).__name__}")
