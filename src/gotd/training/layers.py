"""Linear layers that compute by the faster library of this processor."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gotd.products import linear, prefers_onednn


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


def use_fast_layers(network: nn.Module) -> None:
    """Let the linear layers of a network compute fast; weights, names and buffers stay."""
    if not prefers_onednn():
        return
    for layer in network.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = FastLinear
        elif type(layer) is Conv1D:
            layer.__class__ = FastConv1D
