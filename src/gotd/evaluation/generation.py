"""Let a causal language model continue prompts, many times each, by nucleus sampling.

A prompt is read once; its keys and values are repeated for its samples. Every draw is
a function of (seed, prompt id, sample, step), so a continuation does not depend on
what else is in the batch, as far as floating point allows, and a killed run goes on.
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

from gotd.evaluation.ranges import by_range
from gotd.training.causal_models import WEIGHTS

NUCLEUS_SIZES = (512, 8192)
"""Most probable tokens that are put in order; all are, only in rows whose nucleus is wider."""


@dataclass(frozen=True)
class GenerationSettings:
    """How prompts are continued (paper §3.1, after Gehman et al. 2020).

    Args:
        samples: Continuations of each prompt.
        max_new_tokens: Most tokens of a continuation; an end-of-text token ends it.
        top_p: Share of the probability that the nucleus holds.
        temperature: Divides the logits.
        precision: ``float32`` or ``bf16``.
        per_device_batch_size: Continuations written at once.
    """

    key_name: ClassVar[str] = "GenerationSettings"

    samples: int = 25
    max_new_tokens: int = 20
    top_p: float = 0.9
    temperature: float = 1.0
    precision: str = "float32"
    per_device_batch_size: int = 400

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "per_device_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"generation {name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"generation top_p must lie in (0, 1], not {self.top_p}")
        if not self.temperature > 0:
            raise ValueError(f"generation temperature must be positive, not {self.temperature}")
        if self.precision not in WEIGHTS:
            raise ValueError(
                f"generation precision must be one of {(*WEIGHTS,)}, not {self.precision!r}"
            )


def continue_prompts(
    network: Any,
    tokenizer: Any,
    prompts: pa.Table,
    settings: GenerationSettings,
    seed: int,
    work: Path | None = None,
) -> pa.Table:
    """Write ``samples`` continuations of every prompt, resuming at the prompt range.

    Args:
        network: A causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        prompts: Columns ``id`` and ``text``.
        settings: See `GenerationSettings`.
        seed: Seed of the sampling.
        work: Keeps finished ranges; ``None`` keeps nothing.

    Returns:
        ``id``, ``continuations`` (list of ``samples`` strings) and ``cut`` (whether the
        prompt was longer than the model reads and lost its beginning).
    """

    def write(some: pa.Table) -> pa.Table:
        names, texts = some["id"].to_pylist(), some["text"].to_pylist()
        most = int(network.config.max_position_embeddings) - settings.max_new_tokens
        rows: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        # A prompt without a token is continued from nothing, which models know as this.
        kept = [row[-most:] or [tokenizer.bos_token_id] for row in rows]
        written: list[list[str]] = [[]] * len(rows)
        with torch.inference_mode():
            for batch in _batches(kept, settings):
                chances = np.stack([_chances(settings, seed, names[i]) for i in batch])
                tokens = _continue(
                    network, [kept[i] for i in batch], chances, settings, tokenizer.eos_token_id
                )
                found = tokenizer.batch_decode(tokens, skip_special_tokens=True)
                for place, i in enumerate(batch):
                    start = place * settings.samples
                    written[i] = found[start : start + settings.samples]
        cut = [len(row) > most for row in rows]
        kind = pa.list_(pa.string())
        return pa.table({"id": some["id"], "continuations": pa.array(written, kind), "cut": cut})

    return by_range(prompts, write, work)


def _chances(settings: GenerationSettings, seed: int, prompt: str) -> np.ndarray:
    """Draw the chances of a prompt's samples; float64 ``[samples, max_new_tokens]`` in [0, 1).

    More samples leave those of fewer as they were.
    """
    digest = blake2b(f"generation\x00{seed}\x00{prompt}".encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "little"))
    return random.random((settings.samples, settings.max_new_tokens))


def _batches(rows: Sequence[list[int]], settings: GenerationSettings) -> Iterator[list[int]]:
    """Yield prompts of like length whose samples fit into a batch."""
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
    """Continue left-padded prompts.

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
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(prompts):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    # Padding has no position of its own: a prompt's first token is at 0 wherever it stands.
    read = network(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
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
    (Holtzman et al. 2020). Ordered by probability, the token drawn is the first whose
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
    drawn = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    rows = torch.arange(len(logits), device=logits.device)
    for size in NUCLEUS_SIZES:
        if size >= probabilities.shape[1] or len(rows) == 0:
            break
        values, tokens = probabilities[rows].topk(size, dim=-1)
        whole = values.sum(dim=-1) >= top_p
        drawn[rows[whole]] = _draw(values[whole], tokens[whole], chance[rows[whole]], top_p)
        rows = rows[~whole]
    if len(rows):
        values, tokens = probabilities[rows].sort(dim=-1, descending=True, stable=True)
        drawn[rows] = _draw(values, tokens, chance[rows], top_p)
    return drawn


def _draw(values: Tensor, tokens: Tensor, chance: Tensor, top_p: float) -> Tensor:
    """Draw from probabilities in falling order that hold the nucleus; ``[n]`` token ids."""
    before = values.double().cumsum(dim=-1) - values
    kept = values.double().masked_fill(before >= top_p, 0.0).cumsum(dim=-1)
    wanted = (chance * kept[:, -1])[:, None]
    place = torch.searchsorted(kept, wanted, right=True).clamp(max=kept.shape[1] - 1)
    # The last token of the nucleus where rounding puts the chance on its edge.
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(place, last))[:, 0]
