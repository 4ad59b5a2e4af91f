"""Steps of models: base, pre-fine-tuned, tuned on the target; and predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.base import PinnedPart, Source, read_all
from gotd.data.sampling import SPLIT_SEED, limited
from gotd.data.sizes import DOCUMENT_TOKENS, PASSAGE_TOKENS, expected_rows
from gotd.evaluation.metrics import gain
from gotd.pipeline.ranked_pool import SELECTED
from gotd.storage.artifacts import WORK, Step, write_json
from gotd.storage.keys import identity, source_identity
from gotd.storage.model_files import locate, model_identity
from gotd.storage.seeds import derive_seeds
from gotd.storage.shapes import Shape, named_shape
from gotd.storage.work import Work, reading_work
from gotd.training.causal_models import CausalSpec
from gotd.training.classifier import FineTuneSettings, fine_tune, predict
from gotd.training.labels import LabelledTask
from gotd.training.language_model import pre_fine_tune
from gotd.training.memory import GIB, scoring_memory
from gotd.training.models import ModelSpec, build_model
from gotd.training.randomness import TrainingSeeds

REPORT = "report.json"
"""What training reports, written when it is done."""


@dataclass(frozen=True)
class Pairs:
    """Prompts and responses of selected rows.

    Args:
        steps: The steps that hold them, by role.
        of: Returns the pairs of a selection, from it and the folders of the steps.
    """

    steps: Mapping[str, Step]
    of: Callable[[pa.Table, Mapping[str, Path]], list[Any]]


def base_model(source: Any, model: Any, spec: Any, pretraining: Any, seed: int) -> Step:
    """Build the model that every arm starts from.

    A masked or a causal language model, built from its configuration, or read from a
    folder or the Hub; where ``pretraining`` is given it is trained on the source's own
    pre-training text, so that the pre-training distribution of the theory is known.
    """
    rows, words = model.pretraining_rows, _has_word_tokens(spec)
    # Its perplexity is taken on text that it has not seen.
    causal = pretraining is not None and isinstance(spec, CausalSpec)
    needs_text = pretraining is not None or (spec.pretrained is None and not words)

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        texts: list[str] = []
        if needs_text:
            parts = source.pretraining()
            if rows is not None:
                # By hash: the first rows of a folder are those of its first domains.
                parts = limited(parts, rows, SPLIT_SEED, role="pretraining rows")
            documents = read_all([PinnedPart(part, part.identity()) for part in parts])
            if causal:
                held_out = pc.is_in(documents["id"], value_set=read_all(source.held_out())["id"])
                documents = documents.filter(pc.invert(held_out))
            texts = documents["text"].to_pylist()
        start = folder if pretraining is None else folder / WORK / "start"
        write_initial(spec, source, texts, seed, start)
        if pretraining is not None:
            train_model(start, texts, pretraining, derive_seeds(seed), folder)

    def parameters() -> dict[str, Any]:
        return {
            "source": source_identity(source, "pretraining") if needs_text or words else None,
            "spec": spec_identity(spec),
            "pretraining": identity(pretraining) if pretraining is not None else None,
            "pretraining_rows": None if rows is None else {"rows": rows, "chosen": "by hash"},
            "seed": seed,
            **({"without": "held-out text"} if causal else {}),
        }

    work = partial(_base_work, source, rows, spec, pretraining)
    return Step("base_model", 1, model.name, parameters(), build, work=work, again=parameters)


def _has_word_tokens(spec: ModelSpec) -> bool:
    """Return whether a model is built with a token for each word of the source."""
    return spec.pretrained is None and spec.tokenizer == "word_level"


def write_initial(spec: ModelSpec, source: Any, texts: list[str], seed: int, folder: Path) -> None:
    """Write the model of a specification before any training; texts make its tokens."""
    if spec.pretrained is not None:
        spec = replace(spec, pretrained=locate(spec.pretrained))
    build_model(spec, source.vocabulary() if _has_word_tokens(spec) else texts, seed, folder)


def spec_identity(spec: ModelSpec) -> dict[str, Any]:
    """Return what a specification contributes to a key, with the weights of a published model."""
    fields = identity(spec)
    if spec.pretrained is not None:
        fields["pretrained"] = model_identity(spec.pretrained, spec.revision)
    return fields


def _base_work(source: Source, rows: int | None, spec: ModelSpec, pretraining: Any) -> Work:
    shape = spec.shape()
    if pretraining is None:
        size = 4 * shape.weights
        return Work(disk_bytes=size, memory_bytes=size, shape=shape, rate="copy")
    tokens = DOCUMENT_TOKENS if source.generated else PASSAGE_TOKENS
    return pretraining.work(shape, rows or expected_rows(source, "pretraining"), tokens)


def tuned_encoder(
    model: str, rows: Step, task: Any, settings: Any, seeds: Mapping[str, int]
) -> Step:
    """Tune an encoder on the target, to embed both sides with it.

    The paper embeds with a DistilBERT fine-tuned on the target (App. C.1); it does not
    say by which objective. ``settings`` decide: a classifier's or, where no label may be
    seen, those of masked language modelling on the target's texts.

    Raises:
        ValueError: If there are no settings: detoxification has no labelled target.
    """
    if settings is None:
        raise ValueError(
            f"task {task.name} has no labels to fine-tune an embedder on; use "
            "embedder=distilbert_plain"
        )
    # Deviation D17: by the target's own classification, where it has labels to be seen.

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        if isinstance(settings, FineTuneSettings):
            by_mean = replace(settings, head="mean")  # it is pooled by the mean, too
            _fine_tune(locate(model), inputs["rows"], task, by_mean, seeds, folder / WORK, folder)
        else:
            texts = pq.read_table(inputs["rows"] / "train.parquet")["text"].to_pylist()
            _train(locate(model), texts, settings, seeds, folder)

    def work() -> Work:
        return _tuning_work(named_shape(model), rows, settings)

    name = f"{rows.name}-{Path(model).name}"

    def parameters() -> dict[str, Any]:
        return {"model": model_identity(model), **training_key(settings, seeds)}

    return Step("encoder", 1, name, parameters(), build, {"rows": rows}, work, again=parameters)


def pre_fine_tuned(
    base: Step,
    selection: Step,
    settings: Any,
    arm: str,
    seeds: Mapping[str, int],
    pairs: Pairs | None = None,
) -> Step:
    """Train the base model's language-model objective on the selected texts.

    Args:
        base: The model to train.
        selection: The selected rows.
        settings: Settings of the training.
        arm: Name of the selector.
        seeds: The seed of each role.
        pairs: Steps of the pairs of prompt and response that ``settings`` read instead of texts,
            and what returns the pairs of a selection.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        selected = pq.read_table(inputs["selection"] / SELECTED)
        texts = pairs.of(selected, inputs) if pairs else selected["text"].to_pylist()
        train_model(inputs["base"], texts, settings, seeds, folder)

    def work() -> Work:
        return settings.work(model_shape(base), selection.stated.rows, selection.stated.tokens)

    parameters, inputs = training_key(settings, seeds), {"base": base, "selection": selection}
    if pairs:
        inputs |= pairs.steps
    return Step("pre_fine_tuned", 1, f"{base.name}-{arm}", parameters, build, inputs, work)


def predictions(
    model: Step, rows: Step, task: Any, settings: Any, seeds: Mapping[str, int]
) -> Step:
    """Train on the labelled rows and predict every reported split.

    Only predictions and curves are kept: a fine-tuned model per cell would fill the
    disk, and it can be made again from what is kept.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        base, table_folder, tuned = inputs["model"], inputs["rows"], folder / WORK / "tuned"
        if not (folder / REPORT).exists():  # a kill while predicting costs no training
            report = _fine_tune(base, table_folder, task, settings, seeds, folder / WORK, tuned)
            write_report(folder, report)
        for name in task.reported_splits:
            table = pq.read_table(table_folder / f"reported-{name}.parquet")
            columns = {kept: table[kept] for kept in ("id", "domain", "label")}
            columns["prediction"] = pa.array(predict(tuned, table), pa.float64())
            pq.write_table(pa.table(columns), folder / f"{name}.parquet")

    def work() -> Work:
        evaluated = rows.stated.evaluated
        tuning = _tuning_work(model_shape(model), rows, settings, evaluated)
        return replace(tuning, disk_bytes=40 * evaluated)

    return measurement("predictions", model, rows, training_key(settings, seeds), build, work)


def measurement(
    kind: str,
    model: Step,
    rows: Step,
    parameters: Mapping[str, Any],
    build: Callable[[Path, Mapping[str, Path]], None],
    work: Callable[[], Work],
) -> Step:
    """Return a step that measures a model on the rows of a task."""
    name = f"{rows.name}-{model.name}"
    return Step(kind, 1, name, parameters, build, {"model": model, "rows": rows}, work)


def model_shape(model: Step) -> Shape:
    """Return the sizes of the network that a step writes."""
    shape = model.stated.shape
    assert shape is not None, f"{model.kind} writes no model"
    return shape


def scoring_work(
    model: Step,
    precision: str,
    texts: float,
    tokens: float,
    batch_tokens: int = 4096,
    predicted: float = 1.0,
) -> Work:
    """Return the work of scoring texts by a language model.

    Args:
        model: Step that writes the model.
        precision: Arithmetic of the model.
        texts: How many texts.
        tokens: Tokens of each.
        batch_tokens: Tokens that are read at once.
        predicted: Share of the tokens that are predicted; these alone get logits.
    """
    shape = model_shape(model)
    memory = scoring_memory(shape, precision, batch_tokens, math.ceil(tokens))
    work = reading_work(shape, texts, tokens, logits=predicted)
    return replace(work, memory_bytes=memory.gib * GIB)


def _tuning_work(shape: Shape, rows: Step, settings: Any, evaluated: float = 0.0) -> Work:
    """Return the work of training on a task's rows, and of reading those it is evaluated on."""
    tokens = rows.stated.tokens
    training = settings.work(shape, rows.stated.rows, tokens)
    reading = reading_work(shape, evaluated, min(tokens, settings.max_length_tokens))
    return replace(training, flops=training.flops + reading.flops)


def train_model(
    model: Path | str, texts: list[Any], settings: Any, seeds: Mapping[str, int], out: Path
) -> None:
    """Train a language model on texts and write its folder, with the report of the training."""
    write_report(out, _train(model, texts, settings, seeds, out))


def _train(
    model: Path | str, texts: list[Any], settings: Any, seeds: Mapping[str, int], out: Path
) -> dict[str, Any]:
    """Train a language model by the objective whose settings these are."""
    return pre_fine_tune(model, texts, settings, _training_seeds(seeds), out / WORK / "train", out)


def _fine_tune(
    model: Path | str,
    rows: Path,
    task: Any,
    settings: Any,
    seeds: Mapping[str, int],
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Train a classifier on a task's rows; those that are held out choose the epoch."""
    held_out = rows / "validation.parquet"
    labelled = LabelledTask(
        pq.read_table(rows / "train.parquet"),
        pq.read_table(held_out) if held_out.exists() else None,
        task.classes,
        task.label_kind == "regression",
        partial(gain, task.headline),
    )
    return fine_tune(model, labelled, settings, _training_seeds(seeds), work / "train", out)


def _training_seeds(seeds: Mapping[str, int]) -> TrainingSeeds:
    """Return the seeds of the roles that training has."""
    return TrainingSeeds(seeds["training_order"], seeds["masking"], seeds["initialisation"])


def training_key(settings: Any, seeds: Mapping[str, int]) -> dict[str, Any]:
    """Return what determines a training run in addition to its inputs."""
    roles = ("training_order", "masking", "initialisation")
    return {"settings": identity(settings), "seeds": {role: seeds[role] for role in roles}}


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the report of training without its time, which the manifest has."""
    write_json(folder / REPORT, {k: v for k, v in report.items() if k != "cost"})
