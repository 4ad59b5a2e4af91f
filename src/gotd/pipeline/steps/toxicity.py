"""Steps of the toxicity experiment: scorer, generations, scores, perplexity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.pool import open_pool
from gotd.data.sizes import DOCUMENT_TOKENS, expected_rows
from gotd.evaluation.generation import continue_prompts
from gotd.evaluation.likelihood import load_for_scoring
from gotd.evaluation.perplexity import PerplexitySettings, perplexity_of
from gotd.evaluation.ranges import by_range
from gotd.evaluation.scorers.detoxify import DetoxifyScorer
from gotd.evaluation.toxicity import Toxicity
from gotd.evaluation.utility import SPLIT_OF, UtilitySettings, measure_utility
from gotd.pipeline.steps.models import (
    REPORT,
    measurement,
    model_shape,
    scoring_work,
    spec_identity,
    write_initial,
    write_report,
)
from gotd.storage.artifacts import WORK, Step, write_json
from gotd.storage.keys import identity, source_identity
from gotd.storage.shapes import BERT_BASE
from gotd.storage.work import Work, reading_work
from gotd.training.randomness import TrainingSeeds
from gotd.training.scorer import CHECKPOINT, TrainedScorer, train_scorer

COMMENT_TOKENS, HELD_OUT_TOKENS = 64, 2 * DOCUMENT_TOKENS
"""Tokens of a labelled comment, and of a text whose perplexity is measured."""
UTILITY_ROWS, UTILITY_CHOICES, UTILITY_TOKENS = 3_000, 3, 150
"""Rows of a utility task that nothing limits, the choices of each and their tokens."""


# long: a declaration whose build trains and tests
def scorer(settings: TrainedScorer, source: Any) -> Step:
    """Train a scorer on the source's comments and test it on others.

    Raises:
        ValueError: If the source has no such comments.
    """
    if settings.comments not in source.tasks():
        raise ValueError(
            f"the source {source.name} has no labelled comments {settings.comments!r} to train "
            "the scorer on; add them or choose another scorer, such as "
            "scorer@evaluation.scorer=detoxify"
        )

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        from sklearn.metrics import roc_auc_score

        work = folder / WORK
        train, test = (source.split(settings.comments, split) for split in ("train", "test"))
        if not (work / REPORT).exists():  # a kill while testing costs no training
            texts, labels = train["text"].to_pylist(), train["label"].to_numpy()
            start, seeds = work / "start", TrainingSeeds.derive(settings.seed)
            write_initial(settings.spec, source, texts, settings.seed, start)
            report = train_scorer(
                start, texts, labels, settings.settings, seeds, work / "train", folder
            )
            write_report(work, report)
        report = json.loads((work / REPORT).read_text(encoding="utf-8"))
        scores = DetoxifyScorer(str(folder / CHECKPOINT)).score(test["text"].to_pylist())
        truth = test["label"].to_numpy() == 1
        tests = {
            "test_rows": len(truth),
            "test_accuracy": float(((scores >= 0.5) == truth).mean()),
            "test_auc": float(roc_auc_score(truth, scores)),
        }
        write_report(folder, {**report, **tests})

    def work() -> Work:
        rows = expected_rows(source, f"{settings.comments}/train")
        return settings.settings.work(settings.spec.shape(), rows, COMMENT_TOKENS)

    def parameters() -> dict[str, Any]:
        return {
            "source": source_identity(source, "tasks", settings.comments),
            "spec": spec_identity(settings.spec),
            "settings": identity(settings.settings),
            "seed": settings.seed,
        }

    return Step("scorer", 1, source.name, parameters(), build, work=work, again=parameters)


def pool_toxicity(settings: Any, source: Any, candidates: Step) -> Step:
    """Score the toxicity of every candidate, for the selector that takes the least toxic."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        score = _load(settings, inputs)

        def score_range(rows: pa.Table) -> pa.Table:
            return pa.table({"id": rows["id"], "score": score.score(rows["text"].to_pylist())})

        scores = []
        for number, shard in enumerate(open_pool(inputs["candidates"])):
            rows = pa.table({"id": shard.ids, "text": shard.texts})
            scores.append(by_range(rows, score_range, folder / WORK / f"ranges-{number:05d}"))
        pq.write_table(pa.concat_tables(scores), folder / "scores.parquet", compression="zstd")

    return _scoring("pool_toxicity", settings, source, {"candidates": candidates}, build)


def toxicity_measures(
    evaluation: Toxicity, model: Step, rows: Step, task: Any, source: Any, seed: int
) -> dict[str, Step]:
    """Return the steps of a toxicity record: generations, their scores, losses.

    Raises:
        ValueError: If the task has no prompts.
    """
    if "prompts" not in task.table_names:
        raise ValueError(
            f"task {task.name} has no rated prompts; evaluation={evaluation.name} goes with "
            "experiment=toxicity"
        )
    generated = _generations(evaluation, model, rows, seed)
    steps = {
        "generations": generated,
        "scores": _scores(evaluation.scorer, source, generated, rows),
    }
    if evaluation.second_scorer is not None:
        steps["second_scores"] = _scores(evaluation.second_scorer, source, generated, rows)
    if evaluation.perplexity is not None and task.held_out_rows:
        steps["perplexity"] = _perplexity(evaluation.perplexity, model, rows, task.held_out_rows)
    if evaluation.utility is not None:
        steps["utility"] = _utility(evaluation.utility, model, source)
    return steps


def _generations(evaluation: Toxicity, model: Step, rows: Step, seed: int) -> Step:
    """Generate continuations of the prompts."""
    settings = evaluation.generation

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        prompts = pq.read_table(inputs["rows"] / "prompts.parquet")
        network, tokenizer = load_for_scoring(inputs["model"], settings.precision)
        work = folder / WORK / "ranges"
        generated = continue_prompts(network, tokenizer, prompts, settings, seed, work)
        pq.write_table(generated, folder / "generations.parquet", compression="zstd")
        write_json(folder / "report.json", {"cut_prompts": sum(generated["cut"].to_pylist())})

    def work() -> Work:
        texts, tokens = rows.stated.evaluated * settings.samples, settings.max_new_tokens
        reading = scoring_work(model, settings.precision, texts, tokens)
        return replace(reading, disk_bytes=4 * texts * tokens)

    parameters = {"settings": identity(settings), "seed": seed}
    return measurement("generations", model, rows, parameters, build, work)


def _scores(settings: Any, source: Any, generated: Step, rows: Step) -> Step:
    """Score every continuation, without its prompt."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        score = _load(settings, inputs)

        def score_range(table: pa.Table) -> pa.Table:
            texts = table["continuations"].combine_chunks()
            flat = score.score(texts.flatten().to_pylist())
            scores = pa.ListArray.from_arrays(texts.offsets, pa.array(flat, from_pandas=True))
            return pa.table({"id": table["id"], "scores": scores})

        continued = pq.read_table(inputs["generations"] / "generations.parquet")
        scored = by_range(continued, score_range, folder / WORK / "ranges")
        prompts = pq.read_table(inputs["rows"] / "prompts.parquet", columns=["id", "toxic"])
        if not scored["id"].equals(prompts["id"]):
            raise ValueError("the generations are of other prompts than the rows")
        scored = scored.append_column("toxic", prompts["toxic"])
        pq.write_table(scored, folder / "scores.parquet", compression="zstd")

    return _scoring("scores", settings, source, {"generations": generated, "rows": rows}, build)


def _perplexity(settings: PerplexitySettings, model: Step, rows: Step, texts: int) -> Step:
    """Compute the loss on held-out text."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        texts = pq.read_table(inputs["rows"] / "held_out.parquet", columns=["id", "text"])
        network, tokenizer = load_for_scoring(inputs["model"], settings.precision)
        _, losses = perplexity_of(network, tokenizer, texts, settings, folder / WORK / "ranges")
        pq.write_table(losses, folder / "losses.parquet", compression="zstd")

    def work() -> Work:
        return scoring_work(model, settings.precision, texts, HELD_OUT_TOKENS)

    parameters = {"settings": identity(settings)}
    return measurement("perplexity", model, rows, parameters, build, work)


def _utility(settings: UtilitySettings, model: Step, source: Any) -> Step:
    """Evaluate the model on tasks that are not about toxicity.

    Raises:
        ValueError: If the source lacks one of them.
    """
    texts = len(settings.tasks) * (settings.rows or UTILITY_ROWS) * UTILITY_CHOICES
    local = settings.tasks if settings.rows_from == "source" else ()
    lacking = [name for name in local if name not in source.tasks()]
    if lacking:
        raise ValueError(
            f"the source {source.name} has no rows of the utility task {lacking[0]!r}; leave it "
            "out of evaluation.utility.tasks or use evaluation=toxicity_utility_hub"
        )

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        def read(name: str) -> pa.Table:
            return source.split(name, SPLIT_OF.get(name, "test"))

        scores = measure_utility(inputs["model"], settings, read, folder / WORK)
        write_json(folder / "utility.json", scores)

    def work() -> Work:
        return scoring_work(model, "float32", texts, UTILITY_TOKENS)

    def parameters() -> dict[str, Any]:
        rows = {name: source_identity(source, "tasks", name) for name in local}
        return {"settings": identity(settings), "rows": rows}

    inputs = {"model": model}
    return Step("utility", 1, model.name, parameters(), build, inputs, work, again=parameters)


def _scoring(kind: str, settings: Any, source: Any, inputs: dict[str, Step], build: Any) -> Step:
    """Return a step that scores the texts of its first input, by a scorer trained here or not."""
    texts, trained = next(iter(inputs.values())), isinstance(settings, TrainedScorer)
    if trained:
        inputs = {**inputs, "scorer": scorer(settings, source)}

    def parameters() -> dict[str, Any]:
        return {} if trained else {"scorer": settings.identity()}

    def work() -> Work:
        # The published scorers are of BERT's size.
        shape = model_shape(inputs["scorer"]) if "scorer" in inputs else BERT_BASE
        return reading_work(shape, texts.stated.rows, texts.stated.tokens)

    return Step(kind, 1, texts.name, parameters(), build, inputs, work, again=parameters)


def _load(settings: Any, inputs: Mapping[str, Path]) -> Any:
    """Return the scorer that a step trained, or the configured one."""
    if not isinstance(settings, TrainedScorer):
        return settings
    return DetoxifyScorer(str(inputs["scorer"] / CHECKPOINT))
