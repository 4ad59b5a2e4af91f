"""Classifier: the candidates that a classifier takes for target texts.

Logistic regression on hashed word n-grams separates the target from a sample of the pool.
Its log odds estimate the logarithm of target density over pool density, which is also what
DSIR estimates. Texts only, no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import vstack

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector, fill
from gotd.selectors.word_rows import BLOCK_ROWS, LAST, sample_rows, target_words, words_of
from gotd.storage.checks import check_at_least, check_at_most
from gotd.storage.work import Work

TOLERANCE, MOST_ITERATIONS = 1e-6, 1000
"""Where a fit stops; a few dozen iterations are enough."""

FIT_READS = 3
"""Texts that are read in the time in which one is part of both fits (measured)."""


@dataclass(frozen=True)
class Classifier(ScoringSelector):
    """Rank candidates by the negative log odds of being a target text.

    A text is its counts of word n-grams in hash buckets, scaled to unit length. Both classes
    have equal weight in the fit.

    No candidate is scored by a model that was fitted on it: the pool is divided in two by a
    hash of the id, each half of the sample fits a model, and a candidate is scored by the
    model of the other half. Otherwise the rows of the sample, which all count as the wrong
    class, would come later than their equals outside. In a pool of a few rows a half may be
    empty; then one model of all of them scores all. A text without a word comes last.

    Args:
        ngrams: Longest n-gram, in words.
        buckets: Number of hash buckets.
        pool_rows: Rows of the pool to fit on, chosen by a hash of (seed, id).
        regularisation: Weight of the squared norm of the coefficients, the inverse of
            scikit-learn's ``C``.
        noise: Add a Gumbel number to the log odds, a hash of (seed, id). The ranking is then
            a sample without replacement in proportion to the odds, as in `DSIR`.

    Source: Brown et al. (2020), GPT-3, appendix A: a classifier of reference text against
    web text, with noise. Menon and Ong (2016) for odds as a density ratio.
    """

    key_name: ClassVar[str] = "Classifier"
    name: ClassVar[str] = "classifier"
    requires: ClassVar[frozenset[str]] = frozenset({"texts"})
    weight: ClassVar[str] = (
        "importance weight: the odds of a target text, an estimate of target over pool density"
    )
    weight_scale: ClassVar[float | None] = 1.0

    ngrams: int = 2
    buckets: int = 1 << 20
    pool_rows: int = 10_000
    regularisation: float = 1.0
    noise: bool = False

    def __post_init__(self) -> None:
        check_at_least(self, 1, "ngrams", "buckets", prefix=f"{self.name}: ")
        check_at_most(self, 100, "ngrams", prefix=f"{self.name}: ")
        check_at_most(self, 2**26, "buckets", prefix=f"{self.name}: ")
        check_at_least(self, 2, "pool_rows", prefix=f"{self.name}: ")
        if not self.regularisation > 0:
            raise ValueError(f"{self.name}: regularisation must be positive")

    def for_weights(self) -> Classifier:
        """Return the selector without noise, whose scores are the negative log odds."""
        return replace(self, noise=False)

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the negative log odds, with noise if it is set.

        Raises:
            ValueError: If a text is missing, or the target or the sample has no word.
        """
        positive = self._features(target_words(target, self.name))
        sample = sample_rows(candidates, self.pool_rows, seed, "classifier sample", engine)
        negative, half = self._features(words_of(sample, self.name)), self._half(sample, seed)
        # Column h scores half h and is fitted on the other one.
        parts = [negative[half != h] for h in (0, 1)]
        if not all(part.nnz for part in parts):
            parts = [negative, negative]
        fits = [self._fit(positive, part) for part in parts]
        coefficients = np.stack([weights for weights, _ in fits], axis=1)
        intercepts = np.array([intercept for _, intercept in fits])

        def score(shard: Rows) -> np.ndarray:
            scores = np.empty(len(shard))
            for row in range(0, len(shard), BLOCK_ROWS):
                block = shard.slice(row, row + BLOCK_ROWS)
                features = self._features(words_of(block, self.name))
                both = features @ coefficients + intercepts
                log_odds = np.take_along_axis(both, self._half(block, seed)[:, None], axis=1)[:, 0]
                if self.noise:
                    log_odds -= np.log(-np.log(uniform_by_id(block.ids, seed, self.name)))
                scores[row : row + BLOCK_ROWS] = np.where(features.getnnz(axis=1), -log_odds, LAST)
            return scores

        diagnostics = {"target_rows": positive.shape[0], "pool_rows": len(sample)}
        return Scores(fill(out, engine.map(score, candidates)), diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of one pass over the candidates and of the fits."""
        fitted = n_targets + min(n_candidates, self.pool_rows)
        return Work(texts=n_candidates + FIT_READS * fitted)

    def _half(self, shard: Rows, seed: int) -> np.ndarray:
        """Return 0 or 1 for every row, by a hash of (seed, id)."""
        return (uniform_by_id(shard.ids, seed, "classifier half") < 0.5).astype(np.int64)

    def _features(self, rows: Iterable[list[str]]) -> Any:
        """Count the n-grams of rows given as words: ``[n, buckets]``, rows of unit length."""
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer: Any = HashingVectorizer  # its inferred types know no token_pattern=None
        return vectorizer(
            tokenizer=list,
            token_pattern=None,
            lowercase=False,
            ngram_range=(1, self.ngrams),
            n_features=self.buckets,
            alternate_sign=False,
        ).transform(rows)

    def _fit(self, positive: Any, negative: Any) -> tuple[np.ndarray, float]:
        """Fit a model.

        Args:
            positive: ``[m, buckets]`` features of the target.
            negative: ``[r, buckets]`` features of rows of the pool.

        Returns:
            ``[buckets]`` coefficients and the intercept.

        Raises:
            ValueError: If no row of the pool has a word.
        """
        from sklearn.linear_model import LogisticRegression

        if negative.nnz == 0:
            raise ValueError(
                f"{self.name}: the {negative.shape[0]:,} rows of the pool to fit on have no word; "
                "give more candidates, or raise pool_rows"
            )
        rows: Any = vstack([positive, negative], format="csr")
        used = np.unique(rows.indices)  # the others would take most of the time
        model = LogisticRegression(
            C=1.0 / self.regularisation,
            class_weight="balanced",
            tol=TOLERANCE,
            max_iter=MOST_ITERATIONS,
        ).fit(rows[:, used], np.repeat([1, 0], [positive.shape[0], negative.shape[0]]))
        coefficients = np.zeros(self.buckets)
        coefficients[used] = model.coef_[0]
        return coefficients, float(model.intercept_[0])
