"""Train a toxicity scorer on labelled comments, in the format that Detoxify loads.

It stands in where no published scorer can be had, and it is pinned: its checkpoint is
an artifact like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from gotd.storage.files import atomic_write
from gotd.training.data import (
    Batch,
    BatchStream,
    Part,
    TokenRows,
    pad_rows,
    split_batch,
    steps_per_epoch,
    tokenise,
)
from gotd.training.models import (
    ModelSpec,
    attention,
    check_length,
    load_tokenizer,
    missing_only,
    resolve_folder,
)
from gotd.training.randomness import isolated_randomness, seed_for, seed_generators
from gotd.training.settings import TrainingSettings, identity_of
from gotd.training.trainer import (
    StepModule,
    count_steps,
    forget_checkpoint,
    process_rank,
    train,
)

CHECKPOINT = "detoxify.ckpt"
CLASSES = ("toxic",)
"""As in Detoxify's checkpoints; the library gives it out as ``toxicity``."""


@dataclass(frozen=True, kw_only=True)
class ScorerSettings(TrainingSettings):
    """Settings of training a scorer: binary cross-entropy on one class."""

    key_name: ClassVar[str] = "ScorerSettings"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.devices != 1:
            raise ValueError(f"a scorer is trained on one device, not {self.devices}")


@dataclass(frozen=True)
class TrainedScorer:
    """Say how a scorer is made from the source's labelled comments.

    Args:
        spec: The BERT it starts from.
        settings: How it is trained.
        comments: The source's task with ``text`` and ``label`` (1: toxic), splits ``train``
            and ``test``.
        seed: Seed of training; in the generated benchmark the world.
    """

    key_name: ClassVar[str] = "TrainedScorer"

    spec: ModelSpec
    settings: ScorerSettings
    comments: str = "wiki_comments"
    seed: int = 0


@dataclass(frozen=True)
class CommentCollator:
    """Make the batch of a step from comments and their labels."""

    rows: TokenRows
    labels: np.ndarray
    per_device_batch_size: int

    def __call__(self, step: int, which: np.ndarray) -> Batch:
        """Return this device's share of ``step``, over the rows ``which``."""
        rank, devices = process_rank()
        parts = [
            {
                **pad_rows(self.rows, which[part]),
                "labels": torch.from_numpy(self.labels[which[part]]),
            }
            for part in split_batch(len(which), self.per_device_batch_size, rank, devices)
        ]
        return Batch(parts, terms=len(which))


class Scoring(StepModule):
    """Binary cross-entropy of the one class."""

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
    seed: int,
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Train a classifier on comments and write it as Detoxify's checkpoint.

    Run again after a kill, it goes on from the checkpoint in ``work``.

    Args:
        base: Folder of a BERT; a pooler that is missing is drawn fresh.
        texts: ``[n]`` comments.
        labels: ``[n]``, 1 for toxic and 0 for not.
        settings: See `ScorerSettings`.
        seed: Seed of order, dropout and fresh weights.
        work: Folder for the checkpoint of a long run.
        out: Folder that receives ``detoxify.ckpt``, and the configuration and the
            tokenizer that it names: ``Detoxify(checkpoint="detoxify.ckpt")`` loads it there.

    Returns:
        JSON-able ``loss_curve``, ``steps`` and, not reproducible, ``cost``.

    Raises:
        ValueError: If there are no texts, or labels are not 0 and 1.
    """
    values = np.asarray(labels, dtype=np.float32)
    if len(values) != len(texts) or not np.isin(values, (0, 1)).all():
        raise ValueError("a scorer is trained on one label a comment, 0 (not toxic) or 1 (toxic)")
    folder = resolve_folder(base)
    tokenizer = load_tokenizer(folder)
    rows = tokenise(tokenizer, texts, None, settings.max_length_tokens)
    with isolated_randomness():
        seed_generators(seed_for(seed, "fresh weights"))
        network = _load(folder)
        check_length(network, settings.max_length_tokens)
        if settings.gradient_checkpointing:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        per_epoch = steps_per_epoch(len(rows), settings.global_batch_size)
        steps = count_steps(per_epoch, settings.epochs)
        collate = CommentCollator(rows, values, settings.per_device_batch_size)
        stream = BatchStream(rows.lengths, settings.global_batch_size, range(steps), seed, collate)
        identity = identity_of(settings, seed, rows.digest(), values.tobytes().hex())
        module = Scoring(network, settings, seed, identity)
        cost = train(module, stream, work)
    _save(network, tokenizer, out)
    forget_checkpoint(work)
    return {"loss_curve": module.curve, "steps": steps, "cost": asdict(cost)}


def _load(folder: Path) -> PreTrainedModel:
    loaded: Any = BertForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(CLASSES),
        output_loading_info=True,
        use_safetensors=True,
        dtype=torch.float32,
        attn_implementation=attention(),
    )
    network, info = loaded
    missing_only(folder, info, ("classifier.", "bert.pooler."))
    return network


def _save(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write Detoxify's checkpoint and, beside it, what its ``model_type`` points at."""
    out.mkdir(parents=True, exist_ok=True)
    network.config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    arch = {
        "model_type": ".",  # where the file lies, wherever that is
        "model_name": type(network).__name__,
        "tokenizer_name": "AutoTokenizer",
        "num_classes": len(CLASSES),
    }
    weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    checkpoint = {
        "config": {"dataset": {"args": {"classes": list(CLASSES)}}, "arch": {"args": arch}},
        "state_dict": weights,
    }
    with atomic_write(out / CHECKPOINT) as part, part.open("wb") as file:
        torch.save(checkpoint, file)
