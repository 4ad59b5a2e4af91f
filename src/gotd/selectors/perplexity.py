"""Perplexity: the candidates in a band of the base model's loss, whatever the target.

A text of very high loss is often noise, one of very low loss a repetition or a form. The
filter keeps a band between two quantiles and draws from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.stats import rankdata

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector
from gotd.selectors.losses import mean_losses
from gotd.selectors.word_rows import LAST
from gotd.storage.work import Work


@dataclass(frozen=True)
class Perplexity(ScoringSelector):
    """Rank the candidates of a band of the loss first, in random order; the target is not read.

    The loss is the mean per predicted token under the model that will be trained. Rows whose
    quantile in the pool is in ``[low, high]`` have a score in (0, 1), a hash of (seed, id). The
    others follow, those nearest to the band first, and last a text without
    a token.

    Args:
        low: Lower end of the band, a quantile in [0, 1].
        high: Upper end.
        losses: File of the losses; a step writes it.

    Source: Marion et al. (2023), When less is more: investigating data pruning for
    pretraining LLMs at scale, where the middle of the distribution does best.
    """

    key_name: ClassVar[str] = "Perplexity"
    name: ClassVar[str] = "perplexity"
    requires: ClassVar[frozenset[str]] = frozenset({"model", "losses"})
    reads_target: ClassVar[bool] = False

    low: float = 0.25
    high: float = 0.75
    losses: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(
                f"{self.name}: low ({self.low}) must be below high ({self.high}), both in [0, 1]"
            )

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the place in the band.

        Raises:
            ValueError: If the file of losses is missing, or lacks a candidate.
        """
        found = mean_losses(self.losses, candidates, self.name)
        losses = np.concatenate(found)
        known = ~np.isnan(losses)
        quantile = np.full(len(losses), np.nan)
        quantile[known] = (rankdata(losses[known]) - 0.5) / max(1, known.sum())
        ends = np.cumsum([len(part) for part in found])[:-1]
        for shard, q, scores in zip(candidates, np.split(quantile, ends), out, strict=True):
            outside = np.maximum(self.low - q, q - self.high)
            chance = uniform_by_id(shard.ids, seed, self.name)
            scores[:] = np.where(outside <= 0, chance, 1.0 + outside)
            scores[np.isnan(q)] = LAST
        inside = losses[known & (quantile >= self.low) & (quantile <= self.high)]
        band = np.exp([inside.min(), inside.max()]).tolist() if len(inside) else None
        return Scores(out, {"perplexity_band": band})

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of reading the losses; those of the model are another step's."""
        return Work(texts=0.01 * n_candidates, memory_bytes=100 * n_candidates)
