"""Settings that every training objective shares, and the identity of a training run."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import ClassVar

from gotd.storage.checks import check_at_least, check_choice, check_share
from gotd.storage.keys import key_fields
from gotd.storage.shapes import Shape
from gotd.storage.work import Work
from gotd.training.data import steps_per_epoch
from gotd.training.memory import GIB, Training, training_memory
from gotd.training.randomness import TrainingSeeds


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings that every objective shares.

    The learning rate rises linearly over the warm-up, then falls linearly to 0.

    Args:
        learning_rate: Peak rate of AdamW.
        epochs: Passes over the rows, fractions allowed; 0 trains nothing.
        global_batch_size: Rows per optimiser step over all devices.
        per_device_batch_size: Most rows that one device processes at once; the rest
            of a step follows with accumulated gradients. Changes memory and speed, and
            the draws of dropout.
        max_length_tokens: Longer rows are cut.
        weight_decay: Decoupled decay of matrices; never of biases and norms.
        warmup_share: Share of the steps in which the rate rises from 0.
        betas: AdamW's decay rates of the two moments.
        adam_epsilon: AdamW's term in the denominator.
        precision: ``float32``, ``bf16`` (autocast; weights stay float32) or ``auto``
            (bf16 where the device multiplies it natively and the model is wide).
        tuning: ``full`` or ``lora``.
        lora_rank: Rank of the added matrices.
        lora_alpha: Their scale times the rank.
        lora_dropout: Dropout before them.
        checkpoint_every_steps: Steps that a killed run may lose.
        gradient_checkpointing: Recompute activations in the backward pass: about a
            third slower, much less memory.
        strategy: How several devices, one process each, share the work: ``ddp`` repeats
            the model on each, ``fsdp`` shards weights, gradients and moments (causal models
            only).
        devices: How many devices of this machine train together; pre-fine-tuning only.
            As ``per_device_batch_size``, it changes nothing but the draws of dropout.
    """

    strategies: ClassVar[tuple[str, ...]] = ("ddp",)
    """Strategies that the objective supports."""
    several_devices: ClassVar[bool] = False
    """Whether the objective can be trained on more than one device."""
    counts: ClassVar[tuple[str, ...]] = (
        *("global_batch_size", "per_device_batch_size", "max_length_tokens"),
        *("lora_rank", "checkpoint_every_steps", "devices"),
    )
    """Fields that are at least 1."""

    learning_rate: float
    epochs: float
    global_batch_size: int = 64
    per_device_batch_size: int = 64
    max_length_tokens: int = 128
    weight_decay: float = 0.01
    warmup_share: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8
    precision: str = "auto"
    tuning: str = "full"
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    checkpoint_every_steps: int = 500
    gradient_checkpointing: bool = False
    strategy: str = "ddp"
    devices: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 1, *self.counts)
        for name in ("learning_rate", "epochs", "weight_decay", "lora_alpha"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, not {getattr(self, name)}")
        for name in ("warmup_share", "lora_dropout"):
            check_share(self, name)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), not {list(self.betas)}")
        check_choice(self, "precision", ("auto", "float32", "bf16"))
        check_choice(self, "tuning", ("full", "lora"))
        check_choice(self, "strategy", ("ddp", "fsdp"))
        if self.strategy not in self.strategies:
            raise ValueError(f"strategy={self.strategy} is for causal models; use ddp")
        if self.devices != 1 and not self.several_devices:
            raise ValueError(
                f"{type(self).__name__} trains on one device, not {self.devices}; use devices=1"
            )

    def count_steps(self, n_rows: int) -> int:
        """Return the optimiser steps of all passes: 0 for no epochs, else at least 1."""
        steps = self.epochs * steps_per_epoch(n_rows, self.global_batch_size)
        return 0 if self.epochs == 0 else max(1, round(steps))

    def training(self, rows: int | None = None) -> Training:
        """Return what the memory of training depends on.

        Args:
            rows: Rows at once; ``None``: as many as the settings allow.
        """
        return Training(
            rows or min(self.per_device_batch_size, self.global_batch_size),
            self.max_length_tokens,
            tuning=self.tuning,
            precision=self.precision,
            gradient_checkpointing=self.gradient_checkpointing,
            predicted=0.0,
            lora_rank=self.lora_rank,
            devices=self.devices,
            strategy=self.strategy,
        )

    def work(self, shape: Shape, rows: float, tokens: float) -> Work:
        """Return the work of training a network on ``rows`` texts of so many tokens.

        A weight takes six operations a token: two forward, four backward.
        """
        how, steps = self.training(), self.count_steps(math.ceil(rows))
        seen = min(rows * self.epochs, steps * self.global_batch_size)
        head = how.predicted * shape.hidden * (shape.vocabulary + shape.hidden)
        return Work(
            texts=rows,
            flops=6 * (shape.multiplied + head) * seen * min(tokens, self.max_length_tokens),
            steps=steps,
            memory_bytes=training_memory(shape, how).gib * GIB,
            disk_bytes=4 * shape.weights,
            rate=f"train {shape.label}",
            shape=shape,
        )


def identity_of(settings: TrainingSettings, seeds: TrainingSeeds, *data: str) -> str:
    """Return a hash of what determines the result of a run, to recognise its checkpoint."""
    words = json.dumps([key_fields(settings), asdict(seeds), *data], sort_keys=True)
    return blake2b(words.encode(), digest_size=16).hexdigest()
