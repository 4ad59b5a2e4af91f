"""DSIR: importance resampling in the space of hashed n-grams.

Which candidates would the target's bag of n-grams draw more often than the pool's?
Texts only, no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector, fill
from gotd.selectors.hashed_ngrams import FastNgrams, Sha256Ngrams
from gotd.selectors.quality_filter import passes
from gotd.storage.keys import added_later
from gotd.storage.work import Work

# The package's constant: keeps the logarithm finite in a bucket one side never fills.
LOG_FLOOR = 1e-8

FAST_SHARE = 0.05
"""Work of hashing a text by compiled code; that of tokenising it is 1."""

BEHIND = 1e12
"""Added to the score of a filtered text: more than any difference of two scores."""


@dataclass(frozen=True)
class DSIR(ScoringSelector):
    """Resampling of candidates by their n-gram importance weight.

    Two passes over the pool: count the n-grams, then score each text by

        log w = sum_b count_b * (log(p_target_b + 1e-8) - log(p_pool_b + 1e-8))

    and rank by ``-(log w + G)`` with ``G`` a standard Gumbel draw, a hash of
    (seed, id). Taking the largest of these is sampling without replacement in
    proportion to ``w``.

    Short texts are a trap. ``log w`` is a sum over the n-grams of a text, and nothing divides
    it by their number. A text of the pool has a negative sum unless it reads like the target,
    so a text of one or two words, whose sum is near 0, is ahead of most long ones. With a small
    target it is ahead of all: a common n-gram that the target happens to lack costs
    ``log 1e-8``, about 12 nats. So use chunks of one length, as the paper does
    (``min_chars`` of the chunks), and ``target_smoothing`` for a small target.

    Args:
        hash: ``"sha256"`` has the published buckets; ``"fast"`` is compiled.
        ngrams: Longest n-gram, in tokens.
        buckets: Number of hash buckets.
        noise: Add the Gumbel draw; without it the ranking is the plain top by weight.
        target_smoothing: Count added to every bucket of the target before it is normalised,
            the package's ``target_laplace_smoothing``. The pool is never smoothed. As many
            counts as the target has n-grams make it look like no text: 1 is too much for a
            target below ``buckets`` n-grams.
        quality_filter: ``"paper"`` and ``"package"`` move texts that fail the published filter
            behind all others (`gotd.selectors.quality_filter`). ``"package"`` wants 100
            tokens, which chunks of 500 characters rarely have. N-grams of all texts count.

    Source: Xie et al. (2023), "Data Selection for Language Models via Importance
    Resampling", §3 and the package ``data-selection`` (its repository, for the smoothing).
    """

    key_name: ClassVar[str] = "DSIR"
    version: ClassVar[int] = 2  # 2: n-grams of `fast` are those of the composed form (NFC)
    name: ClassVar[str] = "dsir"
    requires: ClassVar[frozenset[str]] = frozenset({"texts"})
    weight: ClassVar[str] = (
        "importance weight: how much likelier the row's n-grams are in the target than in the pool"
    )
    weight_scale: ClassVar[float | None] = 1.0

    hash: Literal["fast", "sha256"] = "fast"
    ngrams: int = 2
    buckets: int = 10_000
    noise: bool = True
    target_smoothing: float = 0.0
    quality_filter: Literal["none", "paper", "package"] = added_later("none")

    def __post_init__(self) -> None:
        self.check_choices()
        if not 1 <= self.ngrams <= 100:
            raise ValueError(f"dsir: ngrams must be at least 1 and at most 100, not {self.ngrams}")
        if not 1 <= self.buckets < 2**32:
            raise ValueError(f"dsir: buckets must be in [1, 2^32), not {self.buckets}")
        if self.target_smoothing < 0:
            raise ValueError(f"dsir: target_smoothing is negative: {self.target_smoothing}")

    def for_weights(self) -> DSIR:
        """Return the selector without noise, whose scores are the negative log weights."""
        return replace(self, noise=False)

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the negative noisy log importance weight.

        Raises:
            ValueError: If a text is missing, or one side has no n-gram.
        """
        kind = FastNgrams if self.hash == "fast" else Sha256Ngrams
        features = kind(self.ngrams, self.buckets)
        target_counts = features.count(target.texts)
        pool_counts = np.zeros(self.buckets, dtype=np.int64)
        for counts in engine.map(lambda shard: features.count(shard.texts), candidates):
            pool_counts += counts
        log_ratio = self.log_ratio(target_counts, pool_counts)

        def score(shard: Rows) -> np.ndarray:
            log_weight = features.score(shard.texts, log_ratio)
            if self.noise:
                log_weight -= np.log(-np.log(uniform_by_id(shard.ids, seed, self.name)))
            if self.quality_filter != "none":
                log_weight -= BEHIND * ~passes(shard.texts, self.quality_filter)
            return -log_weight

        fill(out, engine.map(score, candidates))
        diagnostics = {
            "hash": self.hash,
            "target_ngrams": int(target_counts.sum()),
            "candidate_ngrams": int(pool_counts.sum()),
        }
        if self.quality_filter != "none":
            diagnostics["filtered_rows"] = sum(int((s > BEHIND / 2).sum()) for s in out)
        return Scores(out, diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of two passes over the candidates and one over the target."""
        passes_over_pool = 2 if self.quality_filter == "none" else 3
        of_text = FAST_SHARE if self.hash == "fast" else 1.0
        return Work(texts=of_text * (passes_over_pool * n_candidates + n_targets))

    def log_ratio(self, target_counts: np.ndarray, pool_counts: np.ndarray) -> np.ndarray:
        """Compute the log ratio of each bucket's share in the target to that in the pool.

        Args:
            target_counts: ``[buckets]`` n-gram counts of the target.
            pool_counts: ``[buckets]`` n-gram counts of all candidates.

        Returns:
            ``[buckets]`` float64.

        Raises:
            ValueError: If one side has no n-gram.
        """
        for side, counts in (("target", target_counts), ("candidates", pool_counts)):
            if counts.sum() == 0:
                raise ValueError(f"{self.name}: no word in the {side}; are the texts empty?")
        smoothed = target_counts + self.target_smoothing
        share_target = smoothed / smoothed.sum()
        share_pool = pool_counts / pool_counts.sum()
        return np.log(share_target + LOG_FLOOR) - np.log(share_pool + LOG_FLOOR)
