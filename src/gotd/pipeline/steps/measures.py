"""Steps that measure a model: which ones depends on the kind of evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gotd.data.base import Source
from gotd.evaluation.fine_tuned import FineTuned
from gotd.evaluation.instruction import Instructed
from gotd.evaluation.likelihood import Likelihood, load_for_scoring
from gotd.evaluation.ranges import by_range
from gotd.evaluation.toxicity import Toxicity
from gotd.evaluation.zero_shot import OF_FULL_TEXT, Prompt, ZeroShot, score_choices
from gotd.pipeline.steps.instructions import responses
from gotd.pipeline.steps.models import measurement, predictions, scoring_work
from gotd.pipeline.steps.toxicity import toxicity_measures
from gotd.storage.artifacts import WORK, Step
from gotd.storage.keys import identity
from gotd.storage.work import Work
from gotd.training.classifier import FineTuneSettings


def measured(
    evaluation: Any,
    model: Step,
    rows: Step,
    task: Any,
    tuning: Any,
    source: Source,
    seeds: Mapping[str, int],
) -> dict[str, Step]:
    """Return the steps that measure a model, by role; ``evaluation.results`` reads them.

    An evaluation of an outside package has a method ``steps`` with the other arguments.

    Args:
        evaluation: The evaluation, whose class selects the steps.
        model: The model to measure.
        rows: The task's rows.
        task: The task.
        tuning: Settings of fine-tuning, for an evaluation that fine-tunes.
        source: The source, for what a measurement needs besides the task's rows.
        seeds: The seed of each role.

    Raises:
        ValueError: If the evaluation is not for this kind of task, or states no steps.
    """
    if isinstance(evaluation, FineTuned):
        if not isinstance(tuning, FineTuneSettings):
            raise ValueError(
                f"evaluation={evaluation.name} fine-tunes on labels; give it the settings of a "
                "classifier, for instance fine_tune=bert_glue"
            )
        return {"predictions": predictions(model, rows, task, tuning, seeds)}
    if isinstance(evaluation, ZeroShot):
        return {"answers": answers(evaluation, model, rows, task)}
    if isinstance(evaluation, Instructed):
        return {"responses": responses(evaluation, model, rows, task)}
    if isinstance(evaluation, Toxicity):
        return toxicity_measures(evaluation, model, rows, task, source, seeds["generation"])
    if not hasattr(evaluation, "steps"):
        raise ValueError(f"the evaluation {type(evaluation).__name__} states no steps")
    return evaluation.steps(model, rows, task, tuning, source, seeds)


def answers(evaluation: ZeroShot, model: Step, rows: Step, task: Any) -> Step:
    """Score every choice of the task's rows; the evaluation chooses afterwards.

    Raises:
        ValueError: If the task has no prompt.
    """
    if not hasattr(task, "context"):
        raise ValueError(
            f"task {task.name} has no prompt; use a zero-shot task, for instance "
            "task=agnews_zero_shot"
        )
    full_text = evaluation.method in OF_FULL_TEXT
    prompt = Prompt(task.context, task.continuation, task.choices)

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        network, tokenizer = load_for_scoring(inputs["model"], evaluation.precision)
        likelihood = Likelihood(network, evaluation.batch_tokens)
        for name in task.reported_splits:
            table = pq.read_table(inputs["rows"] / f"reported-{name}.parquet")
            scores = by_range(
                table,
                lambda some: score_choices(likelihood, tokenizer, some, prompt, full_text),
                folder / WORK / name,
            )
            for column in ("label", "domain"):
                scores = scores.append_column(column, table[column])
            pq.write_table(scores, folder / f"{name}.parquet")

    def work() -> Work:
        # A prompt is read once for all its choices.
        texts, tokens, batch = rows.stated.evaluated, rows.stated.tokens, evaluation.batch_tokens
        return scoring_work(model, evaluation.precision, texts, tokens, batch)

    parameters = {
        "prompt": identity(prompt),
        "full_text": full_text,
        "precision": evaluation.precision,
    }
    return measurement("answers", model, rows, parameters, build, work)
