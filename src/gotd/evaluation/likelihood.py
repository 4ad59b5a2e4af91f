"""Log-likelihoods of token rows under a causal language model.

Nothing is computed twice. The vocabulary-wide product is computed at the requested positions
only. The common prefix of the choices of a question is read once; its keys and values are
repeated for the tails in which the choices differ.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gotd.evaluation.batches import by_length, left_padded_inputs, pad
from gotd.training.causal_models import WEIGHTS, load_causal_lm, load_causal_tokenizer
from gotd.training.models import for_inference

KNOWN_MODELS = ("gpt2", "gpt_neo")
"""Architectures whose logits are the output embedding of the last hidden state, and no more."""

BATCH_TOKENS = 4096
"""Positions per batch, repeated ones included; bounds the memory of activations."""
HEAD_ROWS = 512
HEAD_TILE = 4096
"""Positions and entries of the vocabulary per product: 8 MiB of float32, which fit the cache.
One product of GPT-2's odd width of 50,257 runs at 70 % of the rate."""

Tokens = list[int]


def load_for_scoring(model: Path | str, precision: str = "float32") -> tuple[Any, Any]:
    """Load a causal language model without gradients, and its tokenizer.

    Args:
        model: Folder, or Hub name.
        precision: ``float32``, or ``bf16``: weights and arithmetic, half the memory.

    Returns:
        The network, in evaluation mode on the fastest device, and the tokenizer.

    Raises:
        OSError: If there is no such model.
        ValueError: If the precision is unknown, or weights are missing.
    """
    if precision not in WEIGHTS:
        raise ValueError(f"scoring precision must be one of {(*WEIGHTS,)}, not {precision!r}")
    network = load_causal_lm(model, WEIGHTS[precision], training=False)
    return for_inference(network), load_causal_tokenizer(model)


@dataclass(frozen=True)
class Likelihood:
    """Compute ``-log p(token | tokens before it)``, in nats.

    Rows are read in order of length, so that there is little padding. Padding changes only
    the last bits: it follows the tokens of a row, which causal attention does not see, or
    precedes them, masked and without a position of its own.

    Args:
        network: A causal language model in evaluation mode.
        batch_tokens: Positions read at once.

    Raises:
        ValueError: If the architecture is not one of ``KNOWN_MODELS``.
    """

    network: Any
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        kind = self.network.config.model_type
        if kind not in KNOWN_MODELS:
            raise ValueError(
                f"cannot score a {kind} model: known are {', '.join(KNOWN_MODELS)} "
                "(others may scale or cap their logits)"
            )

    @property
    def max_tokens(self) -> int:
        """Return the most tokens of a row: the last one is predicted, not read."""
        return int(self.network.config.max_position_embeddings) + 1

    def losses(self, rows: Sequence[Tokens], first: Sequence[int]) -> list[np.ndarray]:
        """Compute the losses of each row's tokens from ``first`` on.

        Args:
            rows: ``[n]`` token ids each.
            first: ``[n]`` positions of the first token to predict, at least 1: no token
                precedes token 0.

        Returns:
            Per row float64 ``[len(row) - first]``.

        Raises:
            ValueError: If a row is longer than ``max_tokens`` or ``first`` is below 1.
        """
        self._check(rows, first)
        losses: list[np.ndarray] = [np.zeros(0)] * len(rows)
        predicted = [i for i in range(len(rows)) if first[i] < len(rows[i])]
        with torch.inference_mode():
            widths = [len(rows[i]) - 1 for i in predicted]
            for batch in by_length(widths, self.batch_tokens, self.network.device.type):
                numbers = [predicted[k] for k in batch]
                ids, _ = pad([rows[i][:-1] for i in numbers], self.network.device)
                hidden = self._body(input_ids=ids, use_cache=False).last_hidden_state
                states = [hidden[k, first[i] - 1 : len(rows[i]) - 1] for k, i in enumerate(numbers)]
                values = self._score(states, [rows[i][first[i] :] for i in numbers])
                for i, part in zip(numbers, values, strict=True):
                    losses[i] = part
        return losses

    def choice_losses(
        self, rows: Sequence[Sequence[Tokens]], first: Sequence[Sequence[int]]
    ) -> list[list[np.ndarray]]:
        """Compute the losses of every choice of every row, common prefixes once.

        The numbers are those of `losses` for each choice alone.

        Args:
            rows: ``[n][choices]`` token ids each: the full instance.
            first: ``[n][choices]`` positions of the first token to predict, at least 1.

        Returns:
            Per row and choice float64 ``[len(choice) - first]``.

        Raises:
            ValueError: As `losses`.
        """
        for row, begins in zip(rows, first, strict=True):
            self._check(row, begins)
        shared = [_common_length(row) for row in rows]
        losses: list[list[np.ndarray]] = [[] for _ in rows]
        with torch.inference_mode():
            for batch in self._choice_batches(rows, shared):
                choices, lengths = [rows[i] for i in batch], [shared[i] for i in batch]
                values = self._with_prefix(choices, [first[i] for i in batch], lengths)
                for i, row_values in zip(batch, values, strict=True):
                    losses[i] = row_values
        # Choices without a common prefix are rows of their own.
        apart = [i for i, length in enumerate(shared) if length == 0]
        flat = iter(
            self.losses(
                [choice for i in apart for choice in rows[i]],
                [begin for i in apart for begin in first[i]],
            )
        )
        for i in apart:
            losses[i] = [next(flat) for _ in rows[i]]
        return losses

    def _with_prefix(
        self,
        rows: Sequence[Sequence[Tokens]],
        first: Sequence[Sequence[int]],
        lengths: Sequence[int],
    ) -> list[list[np.ndarray]]:
        """Compute the losses of rows whose choices share ``lengths`` tokens, at least 1 each."""
        prefixes = [row[0][:n] for row, n in zip(rows, lengths, strict=True)]
        ids, mask = pad(prefixes, self.network.device, left=True)
        width = ids.shape[1]
        padded = len(set(lengths)) > 1
        inputs = left_padded_inputs(ids, mask) if padded else {"input_ids": ids}
        owners = [(i, c) for i, row in enumerate(rows) for c in _tails_to_read(row, lengths[i])]
        read = self._body(**inputs, use_cache=bool(owners))
        prefix = read.last_hidden_state
        tails: dict[tuple[int, int], Tensor] = {}
        if owners:
            hidden = self._read_tails(
                rows, lengths, owners, mask if padded else None, read.past_key_values
            )
            tails = {
                (i, c): hidden[k, : len(rows[i][c]) - lengths[i] - 1]
                for k, (i, c) in enumerate(owners)
            }
        begins = [min(*first[i], n) for i, n in enumerate(lengths)]
        states: list[Tensor] = []
        wanted: list[Tokens] = []
        for i, row in enumerate(rows):
            shift = width - lengths[i]
            states.append(prefix[i, shift + begins[i] - 1 : width - 1])
            wanted.append(row[0][begins[i] : lengths[i]])
            for c, choice in enumerate(row):  # the prefix predicts the first token of a tail
                states.append(prefix[i, width - 1 :])
                if (i, c) in tails:
                    states.append(tails[i, c])
                wanted.append(choice[lengths[i] :])
        values = iter(self._score(states, wanted))
        losses = []
        for i, row in enumerate(rows):
            common = next(values)
            losses.append(
                [
                    np.concatenate([common, next(values)])[first[i][c] - begins[i] :]
                    for c in range(len(row))
                ]
            )
        return losses

    def _read_tails(
        self,
        rows: Sequence[Sequence[Tokens]],
        lengths: Sequence[int],
        owners: Sequence[tuple[int, int]],
        mask: Tensor | None,
        cache: Any,
    ) -> Tensor:
        """Return the states ``[tail, token, d]`` of tails without their last token.

        Args:
            rows: The choices of each row.
            lengths: Tokens of each row's prefix.
            owners: Row and choice of each tail.
            mask: Attention mask of the padded prefixes; ``None``: no padding.
            cache: Keys and values of the prefixes; changed in place.
        """
        owner = torch.tensor([i for i, _ in owners], device=self.network.device)
        cache.batch_select_indices(owner)
        ids, _ = pad([rows[i][c][lengths[i] : -1] for i, c in owners], self.network.device)
        start = torch.tensor([lengths[i] for i, _ in owners], device=ids.device)
        # Padding of a short tail may exceed the last position; it is never used.
        positions = start[:, None] + torch.arange(ids.shape[1], device=ids.device)
        if mask is not None:
            mask = torch.cat([mask[owner], torch.ones_like(ids)], dim=1)
        return self._body(
            input_ids=ids,
            position_ids=positions.clamp(max=self.max_tokens - 2),
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    @property
    def _body(self) -> Any:
        return self.network.base_model

    def _score(self, states: Sequence[Tensor], wanted: Sequence[Tokens]) -> list[np.ndarray]:
        """Compute the losses of tokens ``[m]`` at states ``[m, d]``, part by part; float64."""
        head = self.network.get_output_embeddings().weight
        hidden = torch.cat(list(states))
        tokens = torch.tensor([token for part in wanted for token in part], device=hidden.device)
        parts = [
            _losses(hidden[start : start + HEAD_ROWS], tokens[start : start + HEAD_ROWS], head)
            for start in range(0, len(tokens), HEAD_ROWS)
        ]
        losses = torch.cat(parts).cpu().numpy().astype(np.float64)
        return np.split(losses, np.cumsum([len(part) for part in wanted])[:-1])

    def _choice_batches(
        self, rows: Sequence[Sequence[Tokens]], shared: Sequence[int]
    ) -> Iterator[list[int]]:
        """Yield rows of similar prefix; their repeated prefixes and tails count as read."""
        batch: list[int] = []
        tails = tail = 0
        for i in sorted((i for i, n in enumerate(shared) if n), key=lambda i: (shared[i], i)):
            own = len(_tails_to_read(rows[i], shared[i]))
            longest = max(len(choice) for choice in rows[i]) - shared[i] - 1
            widest = max(tail, longest)
            size = (len(batch) + 1) * shared[i] + (tails + own) * (shared[i] + widest)
            too_wide = shared[i] + widest > self.max_tokens - 1
            if batch and (size > self.batch_tokens or too_wide):
                yield batch
                batch, tails, widest = [], 0, longest
            batch.append(i)
            tails, tail = tails + own, widest
        if batch:
            yield batch

    def _check(self, rows: Sequence[Tokens], first: Sequence[int]) -> None:
        if any(begin < 1 for begin in first):
            raise ValueError("the first token to predict is at least 1: nothing is before token 0")
        longest = max(map(len, rows), default=0)
        if longest > self.max_tokens:
            raise ValueError(
                f"a row has {longest} tokens, but the model reads {self.max_tokens - 1} positions; "
                "cut it or score it in windows"
            )


def _common_length(row: Sequence[Tokens]) -> int:
    """Count the tokens that all choices of a row begin with, without the last of each.

    A last token is only predicted, never read: a row may be one token longer than the model.
    """
    return min(len(os.path.commonprefix(list(row))), *(len(choice) - 1 for choice in row))


def _tails_to_read(row: Sequence[Tokens], shared: int) -> list[int]:
    """Return the choices whose tail has a token to read; the last token is only predicted."""
    return [c for c, choice in enumerate(row) if len(choice) - shared >= 2]


def _losses(hidden: Tensor, tokens: Tensor, head: Tensor) -> Tensor:
    """Compute ``-log p`` of tokens ``[m]`` at states ``[m, d]``, the vocabulary in tiles.

    Args:
        hidden: Last hidden states.
        tokens: Those that follow.
        head: ``[vocabulary, d]`` output embedding.

    Returns:
        float32 ``[m]``.
    """
    normalisers, logits_of_tokens = [], torch.zeros(len(tokens), device=hidden.device)
    for start in range(0, len(head), HEAD_TILE):
        logits = (hidden @ head[start : start + HEAD_TILE].T).float()
        normalisers.append(logits.logsumexp(dim=1))
        column = tokens - start
        here = (column >= 0) & (column < logits.shape[1])
        values = logits.gather(1, column.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        logits_of_tokens = torch.where(here, values, logits_of_tokens)
    return torch.stack(normalisers).logsumexp(dim=0) - logits_of_tokens
