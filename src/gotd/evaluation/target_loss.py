"""Loss of a language model on held-out texts of the target.

It is the quantity that the paper's theorem bounds, and it needs no label. Between selectors it
varies far less over seeds than an accuracy does, so it can tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from gotd.evaluation.batches import by_length, pad
from gotd.evaluation.likelihood import Likelihood, load_for_scoring
from gotd.evaluation.perplexity import PerplexitySettings, text_losses
from gotd.evaluation.ranges import by_range
from gotd.storage.checks import check_at_least, check_share
from gotd.storage.seeds import derive_seed
from gotd.training.losses import pad_predicted
from gotd.training.models import for_inference, load_masked_lm, load_tokenizer, masked_lm_head

METRIC, OF_BASE = "target_loss", "target_loss_base"
"""Metrics: of the model, and of the base before pre-fine-tuning."""

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TargetLossSettings:
    """Settings of the loss on held-out texts of the target.

    Args:
        texts: The most texts, chosen by a hash of their ids.
        mask_probability: Share of the tokens of a text that a masked language model predicts.
        mask_sets: Sets of masks of each text; no token is in two of them. More sets predict
            more tokens.
        max_length_tokens: Longer texts are cut here, or where the model's positions end.
    """

    key_name: ClassVar[str] = "TargetLossSettings"

    texts: int = 1000
    mask_probability: float = 0.15
    mask_sets: int = 1
    max_length_tokens: int = 512

    def __post_init__(self) -> None:
        check_at_least(self, 1, "texts", "mask_sets", prefix="target_loss ")
        check_at_least(self, 3, "max_length_tokens", prefix="target_loss ")
        check_share(self, "mask_probability", prefix="target_loss ")
        if self.mask_sets * self.mask_probability > 1:
            raise ValueError(
                f"target_loss mask_sets {self.mask_sets} of {self.mask_probability} of the tokens "
                "each predict more tokens than there are; lower either"
            )


def mask_positions(
    name: str, free: np.ndarray, settings: TargetLossSettings, seed: int
) -> list[np.ndarray]:
    """Choose the positions to mask in a text, a hash of (seed, id).

    Args:
        name: Id of the text.
        free: ``[n]`` positions that may be masked.
        settings: See `TargetLossSettings`.
        seed: Seed of the masks.

    Returns:
        At most ``mask_sets`` disjoint sets of positions, each ascending; every set of a short
        text has at least one.
    """
    order = np.random.default_rng(derive_seed(seed, f"mask {name}")).permutation(free)
    count = max(1, round(settings.mask_probability * len(free)))
    sets = [order[start : start + count] for start in range(0, len(order), count)]
    return [np.sort(positions) for positions in sets[: settings.mask_sets]]


def masked_losses(
    network: Any, tokenizer: Any, texts: pa.Table, settings: TargetLossSettings, seed: int
) -> pa.Table:
    """Sum the losses of the masked tokens of each text.

    The masks are a hash of (seed, id), so they are the same for every model with this
    tokenizer. Every chosen token becomes the mask token. A short text has at least one.

    Args:
        network: A masked language model in evaluation mode.
        tokenizer: Its tokenizer.
        texts: Columns ``id`` and ``text``.
        settings: See `TargetLossSettings`.
        seed: Seed of the masks.

    Returns:
        ``id``, ``loss`` (float64, nats) and ``tokens`` (int64, those predicted; 0 for a
        text without a token that can be masked).
    """
    longest = min(settings.max_length_tokens, _positions(network))
    encoded = tokenizer(texts["text"].to_pylist(), truncation=True, max_length=longest)
    rows: list[list[int]] = encoded["input_ids"]
    special = set(tokenizer.all_special_ids)
    inputs, labels, owners = [], [], []
    for number, (name, row) in enumerate(zip(texts["id"].to_pylist(), rows, strict=True)):
        free = np.flatnonzero([token not in special for token in row])
        for masked in mask_positions(name, free, settings, seed):
            changed = np.array(row)
            labels.append((masked, changed[masked]))
            changed[masked] = tokenizer.mask_token_id
            inputs.append(changed.tolist())
            owners.append(number)
    losses, counts = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    for owner, values in zip(owners, _masked_batches(network, inputs, labels), strict=True):
        losses[owner] += values.sum()
        counts[owner] += len(values)
    return pa.table({"id": texts["id"], "loss": losses, "tokens": counts})


def _masked_batches(
    network: Any, inputs: list[list[int]], labels: list[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """Return the losses of the masked tokens of each row, float64."""
    device, head = network.device, masked_lm_head(network)
    found: list[np.ndarray] = [np.zeros(0)] * len(inputs)
    with torch.inference_mode():
        for batch in by_length([len(row) for row in inputs], BATCH_TOKENS, device.type):
            ids, mask = pad([inputs[i] for i in batch], device)
            hidden = network.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            states = torch.cat([hidden[row, labels[i][0]] for row, i in enumerate(batch)])
            wanted = torch.from_numpy(np.concatenate([labels[i][1] for i in batch])).to(device)
            states, padded = pad_predicted(states, wanted)
            logits = head(states).float()
            losses = nn.functional.cross_entropy(logits, padded, reduction="none")[: len(wanted)]
            ends = np.cumsum([len(labels[i][1]) for i in batch])[:-1]
            parts = np.split(losses.cpu().numpy().astype(np.float64), ends)
            for i, part in zip(batch, parts, strict=True):
                found[i] = part
    return found


def _positions(network: Any) -> int:
    """Return the most tokens of a row; RoBERTa's positions begin after its padding index."""
    config = network.config
    first = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return int(config.max_position_embeddings) - first


def load_losses(
    model: Path, causal: bool, settings: TargetLossSettings, seed: int
) -> Callable[[pa.Table], pa.Table] | None:
    """Load a model and return what computes the losses of texts.

    Args:
        model: Folder of the language model.
        causal: Whether it is a causal one.
        settings: See `TargetLossSettings`.
        seed: Seed of the masks.

    Returns:
        A function of a table of texts, see `masked_losses`; ``None`` for a model without a
        language-modelling head, such as a sentence encoder that is no language model yet.
    """
    if causal:
        network, tokenizer = load_for_scoring(model)
        likelihood = Likelihood(network)
        reading = PerplexitySettings("cut", settings.max_length_tokens)
        return lambda texts: text_losses(likelihood, tokenizer, texts, reading)
    network, fresh_head = load_masked_lm(model)
    if fresh_head:
        return None
    network, tokenizer = for_inference(network), load_tokenizer(model)
    return lambda texts: masked_losses(network, tokenizer, texts, settings, seed)


def target_losses(
    model: Path,
    causal: bool,
    texts: pa.Table,
    settings: TargetLossSettings,
    seed: int,
    work: Path | None = None,
) -> pa.Table:
    """Compute the losses of texts, resuming at the row range.

    Args:
        model: Folder of the language model.
        causal: Whether it is a causal one.
        texts: Columns ``id`` and ``text``.
        settings: See `TargetLossSettings`.
        seed: Seed of the masks.
        work: Folder of finished ranges; ``None`` stores nothing.

    Returns:
        ``id``, ``loss`` (nats) and ``tokens`` (those predicted); no rows for a model without
        a language-modelling head.
    """
    compute = load_losses(model, causal, settings, seed)
    if compute is None:
        empty = pa.schema([("id", pa.string()), ("loss", pa.float64()), ("tokens", pa.int64())])
        return empty.empty_table()
    return by_range(texts, compute, work)


def mean_losses(losses: pa.Table, name: str) -> dict[str, float | None]:
    """Compute the mean loss per predicted token, over all texts and over each part.

    Args:
        losses: From `target_losses`, with a column ``part`` (string, null where unknown).
        name: Name of the metric.

    Returns:
        ``name`` and ``name/<part>``, in nats; null where nothing was predicted.

    Raises:
        ValueError: If a loss is not finite; names the text.
    """
    bad = pc.invert(pc.is_finite(losses["loss"]))
    if pc.any(bad).as_py():
        text = losses["id"].filter(bad)[0].as_py()
        raise ValueError(f"the target loss of text {text!r} is not finite; the model has diverged")
    means: dict[str, float | None] = {name: _mean(losses)}
    for part in sorted(losses["part"].drop_null().unique().to_pylist()):
        means[f"{name}/{part}"] = _mean(losses.filter(pc.equal(losses["part"], part)))
    return means


def _mean(losses: pa.Table) -> float | None:
    tokens = pc.sum(losses["tokens"]).as_py()
    return pc.sum(losses["loss"]).as_py() / tokens if tokens else None
