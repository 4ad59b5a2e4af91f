"""Token rows of texts, and batches of token rows.

A batch is a function of (seed, step): its rows, their order and their masks. A run can
therefore resume after any step. The rows read do not depend on the number of devices or on
the batch that fits on one. Dropout, if any, differs by the parts of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gotd.storage.seeds import derive_seed
from gotd.training.devices import process_rank

TOKENISED_AT_ONCE = 4096
"""Texts per call of the tokenizer; bounds the memory of its Python lists."""

WIDTH_MULTIPLE = 8
"""Rows are padded to it, in tokens: oneDNN keeps memory for every new shape."""

IGNORED = -100
"""Label of a position that is not predicted."""

Part = dict[str, Tensor]
"""Tensors of the rows that one device processes at once."""


@dataclass(frozen=True)
class TokenRows:
    """Rows of tokens of different lengths, end to end.

    Args:
        tokens: ``[total]`` int32 token ids.
        special: ``[total]`` bool, true at ``[CLS]``, ``[SEP]`` and their like.
        offsets: ``[n + 1]`` int64; row i is ``offsets[i]:offsets[i + 1]``.
        pad_id: Token that pads a short row.
        most_tokens: Tokens that rows are cut to; no row is padded beyond them.
        second: ``[total]`` bool, true in the second text; ``None`` for single texts.
        has_segments: Whether the model reads to which text a token belongs.
    """

    tokens: np.ndarray
    special: np.ndarray
    offsets: np.ndarray
    pad_id: int
    most_tokens: int
    second: np.ndarray | None = None
    has_segments: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Return ``[n]`` tokens per row, special ones included."""
        return np.diff(self.offsets)

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions of the tokens of ``rows``, end to end in the order of ``rows``."""
        starts, lengths = self.offsets[rows], self.lengths[rows]
        ends = np.cumsum(lengths)
        return np.arange(lengths.sum()) + np.repeat(starts - ends + lengths, lengths)

    def digest(self) -> str:
        """Return a hash of the rows: two runs with the same digest see the same tokens."""
        hasher = blake2b(self.tokens.tobytes(), digest_size=16)
        hasher.update(self.offsets.tobytes())
        return hasher.hexdigest()


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length_tokens: int,
) -> TokenRows:
    """Tokenise texts, or pairs of texts, cut to ``max_length_tokens``.

    Of a pair the longer text is cut first.

    Raises:
        ValueError: If there are no texts, or they differ in number from ``pairs``.
    """
    if len(texts) == 0:
        raise ValueError("there are no texts to train on; the list is empty")
    if pairs is not None and len(pairs) != len(texts):
        raise ValueError(f"{len(texts)} texts but {len(pairs)} second texts")
    has_segments = "token_type_ids" in tokenizer.model_input_names
    tokens, lengths, second = [], [], []
    for start in range(0, len(texts), TOKENISED_AT_ONCE):
        block = slice(start, start + TOKENISED_AT_ONCE)
        encoded = tokenizer(
            list(texts[block]),
            None if pairs is None else list(pairs[block]),
            truncation=True,
            max_length=max_length_tokens,
            return_attention_mask=False,
            return_token_type_ids=has_segments,
        )
        rows: Any = encoded["input_ids"]
        lengths.extend(map(len, rows))
        tokens.append(np.fromiter((t for row in rows for t in row), dtype=np.int32))
        if pairs is not None:
            owners: Any = (e.sequence_ids for e in encoded.encodings or [])
            if has_segments:
                owners = encoded["token_type_ids"]
            second.append(np.fromiter((s == 1 for row in owners for s in row), dtype=bool))
    flat = np.concatenate(tokens)
    pad_id: Any = tokenizer.pad_token_id
    return TokenRows(
        tokens=flat,
        special=np.isin(flat, tokenizer.all_special_ids),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        pad_id=pad_id,
        most_tokens=max_length_tokens,
        second=np.concatenate(second) if second else None,
        has_segments=has_segments,
    )


def read_task_rows(table: pa.Table, name: str) -> tuple[list[str], list[str] | None]:
    """Return the texts and second texts (``None`` for single texts) of normalised task rows.

    Raises:
        ValueError: If a column or a text is missing, or only some rows have a second text.
    """
    for column in ("text", "text_pair"):
        if column not in table.column_names:
            raise ValueError(f"the {name} rows have no column {column!r}: {table.column_names}")
    if table.num_rows == 0:
        raise ValueError(f"the {name} rows are empty; give at least one")
    if table["text"].null_count:
        raise ValueError(f"{table['text'].null_count} {name} rows have no text; drop them")
    nulls = table["text_pair"].null_count
    if nulls not in (0, table.num_rows):
        raise ValueError(f"{nulls} of {table.num_rows} {name} rows lack text_pair; all or none may")
    return table["text"].to_pylist(), None if nulls else table["text_pair"].to_pylist()


def pad_rows(rows: TokenRows, which: np.ndarray) -> Part:
    """Pad rows to the next multiple of ``WIDTH_MULTIPLE`` tokens, at most ``most_tokens``.

    Args:
        rows: All rows.
        which: ``[b]`` row numbers; may be empty.

    Returns:
        ``input_ids``, ``attention_mask`` and, where the model reads them,
        ``token_type_ids``, each ``[b, width]`` int64.
    """
    lengths = rows.lengths[which]
    longest = max(int(lengths.max(initial=1)), 1)
    width = min(longest + -longest % WIDTH_MULTIPLE, rows.most_tokens)
    inside = np.arange(width) < lengths[:, None]
    positions = rows.positions(which)
    ids = np.full(inside.shape, rows.pad_id, dtype=np.int64)
    ids[inside] = rows.tokens[positions]
    part = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(inside).long()}
    if rows.has_segments:
        kinds = np.zeros(inside.shape, dtype=np.int64)
        if rows.second is not None:
            kinds[inside] = rows.second[positions]
        part["token_type_ids"] = torch.from_numpy(kinds)
    return part


def order_epoch(
    lengths: np.ndarray, global_batch_size: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """Cut one epoch into batches of rows of similar length.

    Rows are shuffled, sorted by length inside blocks of a few batches and cut; the batches
    are then shuffled. There is little padding, and rows still meet others each epoch.

    Returns:
        ``ceil(n / global_batch_size)`` arrays of row numbers, each row exactly once.
    """
    random = np.random.default_rng(derive_seed(seed, "order", epoch))
    shuffled = random.permutation(len(lengths))
    # At least four blocks, so that a small set is not simply sorted the same way each epoch.
    batches_per_block = int(np.clip(len(lengths) // (4 * global_batch_size), 1, 50))
    block = batches_per_block * global_batch_size
    batches = []
    for start in range(0, len(shuffled), block):
        rows = shuffled[start : start + block]
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        batches += [rows[i : i + global_batch_size] for i in range(0, len(rows), global_batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def own_parts(n_rows: int, per_device_batch_size: int) -> list[np.ndarray]:
    """Return the parts of a batch that this process handles, as positions in the batch.

    Every device gets the same number of parts (an empty one if rows run out), because
    devices must exchange gradients equally often.
    """
    rank, devices = process_rank()
    parts = -(-n_rows // (per_device_batch_size * devices)) * devices
    return np.array_split(np.arange(n_rows), parts)[rank::devices]


@dataclass
class Batch:
    """One optimiser step's data on this device; not frozen: Lightning's FSDP copies it by field.

    Args:
        parts: Processed one after the other, gradients summed.
        terms: Loss terms in the step over **all** parts and devices; the loss of the
            step is the sum of terms divided by it.
    """

    parts: list[Part]
    terms: int

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``; Lightning calls this before each step."""
        return Batch(
            [{k: v.to(device, non_blocking=True) for k, v in p.items()} for p in self.parts],
            self.terms,
        )


Collator = Callable[[int, np.ndarray], Batch]
"""Makes this device's share of the batch of (step, row numbers)."""


@dataclass(eq=False)
class BatchStream:
    """Iterable over the batches of all steps, with a state for checkpoints.

    Args:
        lengths: ``[n]`` tokens per row.
        global_batch_size: Rows per step over all devices.
        schedule: Per step, the step of the epochs' order to take: normally
            ``range(steps)``.
        seed: Seed of the order.
        collate: Makes the batch of (step, rows).
        step: The next step.
        tokens: Tokens of the steps before it.
        tokens_before: Those that were read before the stream was restored.
        epoch: The epoch whose order ``batches`` holds.
        batches: Row numbers of its batches.
    """

    lengths: np.ndarray
    global_batch_size: int
    schedule: Sequence[int]
    seed: int
    collate: Collator
    step: int = 0
    tokens: int = 0
    tokens_before: int = 0
    epoch: int | None = None
    batches: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[Batch]:
        while self.step < len(self):
            rows = self._rows(self.schedule[self.step])
            batch = self.collate(self.step, rows)
            # Advanced first, because a checkpoint after a step must point at the next one.
            self.step += 1
            self.tokens += int(self.lengths[rows].sum())
            yield batch

    def _rows(self, step: int) -> np.ndarray:
        """Return the rows of a step in the endless sequence of epochs, longest first."""
        epoch, batch = divmod(step, steps_per_epoch(len(self.lengths), self.global_batch_size))
        if epoch != self.epoch:
            self.batches = order_epoch(self.lengths, self.global_batch_size, self.seed, epoch)
            self.epoch = epoch
        return self.batches[batch]

    def state_dict(self) -> dict[str, int]:
        """Return the position of the stream."""
        return {"step": self.step, "tokens": self.tokens}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from the position of another stream."""
        self.step, self.tokens = state["step"], state["tokens"]
        self.tokens_before = self.tokens


def steps_per_epoch(n_rows: int, global_batch_size: int) -> int:
    """Return the optimiser steps of one pass, the last batch possibly smaller."""
    return -(-n_rows // global_batch_size)
