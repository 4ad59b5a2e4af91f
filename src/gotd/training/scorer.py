"""Train a toxicity scorer on labelled comments, in the format that Detoxify loads.

It replaces a published scorer where none can be downloaded. Its checkpoint is an artifact
like any other, so the scorer is pinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from gotd.storage.files import atomic_write
from gotd.training.data import Part, tokenise
from gotd.training.loading import load_network
from gotd.training.models import (
    ModelSpec,
    check_length,
    load_tokenizer,
    recompute_activations,
    resolve_folder,
)
from gotd.training.randomness import TrainingSeeds
from gotd.training.settings import TrainingSettings
from gotd.training.trainer import StepModule, train

CHECKPOINT = "detoxify.ckpt"
CLASSES = ("toxic",)
"""As in Detoxify's checkpoints; the library calls the class ``toxicity``."""


@dataclass(frozen=True, kw_only=True)
class ScorerSettings(TrainingSettings):
    """Settings of training a scorer: binary cross-entropy on one class."""

    key_name: ClassVar[str] = "ScorerSettings"


@dataclass(frozen=True)
class TrainedScorer:
    """Configuration of a scorer that is trained on the source's labelled comments.

    Args:
        spec: The BERT that training starts from.
        settings: Settings of training.
        seed: Seed of training; in the generated benchmark the world.
        comments: The source's task with ``text`` and ``label`` (1: toxic), splits ``train``
            and ``test``.
    """

    key_name: ClassVar[str] = "TrainedScorer"

    spec: ModelSpec
    settings: ScorerSettings
    seed: int
    comments: str = "wiki_comments"


class Scoring(StepModule):
    """Binary cross-entropy of the one class."""

    loss_name = "scorer_loss"

    def __init__(
        self,
        folder: Path,
        texts: Sequence[str],
        labels: np.ndarray,
        settings: ScorerSettings,
        seeds: TrainingSeeds,
    ) -> None:
        tokenizer = load_tokenizer(folder)
        rows = tokenise(tokenizer, texts, None, settings.max_length_tokens)
        digests = rows.digest(), labels.tobytes().hex()
        super().__init__(folder, tokenizer, rows, settings, seeds, *digests)
        self.labels = labels

    def load(self) -> None:
        """Load the BERT; its classifier, and a pooler that is missing, are fresh."""
        fresh = ("classifier.", "bert.pooler.")
        self.network, _ = load_network(
            BertForSequenceClassification, self.folder, fresh, num_labels=len(CLASSES)
        )
        check_length(self.network, self.settings.max_length_tokens)
        if self.settings.gradient_checkpointing:
            recompute_activations(self.network)

    def save(self, out: Path) -> None:
        """Write Detoxify's checkpoint and the model files that its ``model_type`` refers to."""
        self.network.config.save_pretrained(out)
        self.tokenizer.save_pretrained(out)
        arch = {
            "model_type": ".",  # the folder of the file
            "model_name": type(self.network).__name__,
            "tokenizer_name": "AutoTokenizer",
            "num_classes": len(CLASSES),
        }
        weights = {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}
        checkpoint = {
            "config": {"dataset": {"args": {"classes": list(CLASSES)}}, "arch": {"args": arch}},
            "state_dict": weights,
        }
        with atomic_write(out / CHECKPOINT) as part, part.open("wb") as file:
            torch.save(checkpoint, file)

    def pad(self, which: np.ndarray) -> Part:
        """Pad some of the rows, with their labels."""
        return {**super().pad(which), "labels": torch.from_numpy(self.labels[which])}

    def sum_losses(self, part: Part) -> Tensor:
        """Return the summed loss, in nats."""
        inputs = {key: value for key, value in part.items() if key != "labels"}
        logits = self.network(**inputs).logits[:, 0].float()
        return nn.functional.binary_cross_entropy_with_logits(
            logits, part["labels"], reduction="sum"
        )


def train_scorer(
    base: Path,
    texts: Sequence[str],
    labels: np.ndarray,
    settings: ScorerSettings,
    seeds: TrainingSeeds,
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Train a classifier on comments and write it as Detoxify's checkpoint.

    Called again after a kill, it resumes from the checkpoint in ``work``.

    Args:
        base: Folder of a BERT; a pooler that is missing is initialised.
        texts: ``[n]`` comments.
        labels: ``[n]``, 1 for toxic and 0 for not.
        settings: See `ScorerSettings`.
        seeds: Seeds of order, dropout and fresh weights.
        work: Folder for the checkpoint of a long run.
        out: Folder for ``detoxify.ckpt`` and the configuration and tokenizer that it
            names; in it ``Detoxify(checkpoint="detoxify.ckpt")`` loads the checkpoint.

    Returns:
        JSON-able ``loss_curve``, ``steps``, ``tokens``, ``seeds`` and, not reproducible,
        ``cost``.

    Raises:
        ValueError: If there are no texts, or labels are not 0 and 1.
    """
    values = np.asarray(labels, dtype=np.float32)
    if len(values) != len(texts) or not np.isin(values, (0, 1)).all():
        raise ValueError("a scorer is trained on one label a comment, 0 (not toxic) or 1 (toxic)")
    return train(Scoring(resolve_folder(base), texts, values, settings, seeds), work, out)
