"""Fast dropout: the share and the scale of what stays, gradients, and networks that use it."""

from __future__ import annotations

import pytest
import torch
from tests.support.networks import FAMILIES
from tests.support.networks import network as of_shape
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertModel, PreTrainedModel

from gotd.storage.shapes import Shape
from gotd.training.dropout import ATTENTION, FastDropout, drop, use_fast_dropout

SMALL = Shape(layers=2, hidden=16, heads=2, feed_forward=32, vocabulary=50, positions=16)
COUNT = 200_001
"""Not a multiple of four, which share a random word."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_share_that_stays_and_its_scale(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = drop(torch.ones(COUNT, dtype=dtype), probability, training=True)
    kept = dropped != 0
    error = (probability * (1 - probability) / COUNT) ** 0.5
    assert kept.float().mean().item() == pytest.approx(1 - probability, abs=5 * error)
    scale = torch.tensor(1 / (1 - probability)).to(dtype)
    torch.testing.assert_close(dropped[kept], scale.expand(int(kept.sum())), rtol=1e-2, atol=0)
    # Neighbours share a random word and are independent all the same.
    for step in (1, 2, 3, 4):
        both = (kept[step:] & kept[:-step]).float().mean().item()
        assert both == pytest.approx((1 - probability) ** 2, abs=8 * error)


def test_the_gradient_has_the_same_mask() -> None:
    x = torch.randn(3, 5, 7, requires_grad=True)
    out = drop(x.transpose(0, 2), 0.4, training=True)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    factor = torch.where(out == 0, 0.0, 1 / 0.6)
    assert x.grad is not None
    torch.testing.assert_close(out, x.detach().transpose(0, 2) * factor, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(x.grad.transpose(0, 2), gradient * factor, rtol=1e-4, atol=1e-6)


def test_draws_follow_the_seed_and_nothing_is_dropped_outside_training() -> None:
    x = torch.randn(64, 64)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(drop(x, 0.1, training=True))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    for probability in (0.0, 0.1, 1.0):
        assert drop(x, probability, training=False) is x
    assert drop(x, 0.0, training=True) is x
    assert not drop(x, 1.0, training=True).any()
    assert drop(x[:0], 0.1, training=True).shape == (0, 64)


def network(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return of_shape(family, SMALL, dropout=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_computes_the_same_without_chance(family: str) -> None:
    plain, fast = network(family), network(family)
    use_fast_dropout(fast)
    expected = ATTENTION if family != "gpt_neo" else "eager"
    assert fast.config._attn_implementation == expected
    tokens = torch.arange(20).reshape(2, 10)
    mask = torch.ones_like(tokens)
    mask[1, 6:] = 0  # padding
    outputs = [one.eval()(input_ids=tokens, attention_mask=mask).logits for one in (plain, fast)]
    torch.testing.assert_close(outputs[1], outputs[0])
    assert plain.state_dict().keys() == fast.state_dict().keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_drops_nowhere_by_torchs_own_draws(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = network(family)
    use_fast_dropout(fast)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("torch's dropout was called")

    monkeypatch.setattr(nn.functional, "dropout", refused)
    tokens = torch.arange(20).reshape(2, 10)
    first, second = (fast.train()(input_ids=tokens).logits for _ in range(2))
    assert not torch.equal(first, second)


def test_a_layer_that_is_computed_again_draws_the_same() -> None:
    layer, x = FastDropout(0.3), torch.randn(40, 40, requires_grad=True)
    out = checkpoint(layer, x, use_reentrant=False)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, out == 0)


def test_another_attention_keeps_its_own_dropout() -> None:
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    sdpa = BertModel._from_config(config, attn_implementation="sdpa")
    use_fast_dropout(sdpa)
    assert sdpa.config._attn_implementation == "sdpa"
    assert not any(isinstance(layer, FastDropout) for layer in sdpa.modules())
