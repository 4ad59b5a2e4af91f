"""The selected rows: where they are in the pool, and their texts, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.topk import Best

BLOCK_ROWS = 8192


def locate(ids: pa.Array, scores: np.ndarray, candidates: Sequence[Rows], engine: Engine) -> Best:
    """Find the shard and the row of ranked ids; an id may repeat.

    Args:
        ids: ``[k]`` ids, best first.
        scores: ``[k]`` float64.
        candidates: The pool.
        engine: Maps over shards.

    Raises:
        ValueError: If an id is not in the pool.
    """
    distinct = pc.unique(ids)
    shard, row = np.full((2, len(distinct)), -1, dtype=np.int64)

    def search(part: Rows) -> tuple[np.ndarray, np.ndarray]:
        index = pc.index_in(part.ids, value_set=distinct)
        return np.flatnonzero(index.is_valid()), index.drop_null().to_numpy()

    for number, (rows, index) in enumerate(engine.map(search, candidates)):
        shard[index], row[index] = number, rows
    if (shard < 0).any():
        missing = distinct[int(np.argmax(shard < 0))].as_py()
        raise ValueError(f"selected row {missing!r} is not among the candidates")
    position = pc.index_in(ids, value_set=distinct).to_numpy()
    return Best(ids, scores, shard[position], row[position])


def blocks(best: Best, candidates: Sequence[Rows], budget: int) -> Iterator[pa.Table]:
    """Yield the first ``budget`` rows, best first, with their texts.

    Args:
        best: The ranking.
        candidates: The pool.
        budget: Rows to read.

    Yields:
        Tables of ``id``, ``text``, ``score``, ``rank`` (from 1) and ``domain``.
    """
    for start in range(0, budget, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, budget))
        texts, domains = [], []
        order = np.lexsort((best.row[rows], best.shard[rows]))  # files are read front to back
        for number, positions in _by_shard(best, rows, order):
            taken = pa.array(best.row[rows][positions])
            shard = candidates[number]
            texts.append(shard.texts.take(taken).cast(pa.large_string()))
            domain = pa.nulls(len(shard), pa.string()) if shard.domains is None else shard.domains
            domains.append(domain.take(taken))
        back = pa.array(np.argsort(order))
        yield pa.table(
            {
                "id": best.ids[rows],
                "text": pa.chunked_array(texts).take(back),
                "score": best.scores[rows],
                "rank": np.arange(rows.start + 1, rows.stop + 1),
                "domain": pa.chunked_array(domains).take(back),
            }
        )


def embeddings_of(best: Best, candidates: Sequence[Rows], positions: np.ndarray) -> np.ndarray:
    """Copy the embeddings of selected rows: float32 ``[len(positions), d]``.

    Args:
        best: The ranking.
        candidates: Shards with embeddings.
        positions: Positions in the ranking, from 0.
    """
    shard, row = best.shard[positions], best.row[positions]
    first = candidates[0].embeddings
    assert first is not None
    result = np.empty((len(positions), first.shape[1]), dtype=np.float32)
    for number in np.unique(shard):
        here = np.flatnonzero(shard == number)
        result[here] = np.asarray(candidates[number].embeddings)[row[here]]
    return result


def _by_shard(best: Best, rows: slice, order: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    shard = best.shard[rows][order]
    starts = np.flatnonzero(np.r_[True, shard[1:] != shard[:-1]])
    for positions in np.split(order, starts[1:]):
        yield int(best.shard[rows][positions[0]]), positions
