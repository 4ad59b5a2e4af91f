"""The chosen rows: where they stand in the pool, and their texts a block at a time."""

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
    """Find out where ranked ids stand; an id may repeat.

    Args:
        ids: ``[k]`` ids, best first.
        scores: ``[k]`` float64.
        candidates: The pool.
        engine: Maps over shards.
    """
    distinct = pc.unique(ids)
    shard, row = np.full((2, len(distinct)), -1, dtype=np.int64)

    def look(here: Rows) -> tuple[np.ndarray, np.ndarray]:
        found = pc.index_in(here.ids, value_set=distinct)
        rows = np.flatnonzero(found.is_valid())
        return rows, found.drop_null().to_numpy()

    for number, (rows, places) in enumerate(engine.map(look, candidates)):
        shard[places], row[places] = number, rows
    place = pc.index_in(ids, value_set=distinct).to_numpy()
    return Best(ids, scores, shard[place], row[place])


def blocks(best: Best, candidates: Sequence[Rows], budget: int) -> Iterator[pa.Table]:
    """Yield the first ``budget`` rows, best first, with their texts.

    Args:
        best: The ranking.
        candidates: The pool.
        budget: Rows to give.

    Yields:
        Tables of ``id``, ``text``, ``score``, ``rank`` (from 1) and ``domain``.
    """
    for start in range(0, budget, BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, budget))
        texts, domains = [], []
        order = np.lexsort((best.row[rows], best.shard[rows]))  # files are read front to back
        for number, places in _by_shard(best, rows, order):
            taken = pa.array(best.row[rows][places])
            shard = candidates[number]
            texts.append(shard.texts.take(taken).cast(pa.large_string()))
            assert shard.domains is not None  # a pool on disk has them
            domains.append(shard.domains.take(taken))
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


def embeddings_of(best: Best, candidates: Sequence[Rows], places: np.ndarray) -> np.ndarray:
    """Copy the embeddings of chosen rows: float32 ``[len(places), d]``.

    Args:
        best: The ranking.
        candidates: Shards with embeddings.
        places: Which rows of the ranking, from 0.
    """
    shard, row = best.shard[places], best.row[places]
    first = candidates[0].embeddings
    assert first is not None
    found = np.empty((len(places), first.shape[1]), dtype=np.float32)
    for number in np.unique(shard):
        here = np.flatnonzero(shard == number)
        found[here] = np.asarray(candidates[number].embeddings)[row[here]]
    return found


def _by_shard(best: Best, rows: slice, order: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    shard = best.shard[rows][order]
    starts = np.flatnonzero(np.r_[True, shard[1:] != shard[:-1]])
    for places in np.split(order, starts[1:]):
        yield int(best.shard[rows][places[0]]), places
