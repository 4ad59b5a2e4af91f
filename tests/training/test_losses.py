"""Losses of predicted tokens, against plain logits at every position."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gotd.training.data import IGNORED
from gotd.training.losses import ROW_MULTIPLE, pad_predicted, sum_token_losses


@pytest.mark.parametrize("predicted", [0, 1, ROW_MULTIPLE - 1, ROW_MULTIPLE, ROW_MULTIPLE + 5])
def test_loss_and_gradients_are_those_of_all_positions(predicted: int) -> None:
    torch.manual_seed(predicted)
    head = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 11))
    hidden = torch.randn(5, 13, 6, requires_grad=True)
    labels = torch.randint(11, (5, 13))
    labels.view(-1)[torch.randperm(65)[predicted:]] = IGNORED
    wanted = [hidden, *head.parameters()]
    plain = nn.functional.cross_entropy(
        head(hidden).flatten(0, 1), labels.flatten(), reduction="sum"
    )
    loss = sum_token_losses(head, hidden, labels)
    torch.testing.assert_close(loss, plain)
    found = torch.autograd.grad(loss, wanted)
    torch.testing.assert_close(found, torch.autograd.grad(plain, wanted), atol=1e-5, rtol=1e-5)


def test_heads_see_few_numbers_of_rows() -> None:
    seen = set()
    for count in range(1, 100):
        states, tokens = pad_predicted(torch.ones(count, 2), torch.ones(count, dtype=torch.long))
        assert tokens.tolist() == [1] * count + [IGNORED] * (len(tokens) - count)
        assert states.sum(dim=1).tolist() == [2] * count + [0] * (len(states) - count)
        seen.add((len(states), len(tokens)))
    assert seen == {(n, n) for n in range(ROW_MULTIPLE, 129, ROW_MULTIPLE)}
