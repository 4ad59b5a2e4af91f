"""Steps of models: base, pre-fine-tuned, tuned on the target; and predictions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.base import Source
from gotd.data.sizes import DOCUMENT_TOKENS, PASSAGE_TOKENS, expected_rows
from gotd.storage.artifacts import WORK, Step, write_json
from gotd.storage.keys import identity, source_identity
from gotd.storage.model_files import locate, model_identity
from gotd.storage.seeds import derive_seeds
from gotd.storage.shapes import Shape, named_shape
from gotd.storage.work import Work, reading_work
from gotd.training.causal_models import CausalSpec
from gotd.training.memory import GIB, scoring_memory
from gotd.training.models import ModelSpec

REPORT = "report.json"
"""What training reports, written when it is done."""


def base_model(source: Any, model: Any, spec: Any, pretraining: Any, seed: int) -> Step:
    """Build the model that every arm starts from.

    A masked or a causal language model, built from its configuration, or read from a
    folder or the Hub; where ``pretraining`` is given it is trained on the source's own
    pre-training text, so that the pre-training distribution of the theory is known.
    """
    from_scratch = spec.pretrained is None
    # Its perplexity is taken on text that it has not seen.
    causal = pretraining is not None and _is_causal(spec)
    words = from_scratch and spec.tokenizer == "word_level"
    needs_text = pretraining is not None or (from_scratch and not words)

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        from gotd.data.base import read_all
        from gotd.data.sampling import SPLIT_SEED, limited
        from gotd.training.models import build_model

        texts: list[str] = []
        if needs_text:
            parts = source.pretraining()
            if model.pretraining_rows is not None:
                # By hash: the first rows of a folder are those of its first domains.
                parts = limited(parts, model.pretraining_rows, SPLIT_SEED, role="pretraining rows")
            documents = read_all(parts)
            if causal:
                documents = _without(documents, read_all(source.held_out()))
            texts = documents["text"].to_pylist()
        located = (
            spec if from_scratch else dataclasses.replace(spec, pretrained=locate(spec.pretrained))
        )
        start = folder if pretraining is None else folder / WORK / "start"
        build_model(located, source.vocabulary() if words else texts, seed, start)
        if pretraining is not None:
            report = _train(
                start, texts, pretraining, derive_seeds(seed), folder / WORK / "train", folder
            )
            write_report(folder, report)

    parameters = {
        "source": source_identity(source, "pretraining") if needs_text or words else None,
        "spec": identity(spec),
        "pretraining": identity(pretraining) if pretraining is not None else None,
        "pretraining_rows": model.pretraining_rows,
        "seed": seed,
    }
    if not from_scratch:
        parameters["spec"]["pretrained"] = model_identity(spec.pretrained, spec.revision)
    if causal:
        parameters["without"] = "held-out text"
    if model.pretraining_rows is not None:
        parameters["pretraining_rows"] = {"rows": model.pretraining_rows, "chosen": "by hash"}
    work = partial(_base_work, source, model, spec, pretraining)
    return Step("base_model", 1, model.name, parameters, build, work=work)


def _base_work(source: Source, model: Any, spec: ModelSpec, pretraining: Any) -> Work:
    shape = spec.shape()
    if pretraining is None:
        size = 4 * shape.weights
        return Work(disk_bytes=size, memory_bytes=size, shape=shape, rate="copy")
    rows = model.pretraining_rows or expected_rows(source, "pretraining")
    tokens = DOCUMENT_TOKENS if source.generated else PASSAGE_TOKENS
    return pretraining.work(shape, rows, tokens)


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
        from gotd.training.classifier import FineTuneSettings, fine_tune

        if not isinstance(settings, FineTuneSettings):
            texts = pq.read_table(inputs["rows"] / "train.parquet")["text"].to_pylist()
            _train(Path(locate(model)), texts, settings, seeds, folder / WORK / "train", folder)
            return
        fine_tune(
            locate(model),
            _labelled_task(inputs["rows"], task),
            dataclasses.replace(settings, head="mean"),  # it is pooled by the mean, too
            _training_seeds(seeds),
            folder / WORK / "train",
            folder,
        )

    return Step(
        kind="encoder",
        version=1,
        name=f"{rows.name}-{Path(model).name}",
        parameters={
            "model": model_identity(model),
            "settings": identity(settings),
            "seeds": _of_training(seeds),
        },
        build=build,
        inputs={"rows": rows},
        work=lambda: _tuning_work(named_shape(model), rows, settings),
    )


def pre_fine_tuned(
    base: Step, selection: Step, settings: Any, arm: str, seeds: Mapping[str, int]
) -> Step:
    """Train the base model's language-model objective on the selected texts."""

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        texts = pq.read_table(inputs["selection"] / "selection.parquet")["text"].to_pylist()
        report = _train(inputs["base"], texts, settings, seeds, folder / WORK / "train", folder)
        write_report(folder, report)

    return Step(
        kind="pre_fine_tuned",
        version=1,
        name=f"{base.name}-{arm}",
        parameters={"settings": identity(settings), "seeds": _of_training(seeds)},
        build=build,
        inputs={"base": base, "selection": selection},
        work=lambda: settings.work(
            model_shape(base), selection.stated.rows, selection.stated.tokens
        ),
    )


def predictions(
    model: Step, rows: Step, task: Any, settings: Any, seeds: Mapping[str, int]
) -> Step:
    """Train on the labelled rows and predict every reported split.

    Only predictions and curves are kept: a fine-tuned model per cell would fill the
    disk, and it can be made again from what is kept.
    """

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        from gotd.training.classifier import fine_tune, predict

        if not (folder / REPORT).exists():  # a kill while predicting costs no training
            report = fine_tune(
                inputs["model"],
                _labelled_task(inputs["rows"], task),
                settings,
                _training_seeds(seeds),
                folder / WORK / "train",
                folder / WORK / "tuned",
            )
            write_report(folder, report)
        for name in task.reported_splits:
            table = pq.read_table(inputs["rows"] / f"reported-{name}.parquet")
            predicted = predict(folder / WORK / "tuned", table)
            pq.write_table(
                pa.table(
                    {
                        "id": table["id"],
                        "domain": table["domain"],
                        "label": table["label"],
                        "prediction": pa.array(predicted, pa.float64()),
                    }
                ),
                folder / f"{name}.parquet",
            )

    def work() -> Work:
        evaluated = rows.stated.evaluated
        tuning = _tuning_work(model_shape(model), rows, settings, evaluated)
        return dataclasses.replace(tuning, disk_bytes=40 * evaluated)

    return Step(
        kind="predictions",
        version=1,
        name=f"{rows.name}-{model.name}",
        parameters={"settings": identity(settings), "seeds": _of_training(seeds)},
        build=build,
        inputs={"model": model, "rows": rows},
        work=work,
    )


def _labelled_task(rows: Path, task: Any) -> Any:
    """Read the rows to learn from and to choose an epoch by."""
    from gotd.evaluation.metrics import gain
    from gotd.training.labels import LabelledTask

    held_out = rows / "validation.parquet"
    return LabelledTask(
        pq.read_table(rows / "train.parquet"),
        pq.read_table(held_out) if held_out.exists() else None,
        task.classes,
        task.label_kind == "regression",
        lambda predicted, labels: gain(task.headline, predicted, labels),
    )


def model_shape(model: Step) -> Shape:
    """Return the sizes of the network that a step writes."""
    shape = model.stated.shape
    assert shape is not None, f"{model.kind} writes no model"
    return shape


def scoring_work(
    model: Step, precision: str, texts: float, tokens: float, batch_tokens: int = 4096
) -> Work:
    """Return the work of scoring texts by a language model: every token gets logits."""
    shape = model_shape(model)
    memory = scoring_memory(shape, precision, batch_tokens, math.ceil(tokens))
    work = reading_work(shape, texts, tokens, logits=True)
    return dataclasses.replace(work, memory_bytes=memory.gib * GIB)


def _tuning_work(shape: Shape, rows: Step, settings: Any, evaluated: float = 0.0) -> Work:
    """Return the work of training on a task's rows, and of reading those it is evaluated on."""
    tokens = rows.stated.tokens
    training = settings.work(shape, rows.stated.rows, tokens)
    reading = reading_work(shape, evaluated, min(tokens, settings.max_length_tokens))
    return dataclasses.replace(training, flops=training.flops + reading.flops)


def _is_causal(spec: Any) -> bool:
    return isinstance(spec, CausalSpec)


def _without(documents: pa.Table, others: pa.Table) -> pa.Table:
    """Return the rows that are not in another table."""
    return documents.filter(pc.invert(pc.is_in(documents["id"], value_set=others["id"])))


def _train(
    model: Path, texts: list[str], settings: Any, seeds: Mapping[str, int], work: Path, out: Path
) -> dict[str, Any]:
    """Train a language model by the objective whose settings these are."""
    from gotd.training.language_model import pre_fine_tune

    return pre_fine_tune(model, texts, settings, _training_seeds(seeds), work, out)


def _training_seeds(seeds: Mapping[str, int]) -> Any:
    """Return the seeds of the roles that training has."""
    from gotd.training.randomness import TrainingSeeds

    return TrainingSeeds(
        order=seeds["training_order"],
        masking=seeds["masking"],
        initialisation=seeds["initialisation"],
    )


def _of_training(seeds: Mapping[str, int]) -> dict[str, int]:
    """Return the seeds of the roles that training has, for a key."""
    return {role: seeds[role] for role in ("training_order", "masking", "initialisation")}


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write the report of training without its time, which the manifest has."""
    write_json(folder / REPORT, {k: v for k, v in report.items() if k != "cost"})
