"""Log-likelihoods of token rows under a causal language model, nothing computed twice.

The vocabulary-wide product is done at the positions that are asked for and nowhere
else, and what the choices of a question have in common is read once: its keys and
values are kept and repeated for the tails in which the choices differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gotd.evaluation.batches import by_length
from gotd.training.causal_models import WEIGHTS, load_causal_lm, load_causal_tokenizer

KNOWN_MODELS = ("gpt2", "gpt_neo")
"""Architectures whose logits are the output embedding of the last hidden state, and no more."""

BATCH_TOKENS = 4096
"""Positions read at once, the repeated ones counted; bounds the memory of activations."""
HEAD_ROWS = 512
HEAD_TILE = 4096
"""Positions, and entries of the vocabulary, given logits at once: 8 MiB of float32, which
stay in the cache. GPT-2's 50,257 in one product of that odd width run at 70 % of the rate."""

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
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    return network.eval().requires_grad_(False).to(device), load_causal_tokenizer(model)


@dataclass(frozen=True)
class Likelihood:
    """Compute ``-log p(token | tokens before it)``, in nats.

    Rows are handled in order of length, so that little is padded. Padding changes no
    number but in its last bits: it stands after a row's tokens, which causal attention
    does not see, or before them, masked and without a position of its own.

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
        """Most tokens of a row: the last one is predicted, not read."""
        return int(self.network.config.max_position_embeddings) + 1

    def losses(self, rows: Sequence[Tokens], first: Sequence[int]) -> list[np.ndarray]:
        """Give the losses of each row's tokens from ``first`` on.

        Args:
            rows: ``[n]`` token ids each.
            first: ``[n]`` places of the first token to predict, at least 1: nothing
                stands before token 0.

        Returns:
            Per row float64 ``[len(row) - first]``.

        Raises:
            ValueError: If a row is longer than ``max_tokens`` or ``first`` is below 1.
        """
        self._check(rows, first)
        found: list[np.ndarray] = [np.zeros(0)] * len(rows)
        asked = [i for i in range(len(rows)) if first[i] < len(rows[i])]
        with torch.inference_mode():
            widths = [len(rows[i]) - 1 for i in asked]
            for among in by_length(widths, self.batch_tokens, self.network.device.type):
                batch = [asked[place] for place in among]
                read = [rows[i][:-1] for i in batch]
                ids, _ = self._pad(read, left=False)
                hidden = self._body(input_ids=ids, use_cache=False).last_hidden_state
                places = [(k, first[i] - 1, len(rows[i]) - 1) for k, i in enumerate(batch)]
                wanted = [token for i in batch for token in rows[i][first[i] :]]
                values = self._at(_gather(hidden, places), wanted)
                parts = np.split(values, np.cumsum([end - start for _, start, end in places])[:-1])
                for i, part in zip(batch, parts, strict=True):
                    found[i] = part
        return found

    def choice_losses(
        self, rows: Sequence[Sequence[Tokens]], first: Sequence[Sequence[int]]
    ) -> list[list[np.ndarray]]:
        """Give the losses of every choice of every row, what they share computed once.

        The numbers are those of `losses` for each choice alone.

        Args:
            rows: ``[n][choices]`` token ids each: the whole instance.
            first: ``[n][choices]`` places of the first token to predict, at least 1.

        Returns:
            Per row and choice float64 ``[len(choice) - first]``.

        Raises:
            ValueError: As `losses`.
        """
        for row, begins in zip(rows, first, strict=True):
            self._check(row, begins)
        shared = [_common(row) for row in rows]
        found: list[list[np.ndarray]] = [[] for _ in rows]
        with torch.inference_mode():
            for batch in self._choice_batches(rows, shared):
                kin = [rows[i] for i in batch]
                begins = [first[i] for i in batch]
                lengths = [shared[i] for i in batch]
                for i, values in zip(batch, self._shared(kin, begins, lengths), strict=True):
                    found[i] = values
        # Choices that differ from their first token on share nothing.
        apart = [i for i, length in enumerate(shared) if length == 0]
        alone = self.losses(
            [choice for i in apart for choice in rows[i]],
            [begin for i in apart for begin in first[i]],
        )
        taken = iter(alone)
        for i in apart:
            found[i] = [next(taken) for _ in rows[i]]
        return found

    def _shared(
        self,
        rows: Sequence[Sequence[Tokens]],
        first: Sequence[Sequence[int]],
        lengths: Sequence[int],
    ) -> list[list[np.ndarray]]:
        """Read the prefixes of some rows, then the tails that hold more than one token."""
        prefixes = [row[0][:length] for row, length in zip(rows, lengths, strict=True)]
        tails = [
            (i, c) for i, row in enumerate(rows) for c in range(len(row)) if self._reads(row, c)
        ]
        ids, mask = self._pad(prefixes, left=True)
        width = ids.shape[1]
        read = self._body(**_positions(ids, mask), use_cache=bool(tails))
        places, wanted, owners = [], [], []
        for i, row in enumerate(rows):
            shift = width - lengths[i]
            begin = min(*first[i], lengths[i])
            places.append((i, shift + begin - 1, width - 1))
            wanted += row[0][begin : lengths[i]]
            owners += [(i, -1)] * (lengths[i] - begin)
            for c, choice in enumerate(row):  # the first token of every tail
                if len(choice) > lengths[i]:
                    places.append((i, width - 1, width))
                    wanted.append(choice[lengths[i]])
                    owners.append((i, c))
        values = [(owners, self._at(_gather(read.last_hidden_state, places), wanted))]
        if tails:
            values.append(self._tails(rows, lengths, tails, mask, read.past_key_values))
        return _collect(rows, first, lengths, values)

    def _tails(
        self,
        rows: Sequence[Sequence[Tokens]],
        lengths: Sequence[int],
        tails: Sequence[tuple[int, int]],
        mask: Tensor | None,
        cache: Any,
    ) -> tuple[list[tuple[int, int]], np.ndarray]:
        """Go on from the kept keys and values into each tail but its last token."""
        owner = torch.tensor([i for i, _ in tails], device=self.network.device)
        cache.batch_select_indices(owner)
        ids, _ = self._pad([rows[i][c][lengths[i] : -1] for i, c in tails], left=False)
        start = torch.tensor([lengths[i] for i, _ in tails], device=ids.device)
        # A short tail's padding may run over the last position; nothing is read there.
        positions = start[:, None] + torch.arange(ids.shape[1], device=ids.device)
        hidden = self._body(
            input_ids=ids,
            position_ids=positions.clamp(max=self.max_tokens - 2),
            attention_mask=None
            if mask is None
            else torch.cat([mask[owner], torch.ones_like(ids)], dim=1),
            past_key_values=cache,
            use_cache=True,
        )
        places = [(k, 0, len(rows[i][c]) - lengths[i] - 1) for k, (i, c) in enumerate(tails)]
        wanted = [token for i, c in tails for token in rows[i][c][lengths[i] + 1 :]]
        owners = [(i, c) for i, c in tails for _ in rows[i][c][lengths[i] + 1 :]]
        return owners, self._at(_gather(hidden.last_hidden_state, places), wanted)

    def _reads(self, row: Sequence[Tokens], c: int) -> bool:
        """Tell whether a choice's tail has a token to read: all but the last are read."""
        return len(row[c]) - _common(row) >= 2

    @property
    def _body(self) -> Any:
        return self.network.base_model

    def _at(self, hidden: Tensor, wanted: Sequence[int]) -> np.ndarray:
        """Give the losses of tokens at hidden states ``[m, d]``; float64 ``[m]``."""
        head = self.network.get_output_embeddings().weight
        tokens = torch.tensor(wanted, dtype=torch.long, device=hidden.device)
        parts = [
            _losses(hidden[start : start + HEAD_ROWS], tokens[start : start + HEAD_ROWS], head)
            for start in range(0, len(tokens), HEAD_ROWS)
        ]
        return torch.cat(parts).cpu().numpy().astype(np.float64) if parts else np.zeros(0)

    def _pad(self, rows: Sequence[Tokens], left: bool) -> tuple[Tensor, Tensor | None]:
        """Pad rows to the longest; the mask is ``None`` where nothing needs one."""
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[i, place], mask[i, place] = row, 1
        device = self.network.device
        needed = left and not mask.all()
        return (
            torch.from_numpy(ids).to(device),
            torch.from_numpy(mask).to(device) if needed else None,
        )

    def _choice_batches(
        self, rows: Sequence[Sequence[Tokens]], shared: Sequence[int]
    ) -> Iterator[list[int]]:
        """Yield rows of like prefix; their repeated prefixes and tails count as read."""
        batch: list[int] = []
        tails = tail = 0
        for i in sorted((i for i, n in enumerate(shared) if n), key=lambda i: (shared[i], i)):
            own = sum(self._reads(rows[i], c) for c in range(len(rows[i])))
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


def _common(row: Sequence[Tokens]) -> int:
    """Count the tokens that all choices of a row begin with, the last of each left out.

    A last token is only predicted, never read: a row may be one token longer than the model.
    """
    least, most = min(row), max(row)  # sequences in order: what the ends share, all share
    length = 0
    for one, other in zip(least, most, strict=False):
        if one != other:
            break
        length += 1
    return min(length, *(len(choice) - 1 for choice in row))


def _positions(ids: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Give the inputs of left-padded rows: each counts its own tokens from 0."""
    if mask is None:
        return {"input_ids": ids}
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places}


def _losses(hidden: Tensor, tokens: Tensor, head: Tensor) -> Tensor:
    """Give ``-log p`` of tokens ``[m]`` at states ``[m, d]``, the vocabulary tile by tile.

    Args:
        hidden: Last hidden states.
        tokens: Those that follow.
        head: ``[vocabulary, d]`` output embedding.

    Returns:
        float32 ``[m]``.
    """
    normalisers, chosen = [], torch.zeros(len(tokens), device=hidden.device)
    for start in range(0, len(head), HEAD_TILE):
        logits = (hidden @ head[start : start + HEAD_TILE].T).float()
        normalisers.append(logits.logsumexp(dim=1))
        place = tokens - start
        here = (place >= 0) & (place < logits.shape[1])
        found = logits.gather(1, place.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        chosen = torch.where(here, found, chosen)
    return torch.stack(normalisers).logsumexp(dim=0) - chosen


def _gather(hidden: Tensor, places: Sequence[tuple[int, int, int]]) -> Tensor:
    """Take the states ``[row, start:end]`` of each place, end to end; ``[m, d]``."""
    return torch.cat([hidden[row, start:end] for row, start, end in places])


def _collect(
    rows: Sequence[Sequence[Tokens]],
    first: Sequence[Sequence[int]],
    lengths: Sequence[int],
    values: Sequence[tuple[list[tuple[int, int]], np.ndarray]],
) -> list[list[np.ndarray]]:
    """Put losses of prefixes (choice -1), first tail tokens and the others together."""
    lists: dict[tuple[int, int], list[float]] = {}
    for owners, losses in values:
        for owner, loss in zip(owners, losses.tolist(), strict=True):
            lists.setdefault(owner, []).append(loss)
    result = []
    for i, row in enumerate(rows):
        begin = min(*first[i], lengths[i])
        prefix = lists.get((i, -1), [])
        losses = []
        for c in range(len(row)):
            every = np.array(prefix + lists.get((i, c), []))
            losses.append(every[first[i][c] - begin :])
        result.append(losses)
    return result
