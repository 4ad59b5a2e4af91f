"""Continuations of prompts by a causal language model, by nucleus sampling.

A prompt is read once; its keys and values are repeated for its samples. Every draw is a
function of (seed, prompt id, sample, step). So a continuation does not depend on the rest of
the batch, as far as floating point allows, and a killed run can resume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gotd.evaluation.batches import left_padded_inputs, pad
from gotd.evaluation.ranges import by_range
from gotd.storage.checks import check_at_least, check_choice
from gotd.training.causal_models import WEIGHTS

NUCLEUS_SIZES = (512, 8192)
"""Numbers of most probable tokens to sort; all are sorted only for rows with a wider nucleus."""


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of generation (paper §3.1, after Gehman et al. 2020).

    Args:
        samples: Continuations of each prompt.
        max_new_tokens: Most tokens of a continuation; an end-of-text token ends it.
        top_p: Share of the probability in the nucleus.
        temperature: Divides the logits.
        precision: ``float32`` or ``bf16``.
        per_device_batch_size: Continuations generated at once.
    """

    key_name: ClassVar[str] = "GenerationSettings"

    samples: int = 25
    max_new_tokens: int = 20
    top_p: float = 0.9
    temperature: float = 1.0
    precision: str = "float32"
    per_device_batch_size: int = 400

    def __post_init__(self) -> None:
        counts = ("samples", "max_new_tokens", "per_device_batch_size")
        check_at_least(self, 1, *counts, prefix="generation ")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"generation top_p must lie in (0, 1], not {self.top_p}")
        if not self.temperature > 0:
            raise ValueError(f"generation temperature must be positive, not {self.temperature}")
        check_choice(self, "precision", (*WEIGHTS,), "generation ")


def continue_prompts(
    network: Any,
    tokenizer: Any,
    prompts: pa.Table,
    settings: GenerationSettings,
    seed: int,
    work: Path | None = None,
) -> pa.Table:
    """Generate ``samples`` continuations of every prompt, resuming at the prompt range.

    Args:
        network: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        prompts: Columns ``id`` and ``text``.
        settings: See `GenerationSettings`.
        seed: Seed of the sampling.
        work: Folder of finished ranges; ``None`` stores nothing.

    Returns:
        ``id``, ``continuations`` (list of ``samples`` strings) and ``cut`` (whether the
        prompt was longer than the model reads and its beginning was cut).
    """

    def write(some: pa.Table) -> pa.Table:
        names, texts = some["id"].to_pylist(), some["text"].to_pylist()
        most = int(network.config.max_position_embeddings) - settings.max_new_tokens
        rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        # A prompt without a token becomes the start token, as in training.
        read = [row[-most:] or [tokenizer.bos_token_id] for row in rows]
        written: list[list[str]] = [[]] * len(rows)
        with torch.inference_mode():
            for batch in _batches(read, settings):
                chances = np.stack([_chances(settings, seed, names[i]) for i in batch])
                tokens = _continue(
                    network, [read[i] for i in batch], chances, settings, tokenizer.eos_token_id
                )
                decoded = tokenizer.batch_decode(tokens, skip_special_tokens=True)
                for k, i in enumerate(batch):
                    start = k * settings.samples
                    written[i] = decoded[start : start + settings.samples]
        cut = [len(row) > most for row in rows]
        kind = pa.list_(pa.string())
        return pa.table({"id": some["id"], "continuations": pa.array(written, kind), "cut": cut})

    return by_range(prompts, write, work)


def _chances(settings: GenerationSettings, seed: int, prompt: str) -> np.ndarray:
    """Draw uniform numbers for a prompt's samples: float64 ``[samples, max_new_tokens]``.

    More samples do not change the numbers of fewer.
    """
    digest = blake2b(f"generation\x00{seed}\x00{prompt}".encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "little"))
    return random.random((settings.samples, settings.max_new_tokens))


def _batches(rows: Sequence[list[int]], settings: GenerationSettings) -> Iterator[list[int]]:
    """Yield prompts of similar length whose samples fit into a batch."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
    size = max(1, settings.per_device_batch_size // settings.samples)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _continue(
    network: Any,
    prompts: Sequence[list[int]],
    chances: np.ndarray,
    settings: GenerationSettings,
    end: int,
) -> list[list[int]]:
    """Generate continuations of left-padded prompts.

    Args:
        network: The model.
        prompts: ``[b]`` token ids each, none empty.
        chances: ``[b, samples, steps]`` uniform numbers.
        settings: See `GenerationSettings`.
        end: The token that ends a text; it is not part of a continuation.

    Returns:
        ``b * samples`` lists of tokens, the samples of a prompt side by side.
    """
    device = network.device
    ids, mask = pad(prompts, device, left=True)
    read = network(**left_padded_inputs(ids, mask), use_cache=True, logits_to_keep=1)
    cache = read.past_key_values
    cache.batch_repeat_interleave(settings.samples)
    mask = mask.repeat_interleave(settings.samples, dim=0)
    logits = read.logits[:, -1].repeat_interleave(settings.samples, dim=0)
    draws = torch.from_numpy(chances.reshape(-1, settings.max_new_tokens)).to(device)
    ended = torch.zeros(len(draws), dtype=torch.bool, device=device)
    steps = []
    for step in range(settings.max_new_tokens):
        token = sample_nucleus(logits, draws[:, step], settings.top_p, settings.temperature)
        ended |= token == end
        steps.append(token.masked_fill(ended, end))
        if bool(ended.all()) or step + 1 == settings.max_new_tokens:
            break
        position = mask.sum(dim=1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(position)], dim=1)
        read = network(
            input_ids=steps[-1][:, None],
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        )
        logits = read.logits[:, -1]
    rows = torch.stack(steps, dim=1).tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


def sample_nucleus(logits: Tensor, chance: Tensor, top_p: float, temperature: float) -> Tensor:
    """Draw a token from the nucleus by inverting its distribution function.

    The nucleus is the fewest most probable tokens that together hold ``top_p``
    (Holtzman et al. 2020). The sample is the first token, in order of probability, whose
    cumulative probability exceeds ``chance`` times the nucleus's.

    Args:
        logits: ``[n, vocabulary]``.
        chance: ``[n]`` float64 in [0, 1).
        top_p: Share of probability, in (0, 1].
        temperature: Divides the logits.

    Returns:
        ``[n]`` int64 token ids.
    """
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    sampled = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    rows = torch.arange(len(logits), device=logits.device)
    for size in NUCLEUS_SIZES:
        if size >= probabilities.shape[1] or len(rows) == 0:
            break
        values, tokens = probabilities[rows].topk(size, dim=-1)
        complete = values.sum(dim=-1) >= top_p
        done = rows[complete]
        sampled[done] = _draw(values[complete], tokens[complete], chance[done], top_p)
        rows = rows[~complete]
    if len(rows):
        values, tokens = probabilities[rows].sort(dim=-1, descending=True, stable=True)
        sampled[rows] = _draw(values, tokens, chance[rows], top_p)
    return sampled


def _draw(values: Tensor, tokens: Tensor, chance: Tensor, top_p: float) -> Tensor:
    """Draw ``[n]`` tokens from probabilities in falling order that contain the nucleus."""
    before = values.double().cumsum(dim=-1) - values
    cumulative = values.double().masked_fill(before >= top_p, 0.0).cumsum(dim=-1)
    level = (chance * cumulative[:, -1])[:, None]
    column = torch.searchsorted(cumulative, level, right=True)
    # Never beyond the nucleus, where rounding puts the level on its edge.
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(column, last))[:, 0]
