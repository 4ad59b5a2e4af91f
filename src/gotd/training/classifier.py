"""Fine-tune an encoder on the labelled target, and predict with the result.

The paper's second stage (GOT-D, Tables 9 and 11). Every arm starts from the same
head: it is drawn from the seed alone, never from what was loaded before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from gotd.training.data import (
    Batch,
    BatchStream,
    Part,
    TokenRows,
    read_task_rows,
    split_batch,
    steps_per_epoch,
    tokenise,
)
from gotd.training.heads import (
    HEADS,
    TextClassifier,
    apply_to_rows,
    decide,
    load_classifier,
    pad_with_content,
    save_classifier,
)
from gotd.training.lora import add_adapters, merge_adapters
from gotd.training.models import check_length, load_encoder, load_tokenizer, resolve_folder
from gotd.training.randomness import isolated_randomness, seed_for, seed_generators
from gotd.training.settings import TrainingSettings, identity_of
from gotd.training.trainer import (
    StepModule,
    count_steps,
    forget_checkpoint,
    process_rank,
    resolve_precision,
    train,
)

CHOICES = ("best_epoch", "last_epoch")

Score = Callable[[np.ndarray, np.ndarray], float]
"""Maps (predictions, labels) to a number; higher is better."""


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings(TrainingSettings):
    """Settings of the fine-tuning stage.

    Args:
        head: What the classifier sees. ``pooler``: BERT's pooled first token (DistilBERT's
            pre-classifier of it, drawn fresh). ``mean``:
            the mean hidden state of the texts' own tokens. ``siamese``: for pairs,
            ``[u, v, |u - v|, u * v]`` of the two texts' means (small encoders do
            not learn to compare within 500 labels); for single texts, the mean.
        freeze_embeddings: Keep the embedding layer as it is, which a small label set
            would otherwise use to memorise its words.
        choose: ``best_epoch`` on the validation rows (the earliest of equals), or
            ``last_epoch``.
        dropout: Dropout before the classifier; the encoder keeps its own.
    """

    key_name: ClassVar[str] = "FineTuneSettings"

    published: ClassVar[dict[str, Any]] = {"choose": "last_epoch"}
    """What the published code does otherwise (Deviation D9)."""

    head: str = "pooler"
    freeze_embeddings: bool = False
    choose: str = "best_epoch"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy != "ddp":
            raise ValueError(f"strategy={self.strategy} is for causal models; use ddp")
        if self.devices != 1:
            raise ValueError(f"fine-tuning runs on one device, not {self.devices}; use devices=1")
        for name, values in {"head": HEADS, "choose": CHOICES}.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {values}, not {getattr(self, name)!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class LabelledRows:
    """Tokenised task rows and their labels.

    Args:
        rows: The texts or pairs.
        labels: ``[n]`` int64 classes or float32 scores.
        are_pairs: Whether every row has a second text.
    """

    rows: TokenRows
    labels: np.ndarray
    are_pairs: bool

    def digest(self) -> str:
        """Return a hash of tokens and labels."""
        return self.rows.digest() + blake2b(self.labels.tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class LabelledCollator:
    """Make the batch of a step from rows and their labels."""

    data: LabelledRows
    per_device_batch_size: int

    def __call__(self, step: int, which: np.ndarray) -> Batch:
        """Return this device's share of ``step``, over the rows ``which``."""
        rank, devices = process_rank()
        parts = [
            {
                **pad_with_content(self.data.rows, which[part]),
                "labels": torch.from_numpy(self.data.labels[which[part]]),
            }
            for part in split_batch(len(which), self.per_device_batch_size, rank, devices)
        ]
        return Batch(parts, terms=len(which))


class FineTuning(StepModule):
    """Cross-entropy for classes, squared error for scores; validated after every epoch."""

    def __init__(
        self,
        network: TextClassifier,
        settings: FineTuneSettings,
        seed: int,
        identity: str,
        per_epoch: int,
        regression: bool,
        validation: LabelledRows | None,
        score: Score,
    ) -> None:
        super().__init__(network, settings, seed, identity)
        self.keep_best = settings.choose == "best_epoch"
        self.per_epoch = per_epoch
        self.regression = regression
        self.validation = validation
        self.score = score
        self.scores: list[list[float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_score = -math.inf
        self.best_epoch = 0.0

    def sum_losses(self, part: Part) -> Tensor:
        """Return the summed loss of the part's rows."""
        outputs = self.network(part)
        if self.regression:
            return nn.functional.mse_loss(outputs[:, 0], part["labels"], reduction="sum")
        return nn.functional.cross_entropy(outputs, part["labels"], reduction="sum")

    def after_update(self, step: int) -> None:
        """Score the validation rows at the end of each epoch, and keep the best weights."""
        if self.validation is None or (step % self.per_epoch and step != self.total_steps):
            return
        outputs = apply_to_rows(self.network, self.validation.rows, self.precision)
        self.network.train()
        score = float(self.score(decide(outputs, self.regression), self.validation.labels))
        epoch = step / self.per_epoch
        self.scores.append([epoch, score])
        # An undefined score (a constant prediction's correlation) never beats a defined one.
        if self.keep_best and (not self.best or score > self.best_score):
            self.best_epoch = epoch
            self.best_score = -math.inf if math.isnan(score) else score
            self.best = {
                key: value.detach().cpu().clone()
                for key, value in self.network.state_dict().items()
            }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the scores and the best weights so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["gotd"].update(
            scores=self.scores,
            best=self.best,
            best_score=self.best_score,
            best_epoch=self.best_epoch,
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint["gotd"]
        self.scores, self.best = saved["scores"], saved["best"]
        self.best_score, self.best_epoch = saved["best_score"], saved["best_epoch"]


def read_labels(table: pa.Table, name: str, classes: int, regression: bool) -> np.ndarray:
    """Return ``[n]`` labels: int64 classes, or float32 scores.

    Raises:
        ValueError: If a label is missing, not finite, or no class in [0, classes).
    """
    if "label" not in table.column_names or table["label"].null_count:
        raise ValueError(f"the {name} rows need a label each, in the column 'label'")
    labels = table["label"].to_numpy().astype(np.float64)
    if regression:
        bad = ~np.isfinite(labels)
    else:
        bad = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if bad.any():
        row = int(np.argmax(bad))
        expected = "a finite score" if regression else f"a class in 0..{classes - 1}"
        raise ValueError(
            f"{name} row {row} has the label {labels[row]}, not {expected} "
            f"({int(bad.sum())} such rows); unlabelled test rows cannot be used"
        )
    return labels.astype(np.float32 if regression else np.int64)


def read_labelled(
    table: pa.Table,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length_tokens: int,
    classes: int,
    regression: bool,
) -> LabelledRows:
    """Check and tokenise labelled task rows; ``name`` is what errors call them."""
    texts, pairs = read_task_rows(table, name)
    rows = tokenise(tokenizer, texts, pairs, max_length_tokens)
    return LabelledRows(rows, read_labels(table, name, classes, regression), pairs is not None)


def fine_tune(
    model: Path | str,
    train_rows: pa.Table,
    validation_rows: pa.Table | None,
    classes: int,
    regression: bool,
    settings: FineTuneSettings,
    seed: int,
    work: Path,
    out: Path,
    score: Score,
) -> dict[str, Any]:
    """Train a classifier on labelled rows and write its folder ``out``.

    Called again with the same arguments after a kill, it goes on from the checkpoint
    in ``work`` and writes the same bytes.

    Args:
        model: Folder or Hub name of the encoder.
        train_rows: Normalised task rows: ``text``, ``text_pair`` (null for single
            texts), ``label`` (class index or score).
        validation_rows: Rows scored after each epoch; needed by ``best_epoch``.
        classes: Classes; not read for a regression.
        regression: Whether labels are scores.
        settings: See :class:`FineTuneSettings`.
        seed: Seed of the head, order and dropout.
        work: Folder for the checkpoint of a long run.
        out: Folder for the classifier, for :func:`predict`; with the ``pooler`` head
            also for ``AutoModelForSequenceClassification`` (BERT, DistilBERT).
        score: Maps (predictions, labels) of the validation rows to a number; higher
            is better.

    Returns:
        JSON-able ``loss_curve`` ([[step, mean loss]]), ``validation`` ([[epoch,
        score]]), ``chosen_epoch``, ``steps``, ``tokens``, ``fresh_pooler`` and, not
        reproducible, ``cost``.

    Raises:
        ValueError: If rows or labels are malformed, ``best_epoch`` has no validation
            rows, or weights other than the pooler are missing.
        FileNotFoundError: If ``model`` is no model folder.
        FloatingPointError: If the loss is not finite.
    """
    if settings.choose == "best_epoch" and validation_rows is None:
        raise ValueError("choose=best_epoch needs validation rows; give some or use last_epoch")
    if not regression and classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, not {classes}")
    folder = resolve_folder(model)
    tokenizer = load_tokenizer(folder)
    length = settings.max_length_tokens
    data = read_labelled(train_rows, "train", tokenizer, length, classes, regression)
    validation = None
    if validation_rows is not None:
        validation = read_labelled(
            validation_rows, "validation", tokenizer, length, classes, regression
        )
    per_epoch = steps_per_epoch(len(data.rows), settings.global_batch_size)
    steps = count_steps(per_epoch, settings.epochs)
    with isolated_randomness():
        network, fresh_pooler = _load_with_head(
            folder, data.are_pairs, 1 if regression else classes, settings, seed
        )
        adapted = _freeze_and_adapt(network, settings)
        collate = LabelledCollator(data, settings.per_device_batch_size)
        order = range(steps)
        stream = BatchStream(data.rows.lengths, settings.global_batch_size, order, seed, collate)
        digests = [d.digest() for d in (data, validation) if d is not None]
        identity = identity_of(settings, seed, *digests)
        module = FineTuning(
            network, settings, seed, identity, per_epoch, regression, validation, score
        )
        cost = train(module, stream, work)
    if module.best:
        network.load_state_dict(module.best)
    out.mkdir(parents=True, exist_ok=True)
    if adapted is not None:
        merge_adapters(adapted, out)
    save_classifier(network, regression, length, settings.precision, out)
    tokenizer.save_pretrained(out)
    forget_checkpoint(work)
    return {
        "loss_curve": module.curve,
        "validation": module.scores,
        "chosen_epoch": module.best_epoch if module.best else steps / per_epoch,
        "steps": steps,
        "tokens": stream.tokens,
        "fresh_pooler": fresh_pooler,
        "cost": asdict(cost),
    }


def _load_with_head(
    folder: Path, are_pairs: bool, outputs: int, settings: FineTuneSettings, seed: int
) -> tuple[TextClassifier, bool]:
    """Return what every arm of a seed starts with, and whether its pooler is fresh."""
    seed_generators(seed_for(seed, "fresh weights"))
    encoder, fresh_pooler = load_encoder(folder)
    check_length(encoder, settings.max_length_tokens)
    head = settings.head
    if head == "siamese" and not are_pairs:
        head = "mean"
    network = TextClassifier(encoder, head, outputs, settings.dropout)
    network.draw_fresh(seed_for(seed, "head"), with_pooler=fresh_pooler and head == "pooler")
    return network, fresh_pooler


def _freeze_and_adapt(network: TextClassifier, settings: FineTuneSettings) -> PeftModel | None:
    """Freeze, adapt and checkpoint the encoder as asked; return the adapters' handle."""
    encoder = network.encoder
    adapted = None
    if settings.tuning == "lora":
        adapted = add_adapters(encoder, settings)
        if network.head == "pooler" and network.pre_classifier is None:
            encoder.pooler.requires_grad_(True)
    if settings.freeze_embeddings:
        encoder.embeddings.requires_grad_(False)
    if settings.gradient_checkpointing:
        encoder.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted


def predict(model: Path, rows: pa.Table, batch_size: int = 64) -> np.ndarray:
    """Predict the labels of normalised task rows, whose own labels are not read.

    Args:
        model: Folder written by :func:`fine_tune`.
        rows: ``text`` and ``text_pair`` as in training.
        batch_size: Rows at once.

    Returns:
        ``[n]`` int64 classes, or float64 scores, in row order.

    Raises:
        FileNotFoundError: If ``model`` holds no classifier.
        ValueError: If rows are malformed, or single texts meet a classifier of pairs.
    """
    with isolated_randomness():
        network, usage = load_classifier(model)
    texts, pairs = read_task_rows(rows, "evaluation")
    if usage["head"] == "siamese" and pairs is None:
        raise ValueError(f"{model} classifies pairs, but the rows have no text_pair")
    tokens = tokenise(load_tokenizer(model), texts, pairs, usage["max_length_tokens"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = resolve_precision(usage["precision"], device, network)
    outputs = apply_to_rows(network.to(device), tokens, precision, batch_size)
    return decide(outputs, usage["regression"])
