"""What a selector sees, what it returns, and the pieces every ranking needs.

A selector ranks the candidates once; every budget is a prefix of that ranking.
Rows are known by their ids, never by their position: ties are broken by id and
chance is a hash of (seed, id), so shards, workers and row order cannot change
what is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from gotd.engine.local import Engine
from gotd.file_array import FileArray, open_array
from gotd.selection.threshold import smallest

__all__ = [
    "Ranking",
    "Scorer",
    "Scores",
    "Selector",
    "Shard",
    "check_request",
    "place",
    "rank_by_scores",
    "smallest",
]


@dataclass(frozen=True)
class Shard:
    """Rows that are scored together, one entry per row in each field.

    A shard that was opened from files holds memory maps and pickles as the files' paths.

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
    # Not a constructor's argument: `dataclasses.replace` must not pass it on.
    _files: tuple[Path, Path | None] | None = field(
        init=False, repr=False, compare=False, default=None
    )

    def __post_init__(self) -> None:
        for name in ("texts", "domains", "embeddings"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.ids):
                raise ValueError(f"{name} has {len(rows)} rows for {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> Any:
        if self._files is not None:
            return Shard.open, self._files
        return Shard, (self.ids, self.texts, self.domains, self.embeddings)

    @classmethod
    def open(cls, rows: Path, embeddings: Path | None = None) -> Shard:
        """Map a shard's files; nothing is read before it is needed.

        Args:
            rows: Arrow file of one batch, uncompressed, with columns ``id``, ``text``
                and ``domain``.
            embeddings: ``.npy`` file of float32 ``[n, d]``.
        """
        with pa.memory_map(str(rows)) as source:
            batch = pa.ipc.open_file(source).get_batch(0)
        shard = cls(
            ids=batch["id"],
            texts=batch["text"],
            domains=batch["domain"],
            embeddings=None if embeddings is None else open_array(embeddings),
        )
        object.__setattr__(shard, "_files", (rows, embeddings))
        return shard

    def take(self, rows: np.ndarray) -> Shard:
        """Give some rows; a view of the embeddings where the rows stand together.

        Args:
            rows: ``[k]`` positions, ascending, at least one.
        """
        first, last = int(rows[0]), int(rows[-1])
        together = last - first + 1 == len(rows)
        where = slice(first, last + 1) if together else rows
        return Shard(
            ids=self.ids.take(pa.array(rows)),
            texts=self.texts.take(pa.array(rows)),
            domains=None if self.domains is None else self.domains.take(pa.array(rows)),
            embeddings=None if self.embeddings is None else self.embeddings[where],
        )


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
        target_potential: ``[m]`` price of each target in cost units, from transport; with
            it each candidate's share of the plan can be told.
    """

    values: Sequence[np.ndarray]
    diagnostics: dict[str, Any] = field(default_factory=dict)
    target_potential: np.ndarray | None = None


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


class Scorer(Selector, Protocol):
    """An arm whose ranking is the order of one number per candidate, ties by id."""

    def scores(
        self,
        target: Shard,
        candidates: Sequence[Shard],
        seed: int,
        engine: Engine,
        out: Sequence[np.ndarray] | None = None,
    ) -> Scores:
        """Score every candidate, lower is selected first.

        Args:
            target: What to select for.
            candidates: The pool.
            seed: Seed of the selection.
            engine: Maps over shards.
            out: Per shard ``[n]`` float64, such as a file, to write the scores into.
        """
        ...


def place(
    per_shard: Iterable[np.ndarray],
    candidates: Sequence[Shard],
    out: Sequence[np.ndarray] | None,
) -> Sequence[np.ndarray]:
    """Put each shard's scores, as they come, where they are wanted.

    Args:
        per_shard: Per shard ``[n]`` scores, such as an engine's results.
        candidates: The shards.
        out: Arrays to fill; new ones when ``None``.

    Returns:
        The filled arrays, float64.
    """
    filled = [np.empty(len(shard)) for shard in candidates] if out is None else out
    for array, values in zip(filled, per_shard, strict=True):
        array[:] = values
    return filled


def rank_by_scores(
    selector: Scorer,
    target: Shard,
    candidates: Sequence[Shard],
    limit: int,
    seed: int,
    engine: Engine,
) -> Ranking:
    """Rank by a selector's scores.

    Raises:
        ValueError: If the request cannot be answered (see `check_request`).
    """
    check_request(selector, target, candidates, limit)
    scored = selector.scores(target, candidates, seed, engine)
    ids, best = smallest(scored.values, [shard.ids for shard in candidates], limit)
    return Ranking(ids, best, diagnostics=scored.diagnostics)


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
        if isinstance(shard.embeddings, FileArray):
            continue  # checked when they were written; reading all of them again takes long
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
