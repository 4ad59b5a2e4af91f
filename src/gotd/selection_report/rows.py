"""The selected rows: where they are in the pool, and their texts, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.topk import Best
from gotd.transport.reference import gather

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
        shard, row = best.shard[rows], best.row[rows]
        order = np.lexsort((row, shard))  # files are read front to back
        texts, domains = [], []
        for number in np.unique(shard):
            part, taken = candidates[number], pa.array(row[order][shard[order] == number])
            texts.append(part.texts.take(taken).cast(pa.large_string()))
            domain = pa.nulls(len(part), pa.string()) if part.domains is None else part.domains
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


def embeddings_of(candidates: Sequence[Rows], where: np.ndarray) -> np.ndarray:
    """Copy the embeddings of some rows: float32 ``[k, d]``.

    Args:
        candidates: Shards with embeddings.
        where: ``[k, 2]`` int64 pairs (shard, row).
    """
    arrays = [shard.embeddings for shard in candidates if shard.embeddings is not None]
    return gather(arrays, where)
