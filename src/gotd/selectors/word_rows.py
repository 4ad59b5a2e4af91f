"""Words of rows, for the selectors that count words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gotd.data.rows import Rows
from gotd.data.words import words

# Texts that are Python strings at once.
BLOCK_ROWS = 1024

LAST = float(np.finfo(np.float64).max)
"""Score of a text without a word, which comes last. Reports are JSON, which has no infinity."""


def words_of(shard: Rows, reader: str) -> Iterator[list[str]]:
    """Yield the words of every row, in order.

    Args:
        shard: Rows.
        reader: Name of the caller, for the message.

    Raises:
        ValueError: If a text is missing.
    """
    if shard.texts.null_count:
        row = shard.ids.filter(shard.texts.is_null())[0].as_py()
        raise ValueError(f"{reader}: the text of row {row!r} is missing; drop rows without a text")
    for start in range(0, len(shard), BLOCK_ROWS):
        yield from map(words, shard.texts.slice(start, BLOCK_ROWS).to_pylist())


def target_words(target: Rows, reader: str) -> list[list[str]]:
    """Return the words of every target, sorted by id, so that their order has no effect.

    Args:
        target: The target.
        reader: Name of the caller, for the message.

    Raises:
        ValueError: If a text is missing, or no text has a word.
    """
    by_id = sorted(zip(target.ids.to_pylist(), words_of(target, reader), strict=True))
    found = [row for _, row in by_id]
    if not any(found):
        raise ValueError(f"{reader}: no word in the target; are the texts empty?")
    return found
