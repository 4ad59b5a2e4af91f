"""What a selector sees, what it returns, and the pieces every ranking needs.

A selector ranks the candidates once; every budget is a prefix of that ranking.
Rows are known by their ids, never by their position: ties are broken by id and
chance is a hash of (seed, id), so shards, workers and row order cannot change
what is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.engine.local import Engine


@dataclass(frozen=True)
class Shard:
    """Rows that are scored together, one entry per row in each field.

    Args:
        ids: ``[n]`` unique row ids.
        texts: ``[n]`` the rows' texts.
        domains: ``[n]`` the rows' domains, where known.
        embeddings: ``[n, d]`` float32, may be a memory map; ``None`` for arms
            that read only texts.
    """

    ids: pa.Array
    texts: pa.Array
    domains: pa.Array | None = None
    embeddings: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("texts", "domains", "embeddings"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.ids):
                raise ValueError(f"{name} has {len(rows)} rows for {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order in which an arm would take them.

    Args:
        ids: ``[limit]`` row ids, best first.
        scores: ``[limit]`` float64; **lower is selected first**, whatever the method.
        with_replacement: Whether an id may stand more than once.
        diagnostics: JSON-able facts: certificate of the solver, counts, seconds.
    """

    ids: pa.Array
    scores: np.ndarray
    with_replacement: bool = False
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """What an arm that scores rows one by one thinks of every candidate.

    A ranking is these scores and ``smallest``; any budget is then a matter of seconds.

    Args:
        values: Per shard ``[n]`` float64; **lower is selected first**.
        diagnostics: JSON-able facts: certificate of the solver, counts, seconds.
    """

    values: Sequence[np.ndarray]
    diagnostics: dict[str, Any] = field(default_factory=dict)


class Selector(Protocol):
    """An arm: ranks candidates for a target."""

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]]

    def rank(
        self,
        target: Shard,
        candidates: Sequence[Shard],
        limit: int,
        seed: int,
        engine: Engine,
    ) -> Ranking:
        """Rank the ``limit`` best candidates for ``target``.

        Raises:
            ValueError: If ``limit`` exceeds the number of candidates, or a shard
                lacks a field named in ``requires``.
        """
        ...


def check_request(
    selector: Selector, target: Shard, candidates: Sequence[Shard], limit: int
) -> None:
    """Refuse what no selector can answer, naming what is missing.

    Raises:
        ValueError: If there is no target or candidate row, a needed field is
            absent, embeddings are not finite or differ in width, or the budget
            exceeds the pool.
    """
    n_candidates = sum(len(shard) for shard in candidates)
    if len(target) == 0:
        raise ValueError(f"{selector.name}: the target is empty; give at least one text")
    if limit < 1:
        raise ValueError(f"{selector.name}: the budget must be at least 1, not {limit}")
    if limit > n_candidates:
        raise ValueError(
            f"{selector.name}: the budget {limit:,} is larger than the pool of "
            f"{n_candidates:,} candidates; lower the budget or add candidates"
        )
    if "embeddings" not in selector.requires:
        return
    widths = set()
    for name, shard in [("target", target), *(("candidates", s) for s in candidates)]:
        if shard.embeddings is None:
            raise ValueError(f"{selector.name}: the {name} have no embeddings; choose an embedder")
        widths.add(shard.embeddings.shape[1])
        bad = ~np.isfinite(shard.embeddings).all(axis=1)
        if bad.any():
            row = shard.ids[int(np.argmax(bad))].as_py()
            raise ValueError(
                f"{selector.name}: the embedding of {name} row {row!r} is not finite "
                f"({int(bad.sum())} such rows); embed that text again or drop it"
            )
    if len(widths) > 1:
        raise ValueError(
            f"{selector.name}: target and candidate embeddings differ in width: {widths}"
        )


def smallest(
    scores: Sequence[np.ndarray], ids: Sequence[pa.Array], limit: int
) -> tuple[pa.Array, np.ndarray]:
    """Take the ``limit`` smallest scores over all shards, ties by id.

    Args:
        scores: Per shard ``[n]`` scores.
        ids: Per shard ``[n]`` row ids.
        limit: Rows to keep.

    Returns:
        ``[limit]`` ids and ``[limit]`` float64 scores, smallest first.
    """
    score = np.concatenate([np.asarray(s, dtype=np.float64) for s in scores])
    if np.isnan(score).any():
        raise ValueError("a score is NaN; look for empty texts or embeddings that are not finite")
    if limit < len(score):
        # Keep every row tied with the threshold: the id decides among them below.
        threshold = np.partition(score, limit - 1)[limit - 1]
        rows = np.flatnonzero(score <= threshold)
    else:
        rows = np.arange(len(score))
    all_ids = pa.chunked_array(list(ids), type=pa.string())
    kept = pa.table({"score": score[rows], "id": all_ids.take(pa.array(rows))})
    order = pc.sort_indices(kept, sort_keys=[("score", "ascending"), ("id", "ascending")])
    best = kept.take(order[:limit])
    return best["id"].combine_chunks(), best["score"].to_numpy()


def uniform_by_id(ids: pa.Array, seed: int, role: str) -> np.ndarray:
    """Draw one uniform number per id, the same wherever that id is stored.

    A counter-based generator in the sense of Salmon et al. (2011): the number is a
    hash of (role, seed, id), so it depends neither on order nor on shards.

    Args:
        ids: ``[n]`` row ids.
        seed: The role's seed.
        role: What the chance is for; two roles are independent.

    Returns:
        ``[n]`` float64 in the open interval (0, 1).
    """
    prefix = f"{role}\x00{seed}\x00".encode()
    words = np.fromiter(
        (
            int.from_bytes(blake2b(prefix + str(i).encode(), digest_size=8).digest(), "little")
            for i in ids.to_pylist()
        ),
        dtype=np.uint64,
        count=len(ids),
    )
    drawn = ((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    return np.minimum(drawn, np.nextafter(1.0, 0.0))  # the top word would round to 1
