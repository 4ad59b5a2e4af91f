"""The base classes of selectors, and the checks that all of them share.

A selector ranks the candidates once; every budget is a prefix of that ranking. Rows are
known by their ids, never by their position: ties are broken by id, and random numbers are
a hash of (seed, id). So shards, workers and row order cannot change what is selected.

A new selector is a frozen dataclass with one method: `ScoringSelector.compute_scores` where
candidates are scored one by one, `Selector.compute_ranking` otherwise (docs/extending.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.topk import smallest
from gotd.storage.checks import check_choices
from gotd.storage.memmap import FileArray
from gotd.storage.work import Work

Out = Sequence[np.ndarray]
"""Arrays to write scores into, per shard ``[n]`` float64, possibly files."""

READ_ID = 0.01
"""Work of reading a row's id alone, for `Selector.work`; that of tokenising a text is 1."""

FULL_TARGET = "full_target"
"""Requirement: the candidates are the target's own texts, and no budget cuts them."""

FULL_POOL = "full_pool"
"""Requirement: all candidates are taken, and no budget cuts them."""

FILES = frozenset({"scores", "losses", "tuned_losses"})
"""Requirements that are fields of the selector, paths of files that a step of the pipeline writes.

``scores`` are those of a scorer. ``losses`` are the candidates' under the model that will be
trained, ``tuned_losses`` under that model after training on the target's texts.
"""

REQUIREMENTS = FILES | {"embeddings", "texts", "domains", "labels", "model", FULL_TARGET, FULL_POOL}
"""What a selector can require.

``embeddings``, ``texts``, ``domains`` and ``labels`` are fields of the rows. ``model`` is the model
that will be trained: an experiment has one, and ``gotd select`` asks for it. With it a selector
has files of losses, or a ``space`` of its own.
"""


@dataclass(frozen=True)
class Ranking:
    """Candidates in the order in which a selector takes them.

    Args:
        ids: ``[limit]`` row ids, best first.
        scores: ``[limit]`` float64; **lower is selected first**, whatever the selector.
        with_replacement: Whether an id may occur more than once.
        diagnostics: Values for JSON: the solver's certificate, counts.
    """

    ids: pa.Array
    scores: np.ndarray
    with_replacement: bool = False
    diagnostics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """One number per candidate, whose order is the ranking.

    Args:
        values: Per shard ``[n]`` float64; **lower is selected first**.
        diagnostics: Values for JSON: the solver's certificate, counts.
        target_potential: ``[m]`` potential of each target in cost units, from transport;
            from it follows each candidate's share of the plan.
    """

    values: Sequence[np.ndarray]
    diagnostics: dict[str, Any] = field(default_factory=dict)
    target_potential: np.ndarray | None = None

    def ranking(self, candidates: Sequence[Rows], limit: int) -> Ranking:
        """Rank the ``limit`` smallest scores, ties by id."""
        ids, best = smallest(self.values, [shard.ids for shard in candidates], limit)
        return Ranking(ids, best, diagnostics=self.diagnostics)


class Selector(ABC):
    """A method that ranks candidates for a target.

    A subclass is a frozen dataclass: its fields are its settings, and with ``key_name`` and
    ``version`` they make up the cache key. It states ``name`` and ``requires``.
    """

    name: ClassVar[str]
    """Name in messages."""
    requires: ClassVar[frozenset[str]] = frozenset()
    """What it needs beside ids, some of `REQUIREMENTS`."""
    space: ClassVar[str | None] = None
    """The encoder whose embeddings it reads, whatever else is chosen; ``None``: any."""
    reads_target: ClassVar[bool] = True
    """Whether the selection depends on the target; if not, all tasks share one training on it."""

    def __init_subclass__(cls) -> None:
        requires = cls.requires
        if isinstance(requires, frozenset) and not requires <= REQUIREMENTS:
            raise TypeError(
                f"{cls.__name__}.requires: {sorted(requires - REQUIREMENTS)[0]!r} is none of "
                f"{', '.join(sorted(REQUIREMENTS))}"
            )

    @property
    def members(self) -> tuple[Selector, ...]:
        """Return the selectors that it runs; they enter its key."""
        return ()

    def with_files(self, files: Mapping[str, Path]) -> Self:
        """Return the selector with the paths of the files that it requires.

        Args:
            files: Paths by requirement, some of `FILES`.
        """
        own = {name: path for name, path in files.items() if name in self.requires}
        return replace(self, **own)  # type: ignore[type-var] -- a subclass is a dataclass

    def check_choices(self) -> None:
        """Raise if a field annotated with `typing.Literal` has none of its values.

        Raises:
            ValueError: Names the field, its value and what is allowed.
        """
        check_choices(self, f"{self.name}: ")

    def rank(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank the ``limit`` best candidates for ``target``.

        Args:
            target: What to select for.
            candidates: The pool, in shards.
            limit: Rows to rank; a smaller limit gives a prefix.
            seed: Seed of the selection.
            engine: Maps over shards.

        Raises:
            ValueError: If the request cannot be answered, see `check_request`.
        """
        check_request(self, target, candidates, limit)
        return self.compute_ranking(target, candidates, limit, seed, engine)

    @abstractmethod
    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank; the request is checked."""

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of a ranking, for `gotd plan`; rows in memory not included.

        By default all texts are read once, or all pairs of embeddings are compared once.

        Args:
            n_candidates: Rows of the pool.
            n_targets: Rows of the target.
            width: Numbers per embedding; 0 where there are none.
            limit: Rows to rank.
        """
        if "embeddings" in self.requires:
            return Work(flops=2.0 * n_candidates * n_targets * width)
        return Work(texts=n_candidates + n_targets)


class ScoringSelector(Selector):
    """A selector whose ranking is the order of one number per candidate, ties by id."""

    weight: ClassVar[str] = (
        "sampling probability, exp(-score / s) with s the standard deviation of the scores: a row "
        "that is better by one standard deviation is sampled 2.7 times as often"
    )
    """What the weight of a row means (`gotd.selectors.weights`)."""
    weight_scale: ClassVar[float | None] = None
    """The weight is exp(-score / scale); ``None``: the standard deviation of the scores."""

    def for_weights(self) -> Self:
        """Return the selector whose scores give weights: without random numbers in them."""
        return self

    def scores(
        self,
        target: Rows,
        candidates: Sequence[Rows],
        seed: int,
        engine: Engine,
        out: Out | None = None,
    ) -> Scores:
        """Score every candidate; lower is selected first.

        Args:
            target: What to select for.
            candidates: The pool, in shards.
            seed: Seed of the selection.
            engine: Maps over shards.
            out: Per shard ``[n]`` float64, such as a file, to write the scores into.

        Raises:
            ValueError: If the request cannot be answered, see `check_request`.
        """
        check_request(self, target, candidates, 1)
        out = empty_scores(candidates) if out is None else out
        return self.compute_scores(target, candidates, seed, engine, out)

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by the scores."""
        out = empty_scores(candidates)
        scored = self.compute_scores(target, candidates, seed, engine, out)
        return scored.ranking(candidates, limit)

    @abstractmethod
    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Write the scores into ``out`` (see `fill`) and return them; the request is checked."""


def empty_scores(candidates: Sequence[Rows]) -> Out:
    """Allocate ``[n]`` float64 per shard."""
    return [np.empty(len(shard)) for shard in candidates]


def fill(out: Out, per_shard: Iterable[np.ndarray]) -> Out:
    """Copy each shard's scores into ``out`` as they are computed, and return ``out``.

    Args:
        out: Per shard ``[n]`` float64.
        per_shard: Per shard ``[n]`` scores, such as an engine's results.
    """
    for array, values in zip(out, per_shard, strict=True):
        array[:] = values
    return out


def check_request(selector: Selector, target: Rows, candidates: Sequence[Rows], limit: int) -> None:
    """Validate a request.

    Raises:
        ValueError: If there is no candidate row, or no row of a target that is read, a
            required field is missing, embeddings are not finite or differ in width, or the
            budget exceeds the pool.
    """
    n_candidates = sum(len(shard) for shard in candidates)
    if len(target) == 0 and selector.reads_target:
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
    for side, shard in [("target", target), *(("candidates", shard) for shard in candidates)]:
        if shard.embeddings is None:
            raise ValueError(f"{selector.name}: the {side} have no embeddings; choose an embedder")
        widths.add(shard.embeddings.shape[1])
        if isinstance(shard.embeddings, FileArray):
            continue  # checked when they were written; reading all of them again takes long
        bad = ~np.isfinite(shard.embeddings).all(axis=1)
        if bad.any():
            row = shard.ids[int(np.argmax(bad))].as_py()
            raise ValueError(
                f"{selector.name}: the embedding of {side} row {row!r} is not finite "
                f"({int(bad.sum())} such rows); embed that text again or drop it"
            )
    if len(widths) > 1:
        raise ValueError(
            f"{selector.name}: target and candidate embeddings differ in width: {widths}"
        )
