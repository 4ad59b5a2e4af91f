"""Ensemble: the candidates that several selectors rank high.

Scores of different selectors have no common unit, but ranks do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Ranking, Scores, ScoringSelector, Selector
from gotd.selectors.registry import build_selector
from gotd.storage.checks import check_at_least, check_device_name
from gotd.storage.work import Work


@dataclass(frozen=True)
class Ensemble(ScoringSelector):
    """Rank candidates by their ranks under several selectors, ties by id.

    With ``rank_k`` the place of a candidate under selector ``k``, counted from 1, the score is
    ``-sum_k 1 / (constant + rank_k)``, which favours a candidate that one selector puts first,
    or ``mean_k rank_k``. A candidate that is not among the first ``depth`` of a selector
    adds nothing, or the rank ``depth + 1``.

    Args:
        selectors: Names of the selectors, each with the settings that `gotd select` gives it.
        aggregate: ``reciprocal_rank`` or ``mean_rank``.
        constant: Of the reciprocal rank; a larger one makes first places count less.
        depth: Rows of each ranking that count.
        device: Where selectors compute that can choose: ``auto``, ``cpu``, ``cuda`` ...

    Source: Cormack, Clarke and Buettcher (2009), "Reciprocal rank fusion outperforms
    Condorcet and individual rank learning methods", with its constant; Borda for the mean.
    """

    key_name: ClassVar[str] = "Ensemble"
    name: ClassVar[str] = "ensemble"

    selectors: tuple[str, ...] = ("dsir", "got_d")
    aggregate: Literal["reciprocal_rank", "mean_rank"] = "reciprocal_rank"
    constant: float = 60.0
    depth: int = 50_000
    device: str = "auto"

    def __post_init__(self) -> None:
        self.check_choices()
        check_device_name(self.device)
        check_at_least(self, 1, "depth", prefix=f"{self.name}: ")
        if self.constant < 0:
            raise ValueError(f"{self.name}: constant must not be negative ({self.constant})")
        if len(set(self.selectors)) < max(2, len(self.selectors)) or self.name in self.selectors:
            raise ValueError(
                f"{self.name}: selectors must be two or more different methods other than "
                f"{self.name}, not {','.join(self.selectors)!r}"
            )
        for one in self.members:
            if one.space is not None:
                raise ValueError(
                    f"{self.name}: {one.name} reads a space of its own; name methods of one space"
                )

    @cached_property
    def members(self) -> tuple[Selector, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the selectors."""
        return tuple(build_selector(name, {}, self.device) for name in self.selectors)

    def with_files(self, files: Mapping[str, Path]) -> Self:
        """Return the ensemble with the files that its members require."""
        filled = copy(self)
        vars(filled)["members"] = tuple(one.with_files(files) for one in self.members)
        return filled

    @property
    def requires(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return what any of the selectors requires."""
        return frozenset[str]().union(*(one.requires for one in self.members))

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the ranks; one selector after the other ranks the pool.

        Raises:
            ValueError: If a selector cannot answer.
        """
        depth, share = min(self.depth, sum(map(len, candidates))), 1.0 / len(self.members)
        for scores in out:
            scores[:] = 0.0 if self.aggregate == "reciprocal_rank" else depth + 1.0
        diagnostics = {}
        for name, member in zip(self.selectors, self.members, strict=True):
            ranking = member.rank(target, candidates, depth, seed, engine)
            diagnostics[name] = ranking.diagnostics
            for (rows, ranks), scores in zip(_places(ranking, candidates), out, strict=True):
                if self.aggregate == "reciprocal_rank":
                    scores[rows] -= 1.0 / (self.constant + ranks)
                else:
                    scores[rows] -= share * (depth + 1.0 - ranks)
        return Scores(out, diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of all selectors, and the memory of the largest."""
        depth = min(self.depth, n_candidates)
        parts = [one.work(n_candidates, n_targets, width, depth) for one in self.members]
        return Work(
            texts=sum(part.texts for part in parts),
            flops=sum(part.flops for part in parts),
            memory_bytes=max(part.memory_bytes for part in parts),
        )


def _places(ranking: Ranking, candidates: Sequence[Rows]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return per shard the rows that are ranked and their ranks, counted from 1."""
    ids = ranking.ids.cast(pa.string())
    places = []
    for shard in candidates:
        # The first place of an id that occurs more than once.
        found = pc.index_in(shard.ids.cast(pa.string()), value_set=ids)
        rows = np.flatnonzero(np.asarray(found.is_valid()))
        places.append((rows, 1.0 + found.drop_null().to_numpy()))
    return places
