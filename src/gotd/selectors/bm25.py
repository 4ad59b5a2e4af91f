"""BM25: the candidates that a search engine would return for the targets.

Every target text is a query. The score of a candidate grows with each word that it shares
with the query, most for words that are rare in the pool. Texts only, no model.

The library ``bm25s`` has the same scores, but its index is one matrix over the whole pool.
Here idf and average length come from a first pass, and a shard is scored at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.sparse import csr_matrix

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector, fill
from gotd.selectors.word_rows import target_words, words_of
from gotd.storage.work import Work

# Scores of pairs that are in memory at once.
BLOCK_PAIRS = 1 << 21

PAIRS_PER_TEXT = 3000
"""Pairs that are scored in the time in which one text is read (measured)."""


@dataclass(frozen=True)
class BM25(ScoringSelector):
    """Rank candidates by their BM25 score for the targets, highest first.

    The score of candidate ``d`` for target ``q`` is Lucene's,

        sum_{w in q} idf(w) n_dw / (n_dw + k1 (1 - b + b |d| / mean |d|)),
        idf(w) = log(1 + (N - N_w + 1/2) / (N_w + 1/2)),

    with ``n_dw`` the count of word ``w`` in ``d``, ``|d|`` the words of ``d``, and ``N_w``
    of the pool's ``N`` rows with ``w``. A word that the target repeats counts each time.

    A sum over words grows with the length of the target, so with ``max`` long targets
    take most rows: use targets of one length. The seed has no effect.

    Args:
        aggregate: Over the targets: ``max`` for the best one, or ``mean``.
        k1: How slowly repeated words saturate.
        b: Weight of the candidate's length, in [0, 1].

    Source: Robertson and Zaragoza (2009); Kamphuis et al. (2020) for Lucene's variant;
    Lù (2024), "BM25S", whose defaults these are.
    """

    key_name: ClassVar[str] = "BM25"
    name: ClassVar[str] = "bm25"
    requires: ClassVar[frozenset[str]] = frozenset({"texts"})

    aggregate: Literal["max", "mean"] = "max"
    k1: float = 1.5
    b: float = 0.75

    def __post_init__(self) -> None:
        self.check_choices()
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise ValueError(
                f"bm25: k1 must not be negative ({self.k1}), b be in [0, 1] ({self.b})"
            )

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the negative BM25 score.

        Raises:
            ValueError: If a text is missing, or the target or the pool has no word.
        """
        queries = target_words(target, self.name)
        # Sorted, so that sums over words have one order.
        found = sorted({word for query in queries for word in query})
        vocabulary = {word: column for column, word in enumerate(found)}

        def count(shard: Rows) -> tuple[np.ndarray, int]:
            counts, lengths = count_words(words_of(shard, self.name), vocabulary)
            return np.bincount(counts.indices, minlength=len(found)), int(lengths.sum())

        n_rows, rows_with, n_words = sum(map(len, candidates)), np.zeros(len(found)), 0
        for rows, words in engine.map(count, candidates):
            rows_with += rows
            n_words += words
        if n_words == 0:
            raise ValueError(f"{self.name}: no word in the candidates; are the texts empty?")
        idf = np.log1p((n_rows - rows_with + 0.5) / (rows_with + 0.5))
        weights = csr_matrix(count_words(queries, vocabulary)[0].multiply(idf))
        if self.aggregate == "mean":
            weights = csr_matrix(weights.mean(axis=0))
        by_word: Any = csr_matrix(weights.T)  # its inferred types know no shape

        def score(shard: Rows) -> np.ndarray:
            step = max(1, BLOCK_PAIRS // by_word.shape[1])
            scores = np.zeros(len(shard))
            for row in range(0, len(shard), step):
                block = shard.slice(row, row + step)
                scores[row : row + step] -= self._best(block, vocabulary, by_word, n_words / n_rows)
            return scores

        diagnostics = {"target_words": len(found), "mean_words": n_words / n_rows}
        return Scores(fill(out, engine.map(score, candidates)), diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of two passes over the candidates, and for ``max`` of all pairs."""
        pairs = n_candidates * n_targets if self.aggregate == "max" else 0
        return Work(texts=2 * n_candidates + n_targets + pairs / PAIRS_PER_TEXT)

    def _best(
        self, shard: Rows, vocabulary: Mapping[str, int], by_word: csr_matrix, mean_length: float
    ) -> np.ndarray:
        """Compute each row's largest score over the queries, the columns of ``by_word``."""
        counts, lengths = count_words(words_of(shard, self.name), vocabulary)
        # A row that has a word of the vocabulary is not empty, so its length is positive.
        length = np.repeat(lengths / mean_length, np.diff(counts.indptr))
        counts.data /= counts.data + self.k1 * (1.0 - self.b + self.b * length)
        pairs = csr_matrix(counts @ by_word)
        best, some = np.zeros(len(shard)), np.diff(pairs.indptr) > 0
        if some.any():
            best[some] = np.maximum.reduceat(pairs.data, pairs.indptr[:-1][some])
        return best


def count_words(
    rows: Iterable[list[str]], vocabulary: Mapping[str, int]
) -> tuple[csr_matrix, np.ndarray]:
    """Count the words of rows.

    Args:
        rows: The words of each of ``n`` rows.
        vocabulary: Column of each word that is counted.

    Returns:
        ``[n, len(vocabulary)]`` float64 counts, columns ascending, and ``[n]`` int64 words
        of each row, those that are not counted included.
    """
    columns, ends, lengths = [], [0], []
    for words in rows:
        columns += [vocabulary[word] for word in words if word in vocabulary]
        ends.append(len(columns))
        lengths.append(len(words))
    shape = (len(lengths), len(vocabulary))
    counts = csr_matrix((np.ones(len(columns)), np.array(columns, np.int64), ends), shape)
    counts.sum_duplicates()
    return counts, np.array(lengths, dtype=np.int64)
