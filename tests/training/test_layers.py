"""Layers that compute by another library: the same network, weights and gradients."""

from __future__ import annotations

import pickle

import pytest
import torch
from tests.support.networks import network as of_shape
from torch import nn

from gotd import products
from gotd.storage.shapes import Shape
from gotd.training import layers
from gotd.training.layers import (
    FastConv1D,
    FastLinear,
    FastNewGELU,
    PackedLinear,
    pack_layers,
    use_fast_layers,
)

SMALL = Shape(layers=1, hidden=16, heads=2, feed_forward=32, vocabulary=50, positions=400)

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN"
)


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return of_shape(kind, SMALL, dropout=0.1)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("by_onednn", [False, True])
def test_network_computes_the_same(
    kind: str, by_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (layers, products):
        monkeypatch.setattr(module, "prefers_onednn", lambda: by_onednn)
    plain, fast = network(kind).eval(), network(kind).eval()
    use_fast_layers(fast)
    tokens = torch.arange(20).reshape(2, 10)
    results = []
    for one in (plain, fast):
        logits = one(input_ids=tokens).logits
        logits.logsumexp(-1).sum().backward()
        results.append((logits.detach(), {n: w.grad for n, w in one.named_parameters()}))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    assert plain.state_dict().keys() == fast.state_dict().keys()
    kinds = {type(layer) for layer in fast.modules()}
    assert bool(kinds & {FastLinear, FastConv1D}) == by_onednn
    assert (FastNewGELU in kinds) == (kind == "gpt2")


def test_layers_survive_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "prefers_onednn", lambda: True)
    fast = network("gpt2")
    use_fast_layers(fast)
    again = pickle.loads(pickle.dumps(fast))
    assert [type(a) for a in again.modules()] == [type(a) for a in fast.modules()]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_a_packed_network_computes_the_same(
    dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "prefers_packed", lambda weight: True)
    plain = network("bert").eval().requires_grad_(False)
    packed = network("bert").eval().requires_grad_(False).to(dtype)
    pack_layers(packed)
    assert sum(isinstance(layer, PackedLinear) for layer in packed.modules()) >= 6
    assert not any(isinstance(layer, nn.Linear) for layer in packed.modules())
    for shape in ((2, 10), (1, 1), (5, 400)):
        tokens = torch.arange(shape[0] * shape[1]).reshape(shape) % 50
        with torch.inference_mode():
            expected = plain(input_ids=tokens).logits
            found = packed(input_ids=tokens).logits.float()
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_layers_on_another_processor_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "prefers_onednn", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    for dtype in (torch.float32, torch.bfloat16):
        one = network("bert").to(dtype)
        pack_layers(one)
        assert not any(isinstance(layer, PackedLinear) for layer in one.modules())
