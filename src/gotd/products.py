"""Products of float32 matrices on a processor, by the faster of the two libraries in torch.

torch multiplies float32 matrices by MKL. On processors of other makers than Intel, MKL uses half of
the width of AVX-512. oneDNN uses all of it, and torch calls it for other types only. Here it is
called for float32 too. Products are as exact as before, and twice as fast on such a processor
(`experiments/benchmarks/transport_pass.py`). Everywhere else they are torch's own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@cache
def prefers_onednn() -> bool:
    """Whether oneDNN is the faster library on this processor."""
    capabilities = torch.cpu.get_capabilities()
    return (
        bool(capabilities.get("avx512_f"))
        and "Intel" not in str(capabilities.get("cpu_name", "Intel"))
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def prefers_packed(weight: Tensor) -> bool:
    """Whether products with a weight that stays as it is are faster in oneDNN's own layout."""
    if weight.device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return weight.dtype == torch.float32 and prefers_onednn()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias``, with gradients.

    Args:
        x: ``[..., d]`` rows of any type and on any device.
        weight: ``[m, d]``; it need not be contiguous.
        bias: ``[m]``.

    Returns:
        ``[..., m]``.
    """
    if not _is_for_onednn(x, weight):
        return nn.functional.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)
    return _by_onednn(x, weight, bias)


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() > 0
        and weight.numel() > 0
        and prefers_onednn()
        and not torch.is_autocast_enabled("cpu")
    )


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """The product with its gradients, each of which is a product of the same kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        wants_x, wants_weight, _ = ctx.needs_input_grad
        # A frozen layer, as under LoRA, must not keep its input.
        ctx.save_for_backward(x if wants_weight else None, weight if wants_x else None)
        return _by_onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight) = grad_outputs, ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            _by_onednn(gradient, weight.T) if wants_x else None,
            _by_onednn(rows.T, x.flatten(0, -2).T) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )
