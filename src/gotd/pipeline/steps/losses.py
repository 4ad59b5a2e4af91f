"""Step of the loss on held-out texts of the target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from gotd.data.base import Task
from gotd.data.sampling import SPLIT_SEED, at_most
from gotd.pipeline.steps.models import scoring_work
from gotd.storage.artifacts import WORK, Step
from gotd.storage.keys import identity
from gotd.storage.work import Work

if TYPE_CHECKING:
    from gotd.evaluation.target_loss import TargetLossSettings

LOSSES = "losses.parquet"


def target_loss(model: Step, rows: Step, task: Task, causal: bool, settings: Any) -> Step:
    """Compute the loss of a language model on held-out texts of the target.

    Texts and masks are the same for every seed and every model of a task.

    Args:
        model: The model.
        rows: The task's rows.
        task: The task.
        causal: Whether the model is a causal one.
        settings: Settings, `gotd.evaluation.target_loss.TargetLossSettings`.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.evaluation.target_loss import target_losses

        texts = at_most(task.held_out_texts(inputs["rows"]), settings.texts, "target loss")
        losses = target_losses(inputs["model"], causal, texts, settings, SPLIT_SEED, folder / WORK)
        parts = texts["part"].slice(0, losses.num_rows)
        pq.write_table(losses.append_column("part", parts), folder / LOSSES)

    return Step(
        kind="target_loss",
        version=1,
        name=f"{rows.name}-{model.name}",
        parameters={"settings": identity(settings), "causal": causal, "seed": SPLIT_SEED},
        build=build,
        inputs={"model": model, "rows": rows},
        work=lambda: _work(model, rows, causal, settings),
    )


def _work(model: Step, rows: Step, causal: bool, settings: TargetLossSettings) -> Work:
    texts = min(settings.texts, rows.stated.evaluated) * (1 if causal else settings.mask_sets)
    tokens = min(rows.stated.tokens, settings.max_length_tokens)
    predicted = 1.0 if causal else settings.mask_probability
    return scoring_work(model, "float32", texts, tokens, predicted=predicted)
