"""Losses of tokens, with logits only where a token is predicted."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gotd.training.data import IGNORED

ROW_MULTIPLE = 32
"""Rows of the head's product are padded to it: oneDNN keeps memory for every new shape."""


def sum_token_losses(head: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return the summed cross-entropy of the predicted tokens, in nats.

    Args:
        head: Maps ``[n, d]`` hidden states to ``[n, vocabulary]`` logits.
        hidden: ``[b, t, d]`` hidden states.
        labels: ``[b, t]`` tokens, ``IGNORED`` where none is predicted.

    Returns:
        A float32 scalar.
    """
    predicted = labels != IGNORED
    states, wanted = pad_predicted(hidden[predicted], labels[predicted])
    return nn.functional.cross_entropy(head(states).float(), wanted, reduction="sum")


def pad_predicted(states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Add zero rows, with ignored labels, up to a multiple of ``ROW_MULTIPLE``.

    Args:
        states: ``[n, d]`` hidden states.
        wanted: ``[n]`` tokens.

    Returns:
        ``[m, d]`` states and ``[m]`` tokens, the given rows first.
    """
    extra = -len(states) % ROW_MULTIPLE
    return (
        nn.functional.pad(states, (0, 0, 0, extra)),
        nn.functional.pad(wanted, (0, extra), value=IGNORED),
    )
