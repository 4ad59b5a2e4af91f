"""Learning rates, parameter groups and precision of an optimiser step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from gotd.training.settings import TrainingSettings

CLIP_NORM = 1.0
"""Largest global norm of a step's gradient, as in the Hugging Face Trainer."""
BF16_HIDDEN_SIZE = 192
"""Least width of a network for which ``auto`` multiplies in bf16: casting costs time, too."""


def linear_schedule(step: int, steps: int, warmup_share: float) -> float:
    """Return a rate that rises linearly to 1 over the warm-up, then falls linearly to 0.

    With w warm-up steps of T, ``s / w`` for s < w, else ``(T - s) / (T - w)``. The last step
    never belongs to the warm-up, because a single step would have the rate 0.
    """
    warmup = min(math.ceil(warmup_share * steps), steps - 1)
    if step < warmup:
        return step / warmup
    return (steps - step) / max(1, steps - warmup)


def group_parameters(
    network: nn.Module, settings: TrainingSettings, own_rates: Mapping[int, float] | None = None
) -> list[dict[str, Any]]:
    """Group trainable parameters for AdamW.

    Args:
        network: Shared (tied) parameters are counted once.
        settings: Gives the peak rate and the decay.
        own_rates: Peak rates by ``id`` of parameters that have their own rate and no decay.

    Returns:
        Groups with ``params``, ``rate`` (peak learning rate), ``lr`` and
        ``weight_decay``; empty groups are left out.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = settings.learning_rate, settings.weight_decay
        if own_rates and id(parameter) in own_rates:
            rate, decay = own_rates[id(parameter)], 0.0
        elif parameter.ndim < 2:
            decay = 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "rate": rate, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def resolve_precision(precision: str, device: str, network: nn.Module) -> str:
    """Return ``float32`` or ``bf16``, whichever ``auto`` means for this device and network."""
    if precision != "auto":
        return precision
    width = getattr(getattr(network, "config", None), "hidden_size", 0)
    if width < BF16_HIDDEN_SIZE:
        return "float32"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16", False) else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which forward passes run; backward passes stay outside."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
