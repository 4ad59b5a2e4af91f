"""Settings that every training objective shares, and what identifies a run."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import blake2b

from gotd.storage.keys import key_fields

PRECISIONS = ("auto", "float32", "bf16")
TUNINGS = ("full", "lora")
STRATEGIES = ("ddp", "fsdp")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings that every objective shares.

    Args:
        learning_rate: Peak rate of AdamW.
        epochs: Passes over the rows, fractions allowed; 0 trains nothing.
        global_batch_size: Rows per optimiser step over all devices.
        per_device_batch_size: Most rows that one device handles at once; the rest
            of a step follows with accumulated gradients. Changes memory and speed; what
            is learnt changes only by other draws of dropout, as by another seed.
        max_length_tokens: Longer rows are cut.
        weight_decay: Decoupled decay of matrices; never of biases and norms.
        warmup_share: Share of the steps in which the rate rises linearly from 0.
        schedule: ``linear``: from the peak down to 0 at the last step.
        betas: AdamW's decay rates of the two moments.
        adam_epsilon: AdamW's term in the denominator.
        gradient_clip: Most global norm of a step's gradient; 0 does not clip.
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
            As ``per_device_batch_size``, it changes dropout's draws and nothing else.
    """

    learning_rate: float
    epochs: float
    global_batch_size: int = 64
    per_device_batch_size: int = 64
    max_length_tokens: int = 128
    weight_decay: float = 0.01
    warmup_share: float = 0.0
    schedule: str = "linear"
    betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8
    gradient_clip: float = 1.0
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
        for name in (
            "global_batch_size",
            "per_device_batch_size",
            "max_length_tokens",
            "lora_rank",
            "checkpoint_every_steps",
            "devices",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "epochs", "weight_decay", "gradient_clip", "lora_alpha"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, not {getattr(self, name)}")
        for name in ("warmup_share", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), not {list(self.betas)}")
        allowed = {
            "precision": PRECISIONS,
            "tuning": TUNINGS,
            "schedule": ("linear",),
            "strategy": STRATEGIES,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {values}, not {getattr(self, name)!r}")


def identity_of(settings: TrainingSettings, seed: int, *data: str) -> str:
    """Hash what decides a run's result, to recognise its checkpoint."""
    words = json.dumps([key_fields(settings), seed, *data], sort_keys=True)
    return blake2b(words.encode(), digest_size=16).hexdigest()
