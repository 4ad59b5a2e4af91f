r"""Texts as counts of hashed n-grams, the features of DSIR.

A text is lower-cased, cut by the pattern ``\w+|[^\w\s]+`` (a run of word characters
or a run of punctuation), and every run of 1 to ``ngrams`` tokens falls into one of
``buckets``. Two hashes: ``Sha256Ngrams`` has the buckets of the published package,
``FastNgrams`` has its own and is compiled.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex

from gotd.selectors.ngram_kernel import code_points, read_rows

# Rows hashed together by Sha256Ngrams, so that an n-gram they share is hashed once.
BLOCK_ROWS = 4096

PATTERN = r"\w+|[^\w\s]+"


# The published tokeniser is that of the regex module, where combining marks are word
# characters; on ASCII the faster standard one agrees with it.
_tokens_ascii = re.compile(PATTERN, re.ASCII).findall
_tokens_any = regex.compile(PATTERN).findall


def tokenise(text: str) -> list[str]:
    """Return the tokens of a text, in lower case, as the published package does."""
    split = _tokens_ascii if text.isascii() else _tokens_any
    return split(text.lower())


@dataclass(frozen=True)
class HashedNgrams(ABC):
    """Counts of hashed n-grams, over all texts or weighted for each.

    Args:
        ngrams: Longest run of tokens.
        buckets: Number of buckets.
    """

    ngrams: int
    buckets: int

    def count(self, texts: pa.Array) -> np.ndarray:
        """Count n-grams per bucket over all texts: int64 ``[buckets]``."""
        return self.read(texts, np.zeros(self.buckets))[0]

    def score(self, texts: pa.Array, weights: np.ndarray) -> np.ndarray:
        """Sum ``weights[bucket]`` over the n-grams of each text: float64 ``[n]``."""
        return self.read(texts, np.ascontiguousarray(weights, dtype=np.float64))[1]

    @abstractmethod
    def read(self, texts: pa.Array, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return both, from one pass over the texts."""


class Sha256Ngrams(HashedNgrams):
    """The published features: bucket = SHA-256 of the joined tokens mod ``buckets``.

    Tokens become integers, and of each block of rows every distinct n-gram is joined
    and hashed once. Python runs it, so more engine workers do not make it faster.

    Source: Xie et al. (2023), DSIR; the package's hashing and tokeniser.
    """

    def read(self, texts: pa.Array, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return counts by bucket and sums of weights by text."""
        counts, scores = np.zeros(self.buckets, dtype=np.int64), np.zeros(len(texts))
        for start in range(0, len(texts), BLOCK_ROWS):
            rows = check_texts(texts.slice(start, BLOCK_ROWS)).to_pylist()
            bucket, row = self._block(rows)
            counts += np.bincount(bucket, minlength=self.buckets)
            sums = np.bincount(row, weights=weights[bucket], minlength=len(rows))
            scores[start : start + len(rows)] = sums
        return counts, scores

    def _block(self, rows: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Compute bucket and row of every n-gram, by length of the n-gram, then in text order."""
        tokens, row, words = self._tokens(rows)
        grams, distinct = tokens, words
        buckets, owners = [self._hash(words)[tokens]], [row]
        for n in range(1, self.ngrams):
            # The n-grams that can be made one token longer without leaving their row.
            starts = np.flatnonzero(row[n:] == row[: max(0, len(row) - n)])
            pairs = grams[starts] * len(words) + tokens[starts + n]
            unique, inverse = np.unique(pairs, return_inverse=True)
            heads, tails = np.divmod(unique, max(1, len(words)))
            distinct = [
                f"{distinct[head]} {words[tail]}"
                for head, tail in zip(heads.tolist(), tails.tolist(), strict=True)
            ]
            grams = np.zeros(len(tokens), dtype=np.int64)
            grams[starts] = inverse
            buckets.append(self._hash(distinct)[inverse])
            owners.append(row[starts])
        return np.concatenate(buckets), np.concatenate(owners)

    def _tokens(self, rows: list[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Tokenise; return all token numbers, the row of each token, and the words by number."""
        # Numbered in the order in which they are first seen.
        vocabulary: defaultdict[str, int] = defaultdict(count().__next__)
        numbers, lengths = [np.zeros(0, dtype=np.int64)], []
        for text in rows:
            words = tokenise(text)
            lengths.append(len(words))
            numbers.append(np.fromiter(map(vocabulary.__getitem__, words), np.int64, len(words)))
        owner = np.repeat(np.arange(len(rows)), np.array(lengths, dtype=np.int64))
        return np.concatenate(numbers), owner, list(vocabulary)

    def _hash(self, grams: list[str]) -> np.ndarray:
        buckets = (int.from_bytes(sha256(g.encode()).digest()) % self.buckets for g in grams)
        return np.fromiter(buckets, np.int64, len(grams))


class FastNgrams(HashedNgrams):
    """The same tokens, hashed by a compiled kernel over the Arrow buffer.

    Texts are compared in the composed normal form, which the published features do not have.
    Text that is not ASCII is decoded and classed by code point with the same pattern,
    so the tokens are those of ``Sha256Ngrams`` except for lower-casing that needs
    context or changes length (final sigma, dotted capital I), and for code points
    above U+1FFFF, which all count as letters. The buckets differ: compare rankings,
    never counts, across the two.
    """

    def read(self, texts: pa.Array, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return counts by bucket and sums of weights by text."""
        texts = composed(texts)
        return read_rows(*text_buffer(texts), *code_points(), self.ngrams, self.buckets, weights)


def composed(texts: pa.Array) -> pa.Array:
    """Return texts in the composed normal form (NFC), in which equal texts are equal bytes."""
    if texts.null_count or pc.all(pc.string_is_ascii(texts)).as_py() is not False:
        return texts
    return pc.utf8_normalize(texts, form="NFC")


def check_texts(texts: pa.Array) -> pa.Array:
    """Return the texts if none is missing.

    Raises:
        ValueError: If a text is null.
    """
    if texts.null_count:
        row = texts.is_null().to_pylist().index(True)
        raise ValueError(f"text of row {row} is missing; drop rows without a text")
    return texts


def text_buffer(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return an Arrow string array as UTF-8 bytes and int64 offsets, without a copy."""
    texts = check_texts(texts).cast(pa.large_string())
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data or b"", dtype=np.uint8), bounds
