"""Dropout on a processor that draws fewer random numbers than torch's own.

torch draws one number for each element. Here 16 bits of a random word decide for an element, so a
probability is rounded to a multiple of 2**-16. The mask that is kept has one byte an element in
place of four.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

VALUES = 2**16
"""Values that the bits for an element can have."""
ATTENTION = "gotd_eager"
"""Name by which `transformers` knows :func:`attend`."""
SAME_ATTENTION = ("bert", "distilbert", "gpt2", "roberta")
"""Architectures whose eager attention is that of :func:`attend`."""


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        kept = (bits >= dropped - VALUES // 2).view(torch.uint8)
        ctx.save_for_backward(kept)
        ctx.scale = VALUES / (VALUES - dropped)
        return (x * kept).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (grad_outputs[0] * kept).mul_(ctx.scale), None


def drop(x: Tensor, probability: float, training: bool) -> Tensor:
    """Set elements to zero by chance and scale the others, so that the mean stays.

    Args:
        x: Floating-point numbers, ``[...]``.
        probability: Chance of an element to become zero, in [0, 1].
        training: Otherwise ``x`` is returned as it is.

    Returns:
        ``[...]``. The draws come from torch's global generator.
    """
    dropped = round(probability * VALUES)
    if not training or dropped == 0:
        return x
    if x.device.type != "cpu" or dropped == VALUES or x.numel() == 0:
        return nn.functional.dropout(x, probability)
    return _Dropout.apply(x, dropped)


class FastDropout(nn.Dropout):
    """A dropout layer that computes by :func:`drop`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[...]`` to ``[...]``."""
        return drop(input, self.p, self.training)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Compute attention in plain products, with fast dropout.

    The interface is that of `transformers.AttentionInterface`.

    Args:
        module: The layer of attention.
        query: ``[b, heads, t, d]``; ``key`` and ``value`` likewise.
        key: As ``query``.
        value: As ``query``.
        attention_mask: Added to the scores; broadcast to ``[b, heads, t, t]``.
        scaling: Factor of the scores; ``None``: ``d ** -0.5``.
        dropout: Chance of an attention weight to become zero in training.

    Returns:
        ``[b, t, heads, d]`` and the weights ``[b, heads, t, t]``.
    """
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = drop(scores.softmax(-1).to(value.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, eager_mask)


def use_fast_dropout(network: PreTrainedModel) -> None:
    """Let a network with eager attention use :func:`drop`; weights and names stay."""
    config = network.config
    if config._attn_implementation != "eager":
        return
    for layer in network.modules():
        if type(layer) is nn.Dropout:
            layer.__class__ = FastDropout
    other = getattr(config, "reorder_and_upcast_attn", False)  # an option of GPT-2
    if config.model_type in SAME_ATTENTION and not other:
        network.set_attn_implementation(ATTENTION)
