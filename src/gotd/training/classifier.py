"""Fine-tune an encoder on the labelled target, and predict with the result.

The paper's second stage (GOT-D, Tables 9 and 11). Every arm starts from the same head: it
depends on the seed alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from peft import PeftModel
from torch import Tensor, nn

from gotd.storage.checks import check_choice, check_share
from gotd.storage.seeds import derive_seed
from gotd.training.data import Part, read_task_rows, steps_per_epoch, tokenise
from gotd.training.heads import (
    HEADS,
    TextClassifier,
    apply_to_rows,
    decide,
    load_classifier,
    pad_with_content,
    save_classifier,
)
from gotd.training.labels import LabelledTask
from gotd.training.loading import device_of
from gotd.training.lora import prepare_tuning
from gotd.training.models import load_encoder, load_tokenizer, resolve_folder
from gotd.training.optimisation import resolve_precision
from gotd.training.randomness import TrainingSeeds, isolated_randomness
from gotd.training.settings import TrainingSettings
from gotd.training.tracking import log_loss
from gotd.training.trainer import StepModule, train

CHOICES = ("best_epoch", "last_epoch")


@dataclass(frozen=True, kw_only=True)
class FineTuneSettings(TrainingSettings):
    """Settings of the fine-tuning stage.

    Args:
        head: Input of the classifier. ``pooler``: BERT's pooled first token (DistilBERT's
            pre-classifier of it, initialised anew). ``mean``: the mean hidden state of the
            texts' own tokens. ``siamese``: for pairs, ``[u, v, |u - v|, u * v]`` of the
            two texts' means (small encoders do not learn to compare within 500 labels);
            for single texts, the mean.
        freeze_embeddings: Do not train the embedding layer, which memorises the words of
            a small label set.
        choose: ``best_epoch`` on the validation rows (the earliest of equals), or
            ``last_epoch``.
        dropout: Dropout before the classifier; the encoder has its own.
    """

    key_name: ClassVar[str] = "FineTuneSettings"

    published: ClassVar[dict[str, Any]] = {"choose": "last_epoch"}
    """Values of the published code where they differ (Deviation D9)."""

    head: str = "pooler"
    freeze_embeddings: bool = False
    choose: str = "best_epoch"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "head", HEADS)
        check_choice(self, "choose", CHOICES)
        check_share(self, "dropout")


class FineTuning(StepModule):
    """Cross-entropy for classes, squared error for scores; validated after every epoch."""

    loss_name = "fine_tune_loss"
    saved = (*StepModule.saved, "scores", "best", "best_score", "best_epoch")
    fresh_pooler = False
    """Whether the encoder came without a pooler; set by `load`."""

    def __init__(
        self, folder: Path, task: LabelledTask, settings: FineTuneSettings, seeds: TrainingSeeds
    ) -> None:
        if settings.choose == "best_epoch" and task.validation is None:
            raise ValueError("choose=best_epoch needs validation rows; give some or use last_epoch")
        tokenizer, length = load_tokenizer(folder), settings.max_length_tokens
        data = task.read("train", tokenizer, length)
        held_out = None if task.validation is None else task.read("validation", tokenizer, length)
        digests = [data.digest()] if held_out is None else [data.digest(), held_out.digest()]
        super().__init__(folder, tokenizer, data.rows, settings, seeds, *digests)
        self.task, self.labels, self.validation = task, data.labels, held_out
        self.per_epoch = steps_per_epoch(len(data.rows), settings.global_batch_size)
        self.scores: list[list[float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_score = -math.inf
        self.best_epoch = 0.0

    def load(self) -> PeftModel | None:
        """Load the encoder, draw the head and freeze what is not tuned."""
        encoder, self.fresh_pooler = load_encoder(self.folder)
        head = self.settings.head
        if head == "siamese" and self.rows.second is None:
            head = "mean"
        self.network = TextClassifier(encoder, head, self.task.outputs, self.settings.dropout)
        seed = derive_seed(self.seeds.initialisation, "head")
        self.network.draw_fresh(seed, with_pooler=self.fresh_pooler and head == "pooler")
        adapted = prepare_tuning(encoder, self.settings)
        if adapted is not None and head == "pooler" and self.network.pre_classifier is None:
            encoder.pooler.requires_grad_(True)
        if self.settings.freeze_embeddings:
            encoder.embeddings.requires_grad_(False)
        return adapted

    def save(self, out: Path) -> None:
        """Write the classifier and its tokenizer."""
        settings = self.settings
        length, precision = settings.max_length_tokens, settings.precision
        save_classifier(self.network, self.task.regression, length, precision, out)
        self.tokenizer.save_pretrained(out)

    def pad(self, which: np.ndarray) -> Part:
        """Pad some of the rows, with their labels."""
        labels = torch.from_numpy(self.labels[which])
        return {**pad_with_content(self.rows, which), "labels": labels}

    def sum_losses(self, part: Part) -> Tensor:
        """Return the summed loss of the part's rows."""
        outputs = self.network(part)
        if self.task.regression:
            return nn.functional.mse_loss(outputs[:, 0], part["labels"], reduction="sum")
        return nn.functional.cross_entropy(outputs, part["labels"], reduction="sum")

    def after_update(self, step: int) -> None:
        """Score the validation rows at the end of each epoch, and copy the best weights."""
        if self.validation is None or (step % self.per_epoch and step != self.total_steps):
            return
        outputs = apply_to_rows(self.network, self.validation.rows, self.precision)
        self.network.train()
        predictions = decide(outputs, self.task.regression)
        score = float(self.task.score(predictions, self.validation.labels))
        epoch = step / self.per_epoch
        self.scores.append([epoch, score])
        log_loss(step, {"validation": score})
        if self.settings.choose != "best_epoch":
            return
        # An undefined score (a constant prediction's correlation) never beats a defined one.
        if not self.best or score > self.best_score:
            self.best_epoch = epoch
            self.best_score = -math.inf if math.isnan(score) else score
            self.best = {
                key: value.detach().cpu().clone()
                for key, value in self.network.state_dict().items()
            }

    def on_train_end(self) -> None:
        """Restore the best weights."""
        if self.best:
            self.network.load_state_dict(self.best)

    def report(self) -> dict[str, Any]:
        """Return the validation scores, the chosen epoch, and whether the pooler was fresh."""
        return {
            "validation": self.scores,
            "chosen_epoch": self.best_epoch if self.best else self.total_steps / self.per_epoch,
            "fresh_pooler": self.fresh_pooler,
        }


def fine_tune(
    model: Path | str,
    task: LabelledTask,
    settings: FineTuneSettings,
    seeds: TrainingSeeds,
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Train a classifier on labelled rows and write its folder ``out``.

    Called again with the same arguments after a kill, it resumes from the checkpoint in
    ``work`` and writes the same bytes.

    Args:
        model: Folder or Hub name of the encoder.
        task: The labelled rows.
        settings: See :class:`FineTuneSettings`.
        seeds: Seeds of the head, of order and of dropout.
        work: Folder for the checkpoint of a long run.
        out: Folder for the classifier, for :func:`predict`; with the ``pooler`` head
            also for ``AutoModelForSequenceClassification`` (BERT, DistilBERT).

    Returns:
        JSON-able ``validation`` ([[epoch, score]]), ``chosen_epoch``, ``steps``,
        ``fresh_pooler`` and what :func:`train` returns.

    Raises:
        ValueError: If rows or labels are malformed, ``best_epoch`` has no validation
            rows, or weights other than the pooler are missing.
        FileNotFoundError: If ``model`` is no model folder.
        FloatingPointError: If the loss is not finite.
    """
    return train(FineTuning(resolve_folder(model), task, settings, seeds), work, out)


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
    device = device_of("auto")
    precision = resolve_precision(usage["precision"], device, network)
    outputs = apply_to_rows(network.to(device), tokens, precision, batch_size)
    return decide(outputs, usage["regression"])
