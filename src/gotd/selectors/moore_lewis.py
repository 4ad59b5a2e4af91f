"""Moore-Lewis: candidates that a language model of the target finds likelier than one of the pool.

Both models are n-gram models of words, counted in one pass; a second pass scores. The
score is a difference of cross-entropies per word, so the length of a text does not decide,
and a text that is merely simple is likely under both models. Texts only, no neural model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector, fill
from gotd.selectors.hashed_words import MOST_BUCKETS, ExactCounts, HashedWords, SketchedCounts
from gotd.selectors.word_rows import BLOCK_ROWS, LAST, target_words, words_of
from gotd.storage.work import Work


@dataclass(frozen=True)
class MooreLewis(ScoringSelector):
    """Rank candidates by their cross-entropy difference per word, lowest first.

    The score of a text of ``K`` words is, in nats,

        1/K sum_k log p_pool(w_k | w_k-1) - log p_target(w_k | w_k-1),

    with p(w | v) = (n(v w) + prior p(w)) / (n(v) + prior) from counts ``n`` of words and
    pairs, and ``p(w)`` for the first word of a text. The pool's ``p(w)`` is interpolated
    with the uniform distribution over buckets, the target's with the pool's:

        p(w) = (n(w) + T p_0(w)) / (N + T),    N words, T different ones (Witten and Bell).

    So a word that neither model knows does not favour the target. A candidate's own words
    are subtracted from the counts of the pool. Otherwise every rare text would be likely
    there. A text without a word comes last. The seed has no effect.

    Args:
        buckets: Hash buckets of the pool's counts, three tables of four bytes each. Where the
            pool has more different pairs than buckets, pairs that it lacks seem to be there.
        prior: Words of ``p(w)`` that count in every context.

    Source: Moore and Lewis (2010), Intelligent selection of language model training data;
    Witten and Bell (1991); MacKay and Peto (1995) for the prior.
    """

    key_name: ClassVar[str] = "MooreLewis"
    name: ClassVar[str] = "moore_lewis"
    requires: ClassVar[frozenset[str]] = frozenset({"texts"})
    weight: ClassVar[str] = (
        "importance weight of a mean word: its likelihood in the target over that in the pool"
    )
    weight_scale: ClassVar[float | None] = 1.0

    buckets: int = 1 << 26
    prior: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.buckets <= MOST_BUCKETS:
            raise ValueError(f"{self.name}: buckets must be in [1, 2^32], not {self.buckets}")
        if not self.prior > 0:
            raise ValueError(f"{self.name}: prior must be positive, not {self.prior}")

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the difference of cross-entropies.

        Raises:
            ValueError: If a text is missing, or the target or the pool has no word.
        """
        wanted = ExactCounts(HashedWords.of(target_words(target, self.name)))
        pool = SketchedCounts(self.buckets)
        for blocks in engine.map(
            lambda shard: [text.distinct() for text in self._blocks(shard)], candidates
        ):
            for found in blocks:
                pool.add(*found)
        if pool.total == 0:
            raise ValueError(f"{self.name}: no word in the candidates; are the texts empty?")
        kinds = pool.kinds  # counted once, not for every block

        def score(shard: Rows) -> np.ndarray:
            blocks = [self._score(block, pool, wanted, kinds) for block in self._blocks(shard)]
            return np.concatenate([np.empty(0), *blocks])

        diagnostics = {"target_words": wanted.total, "candidate_words": pool.total}
        return Scores(fill(out, engine.map(score, candidates)), diagnostics)

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of two passes over the candidates, and the counts."""
        return Work(texts=2 * n_candidates + n_targets, memory_bytes=3 * 4 * self.buckets)

    def _blocks(self, shard: Rows) -> Iterator[HashedWords]:
        """Yield the hashed words of a shard, some rows at a time."""
        for row in range(0, len(shard), BLOCK_ROWS):
            block = shard.slice(row, row + BLOCK_ROWS)
            yield HashedWords.of(words_of(block, self.name))

    def _score(
        self, text: HashedWords, pool: SketchedCounts, wanted: ExactCounts, kinds: int
    ) -> np.ndarray:
        """Compute the cross-entropy difference of each row.

        Args:
            text: The rows.
            pool: Counts of the pool.
            wanted: Counts of the target.
            kinds: Different words of the pool.
        """
        left, found = pool.words(text) - text.own_words(), wanted.words(text)
        p = (left + kinds / self.buckets) / (pool.total - text.lengths[text.rows] + kinds)
        q = (found + wanted.kinds * p) / (wanted.total + wanted.kinds)
        p_pair = pool.pairs(text) - text.own_pairs() + self.prior * p
        q_pair = wanted.pairs(text) + self.prior * q
        # The word before; of the first word of a text it is not used.
        p = np.where(text.first, p, p_pair / (np.roll(left, 1) + self.prior))
        q = np.where(text.first, q, q_pair / (np.roll(found, 1) + self.prior))
        sums = np.bincount(text.rows, np.log(p) - np.log(q), minlength=len(text.lengths))
        return np.divide(sums, text.lengths, out=np.full(len(sums), LAST), where=text.lengths > 0)
