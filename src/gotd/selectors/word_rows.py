"""Words of rows, for the selectors that count words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.data.words import words
from gotd.engine.local import Engine
from gotd.selectors.topk import smallest_rows

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


def sample_rows(
    candidates: Sequence[Rows], rows: int, seed: int, role: str, engine: Engine
) -> Rows:
    """Copy the ids and texts of the rows with the smallest hashes of (role, seed, id).

    Args:
        candidates: The pool, in shards.
        rows: How many; all if there are fewer.
        seed: Seed of the sample.
        role: What the sample is for.
        engine: Maps over shards.

    Returns:
        The rows, smallest hash first.
    """
    hashes = list(engine.map(lambda shard: uniform_by_id(shard.ids, seed, role), candidates))
    best = smallest_rows(hashes, [shard.ids for shard in candidates], rows, engine)
    texts: list[str | None] = [None] * len(best.ids)
    for number, shard in enumerate(candidates):
        here = np.flatnonzero(best.shard == number)
        taken = shard.texts.take(pa.array(best.row[here])).to_pylist()
        for position, text in zip(here.tolist(), taken, strict=True):
            texts[position] = text
    return Rows(best.ids, pa.array(texts, type=pa.string()))
