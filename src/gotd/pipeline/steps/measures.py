"""Steps that measure a model: which ones depends on the kind of evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gotd.evaluation.fine_tuned import FineTuned
from gotd.evaluation.toxicity import Toxicity
from gotd.evaluation.zero_shot import OF_FULL_TEXT, Prompt, ZeroShot
from gotd.pipeline.steps.models import predictions, scoring_work
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
    source: Any,
    seeds: Mapping[str, int],
) -> dict[str, Step]:
    """Give the steps that hold what a model did on every example, by role.

    The record reads all of them; ``evaluation.results`` turns them into numbers.

    Args:
        evaluation: What conf/evaluation built; its class decides.
        model: The model to measure.
        rows: The task's rows.
        task: The task.
        tuning: Settings of fine-tuning, for evaluations that fine-tune.
        source: Where what a measurement needs besides (comments to train a scorer) is from.
        seeds: The seed of each role.

    Raises:
        ValueError: If the evaluation is not for this kind of task, or no steps are known for it.
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
    if isinstance(evaluation, Toxicity):
        if "prompts" not in task.table_names:
            raise ValueError(
                f"task {task.name} has no rated prompts; evaluation={evaluation.name} goes with "
                "experiment=toxicity"
            )
        return toxicity_measures(evaluation, model, rows, task, source, seeds["generation"])
    raise ValueError(f"no steps are known for the evaluation {type(evaluation).__name__}")


def answers(evaluation: ZeroShot, model: Step, rows: Step, task: Any) -> Step:
    """Score every choice of the task's rows; which one is taken is decided afterwards.

    Raises:
        ValueError: If the task says nothing about how to ask its rows.
    """
    if not hasattr(task, "context"):
        raise ValueError(
            f"task {task.name} has no prompt; use a zero-shot task, for instance "
            "task=agnews_zero_shot"
        )
    full_text = evaluation.method in OF_FULL_TEXT
    prompt = Prompt(task.context, task.continuation, task.choices)

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.evaluation.likelihood import Likelihood, load_for_scoring
        from gotd.evaluation.ranges import by_range
        from gotd.evaluation.zero_shot import score_choices

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

    return Step(
        kind="answers",
        version=1,
        name=f"{rows.name}-{model.name}",
        parameters={
            "prompt": identity(prompt),
            "full_text": full_text,
            "precision": evaluation.precision,
        },
        build=build,
        inputs={"model": model, "rows": rows},
        work=work,
    )
