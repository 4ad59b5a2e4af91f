"""Texts to token ids: the part of an embedder that needs no network, and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class TextRange:
    """Rows of one shard whose texts are read together.

    Args:
        rows: Arrow file of the shard.
        start: First row.
        stop: Row after the last one.
        length_chars: Characters of each text that are read; ``None``: all.
    """

    rows: Path
    start: int
    stop: int
    length_chars: int | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self) -> list[str]:
        """Return the texts."""
        texts = self._batch()["text"]
        if self.length_chars is not None:
            texts = pc.utf8_slice_codeunits(texts, start=0, stop=self.length_chars)
        return texts.to_pylist()

    def id_of(self, row: int) -> str:
        """Return the id of a row, counted from ``start``."""
        return self._batch()["id"][row].as_py()

    def _batch(self) -> pa.RecordBatch:
        with pa.memory_map(str(self.rows)) as source:
            batch = pa.ipc.open_file(source).get_batch(0)
        return batch.slice(self.start, len(self))


@dataclass(frozen=True)
class TokenIds:
    """Token ids of texts, end to end.

    Args:
        ids: int32 ``[sum of lengths]``.
        lengths: int64 ``[n]``, tokens of each text.
    """

    ids: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(
        self, which: Sequence[int], width: int, pad_id: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return int64 ids and mask, 1 at tokens, ``[len(which), width]`` each.

        Args:
            which: Texts, none of which is longer than ``width``.
            width: Positions of each row.
            pad_id: Id at padding.
        """
        lengths = self.lengths[which]
        starts = np.cumsum(self.lengths)[which] - lengths
        columns = np.arange(width)
        inside = columns < lengths[:, None]
        ids = np.full(inside.shape, pad_id, dtype=np.int64)
        ids[inside] = self.ids[(starts[:, None] + columns)[inside]]
        return ids, inside.astype(np.int64)


@dataclass(frozen=True)
class Tokeniser:
    """A map from texts to token ids, which pickles with its tokenizer.

    Args:
        tokenizer: Of Hugging Face.
        max_length_tokens: Longer texts are cut here.
        special: Whether each text gets the special tokens of the model.
    """

    tokenizer: Any
    max_length_tokens: int
    special: bool

    def __call__(self, texts: Sequence[str]) -> TokenIds:
        """Tokenise texts, in their order."""
        rows = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_length_tokens,
            add_special_tokens=self.special,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return TokenIds(np.fromiter(chain.from_iterable(rows), np.int32, lengths.sum()), lengths)
