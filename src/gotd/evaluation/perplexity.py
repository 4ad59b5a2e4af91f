"""Perplexity of texts under a causal language model, of the corpus and of the mean text.

The literature uses the name for two numbers. The mean of single texts is larger, because a
few hard short texts weigh as much as long easy ones:

    corpus_perplexity     = exp(sum of all losses / number of all predicted tokens)
    mean_text_perplexity  = mean over texts of exp(its losses / its predicted tokens)

The paper's Table 1 follows Hugging Face's ``evaluate``, which computes the second, with a
start token before every text, and cuts texts at the model's last position.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gotd.evaluation.likelihood import Likelihood
from gotd.evaluation.ranges import by_range
from gotd.storage.checks import check_at_least, check_choice

LONG_TEXTS = ("window", "cut")


@dataclass(frozen=True)
class PerplexitySettings:
    """Settings of reading texts.

    The tokenizer's start token precedes each text, so that the first token is predicted,
    too. No end token follows a text, and none is predicted.

    Args:
        long_texts: How a text of more tokens than the model's positions is read.
            ``window``: in windows, each token predicted once; ``cut``: only its beginning,
            as in ``evaluate``.
        window_tokens: Most tokens of a window; ``None``: the model's positions.
        stride_tokens: Tokens between the starts of two windows; each predicted token has at
            least ``window_tokens - stride_tokens`` tokens before it. ``None``: half a window.
        precision: ``float32`` or ``bf16``.
    """

    key_name: ClassVar[str] = "PerplexitySettings"

    long_texts: str = "window"
    window_tokens: int | None = None
    stride_tokens: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_choice(self, "long_texts", LONG_TEXTS)
        check_at_least(self, 1, "window_tokens", "stride_tokens")


def text_losses(
    likelihood: Likelihood, tokenizer: Any, texts: pa.Table, settings: PerplexitySettings
) -> pa.Table:
    """Sum the losses of each text's tokens.

    Args:
        likelihood: The model.
        tokenizer: Its tokenizer.
        texts: Columns ``id`` and ``text``.
        settings: See `PerplexitySettings`.

    Returns:
        ``id``, ``loss`` (float64, nats) and ``tokens`` (int64, those predicted).

    Raises:
        ValueError: If a text has no token to predict (names its id), or the tokenizer
            has no start token.
    """
    if tokenizer.bos_token_id is None:
        raise ValueError("the tokenizer has no start token (bos_token)")
    most = likelihood.max_tokens - 1
    window = min(settings.window_tokens or most, most)
    stride = settings.stride_tokens or max(1, window // 2)
    if stride >= window:
        raise ValueError(f"stride_tokens {stride} must be less than the window of {window} tokens")
    names = texts["id"].to_pylist()
    encoded = tokenizer(texts["text"].to_pylist(), add_special_tokens=False)["input_ids"]
    rows, first, owner = [], [], []
    for i, tokens in enumerate(encoded):
        row = [tokenizer.bos_token_id, *tokens]
        if len(row) < 2:
            raise ValueError(
                f"text {names[i]!r} has no token to predict; drop it (an average over the "
                "others would hide it)"
            )
        if settings.long_texts == "cut":
            row = row[:window]
        for begin, seen, end in _windows(len(row), window, stride):
            rows.append(row[begin:end])
            first.append(max(1, seen - begin))
            owner.append(i)
    losses = np.zeros(len(names))
    counts = np.zeros(len(names), dtype=np.int64)
    for i, values in zip(owner, likelihood.losses(rows, first), strict=True):
        losses[i] += values.sum()
        counts[i] += len(values)
    return pa.table({"id": texts["id"], "loss": losses, "tokens": counts})


def _windows(length: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """Cut a text into ``(begin, first to predict, end)``; every token is predicted once."""
    windows = [(0, 0, min(window, length))]
    while windows[-1][2] < length:
        begin, _, seen = windows[-1]
        begin, end = begin + stride, min(begin + stride + window, length)
        windows.append((begin, seen, end))
    return windows


def perplexities(losses: pa.Table) -> dict[str, float]:
    """Compute both perplexities of texts, with the number of texts and predicted tokens.

    Args:
        losses: From `text_losses`.

    Raises:
        ValueError: If there are no texts, or a loss is not finite (names the text).
    """
    loss, tokens = losses["loss"].to_numpy(), losses["tokens"].to_numpy()
    if len(loss) == 0:
        raise ValueError("there are no texts to take a perplexity of")
    bad = ~np.isfinite(loss)
    if bad.any():
        name = losses["id"][int(np.argmax(bad))].as_py()
        raise ValueError(f"the loss of text {name!r} is not finite; the model has diverged")
    return {
        "corpus_perplexity": float(np.exp(loss.sum() / tokens.sum())),
        "mean_text_perplexity": float(np.mean(np.exp(loss / tokens))),
        "texts": len(loss),
        "tokens": int(tokens.sum()),
    }


def perplexity_of(
    network: Any,
    tokenizer: Any,
    texts: pa.Table,
    settings: PerplexitySettings,
    work: Path | None = None,
) -> tuple[dict[str, float], pa.Table]:
    """Compute the perplexity of texts, resuming at the row range.

    Args:
        network: From `gotd.evaluation.likelihood.load_for_scoring`.
        tokenizer: From there, too.
        texts: Columns ``id`` and ``text``.
        settings: See `PerplexitySettings`.
        work: Folder of finished ranges; ``None`` stores nothing.

    Returns:
        As `perplexities`, and the losses of single texts.
    """
    likelihood = Likelihood(network)
    losses = by_range(texts, lambda some: text_losses(likelihood, tokenizer, some, settings), work)
    return perplexities(losses), losses
