"""Layers that compute the same in less time than those of `transformers`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation, NewGELUActivation
from transformers.pytorch_utils import Conv1D

from gotd.products import linear, prefers_onednn, prefers_packed

BATCH_TOKENS = 4096
"""Rows of a product for which the layout of packed weights is chosen."""


class FastLinear(nn.Linear):
    """A linear layer that computes by `gotd.products.linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[..., d]`` rows to ``[..., m]``."""
        return linear(input, self.weight, self.bias)


class FastConv1D(Conv1D):
    """The linear layer of GPT-2, whose weights are ``[d, m]``, computing in the same way."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., d]`` rows to ``[..., m]``."""
        return linear(x, self.weight.T, self.bias)


class FastNewGELU(NewGELUActivation):
    """GPT-2's GELU, by the hyperbolic tangent, in one pass over its input."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the activation of each element."""
        return nn.functional.gelu(input, approximate="tanh")


def use_fast_layers(network: nn.Module) -> None:
    """Let the layers of a network compute fast; weights, names and buffers stay."""
    fast: dict[type, type] = {NewGELUActivation: FastNewGELU}
    if prefers_onednn():
        fast |= {nn.Linear: FastLinear, Conv1D: FastConv1D}
    for layer in network.modules():
        if type(layer) in fast:
            layer.__class__ = fast[type(layer)]


class PackedLinear(nn.Module):
    """A linear layer of a network that is only read, with its weights in oneDNN's own layout.

    Args:
        layer: The layer, of float32 or bfloat16 on a processor.
        gelu: Whether GELU of the result is computed in the same pass.
    """

    def __init__(self, layer: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        weight = layer.weight.detach().contiguous()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, BATCH_TOKENS)
        self.bias = layer.bias
        self.after = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., d]`` rows to ``[..., m]``."""
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *self.after)


def pack_layers(network: nn.Module) -> None:
    """Pack the linear layers of a network for inference, where the processor gains by it.

    The network can no longer be trained or saved.
    """
    for module in list(network.modules()):
        # The first layer of a BERT's feed-forward block.
        gelu = isinstance(getattr(module, "intermediate_act_fn", None), GELUActivation)
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear) and prefers_packed(layer.weight):
                fused = gelu and name == "dense"
                setattr(module, name, PackedLinear(layer, fused))
                if fused:
                    module.intermediate_act_fn = nn.Identity()
