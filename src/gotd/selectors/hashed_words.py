"""Counts of words and of pairs of words: exact for a target, in hash buckets for a pool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from zlib import crc32

import numpy as np

MOST_BUCKETS = 1 << 32

MOST_WORDS = (1 << 32) - 1
"""What a count holds."""

# SplitMix64: its finaliser spreads keys, which are alike for similar words, over all bits, and
# its increment gives further hashes.
_SHIFTS, _PRIMES = (30, 27, 31), (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_INCREMENT = 0x9E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class HashedWords:
    """The words of some rows, end to end, and each with the word before it as a pair.

    Args:
        words: ``[k]`` uint64 key of each word, 32 bits.
        pairs: ``[k]`` uint64 key of each pair; of no meaning for the first word of a row.
        first: ``[k]`` bool, whether it is the first word of its row.
        rows: ``[k]`` int64 row of each word.
        lengths: ``[n]`` int64 words of each row.
    """

    words: np.ndarray
    pairs: np.ndarray
    first: np.ndarray
    rows: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[list[str]]) -> HashedWords:
        """Hash the words of rows, given as the words of each."""
        held = list(rows)
        lengths = np.fromiter(map(len, held), np.int64, len(held))
        found = map(_Keys().__getitem__, chain.from_iterable(held))
        words = np.fromiter(found, np.uint64, int(lengths.sum()))
        first = np.zeros(len(words), dtype=bool)
        first[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        pairs = np.roll(words, 1) << np.uint64(32) | words
        return cls(words, pairs, first, np.repeat(np.arange(len(held)), lengths), lengths)

    def distinct(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the distinct words, how often each occurs, and the same of pairs."""
        words, n_words = np.unique(self.words, return_counts=True)
        pairs, n_pairs = np.unique(self.pairs[~self.first], return_counts=True)
        return words, n_words, pairs, n_pairs

    def own_words(self) -> np.ndarray:
        """Count, ``[k]``, how often each word occurs in its row."""
        return self._within(self.words, np.ones(len(self.words)))

    def own_pairs(self) -> np.ndarray:
        """Count, ``[k]``, how often each pair occurs in its row."""
        return self._within(self.pairs, ~self.first)

    def _within(self, keys: np.ndarray, counted: np.ndarray) -> np.ndarray:
        distinct, number = np.unique(keys, return_inverse=True)
        _, place = np.unique(self.rows * len(distinct) + number, return_inverse=True)
        return np.bincount(place, counted)[place]


class ExactCounts:
    """Counts of the words and pairs of a target.

    Args:
        text: The target.
    """

    def __init__(self, text: HashedWords) -> None:
        self._words, self._n_words, self._pairs, self._n_pairs = text.distinct()
        self.total, self.kinds = len(text.words), len(self._words)

    def words(self, text: HashedWords) -> np.ndarray:
        """Return ``[k]`` counts of the words of a text."""
        return _look_up(self._words, self._n_words, text.words)

    def pairs(self, text: HashedWords) -> np.ndarray:
        """Return ``[k]`` counts of the pairs of a text."""
        return _look_up(self._pairs, self._n_pairs, text.pairs)


class SketchedCounts:
    """Counts of the words and pairs of a pool in memory that does not grow with it.

    A count is too large where keys share a bucket. There are many more pairs than words, so
    a pair has a bucket in each of two tables, and the smaller count is used.

    Args:
        buckets: Buckets of each of the three tables.

    Source: Cormode and Muthukrishnan (2005), the count-min sketch.
    """

    def __init__(self, buckets: int) -> None:
        self._tables = [np.zeros(buckets, dtype=np.uint32) for _ in range(3)]
        self.total = 0

    @property
    def kinds(self) -> int:
        """Return the number of different words, less those that share a bucket."""
        return int(np.count_nonzero(self._tables[0]))

    def add(
        self, words: np.ndarray, n_words: np.ndarray, pairs: np.ndarray, n_pairs: np.ndarray
    ) -> None:
        """Add what `HashedWords.distinct` returned.

        Raises:
            ValueError: If there are more words than a count holds.
        """
        self.total += int(n_words.sum())
        if self.total > MOST_WORDS:
            raise ValueError(f"the pool has more than {MOST_WORDS:,} words; divide it")
        for table, (keys, n) in enumerate([(words, n_words), (pairs, n_pairs), (pairs, n_pairs)]):
            buckets = bucket(keys, len(self._tables[table]), table)
            np.add.at(self._tables[table], buckets, n.astype(np.uint32))

    def words(self, text: HashedWords) -> np.ndarray:
        """Return ``[k]`` counts of the words of a text."""
        return self._count(0, text.words)

    def pairs(self, text: HashedWords) -> np.ndarray:
        """Return ``[k]`` counts of the pairs of a text."""
        return np.minimum(self._count(1, text.pairs), self._count(2, text.pairs))

    def _count(self, table: int, keys: np.ndarray) -> np.ndarray:
        return self._tables[table][bucket(keys, len(self._tables[table]), table)].astype(np.float64)


def bucket(keys: np.ndarray, buckets: int, number: int = 0) -> np.ndarray:
    """Hash uint64 keys into ``[0, buckets)``.

    Args:
        keys: ``[k]`` uint64.
        buckets: How many; `MOST_BUCKETS` at most.
        number: Which of several independent hashes.
    """
    keys = keys + np.uint64(number * _INCREMENT & (1 << 64) - 1)
    for shift, prime in zip(_SHIFTS, _PRIMES, strict=False):
        keys = (keys ^ keys >> np.uint64(shift)) * np.uint64(prime)
    keys = keys ^ keys >> np.uint64(_SHIFTS[-1])
    return (keys >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)


class _Keys(dict[str, int]):
    """Keys of words, each computed once."""

    def __missing__(self, word: str) -> int:
        self[word] = key = crc32(word.encode())
        return key


def _look_up(keys: np.ndarray, counts: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if not len(keys):  # a target of single words has no pair
        return np.zeros(len(wanted))
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, counts[place], 0.0)
