"""The compiled loop behind ``FastNgrams``: UTF-8 bytes to n-gram buckets.

Rows are read straight from an Arrow buffer, the interpreter lock is released, and
nothing is allocated per row. Types are left to the compiler, hence no annotations.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import regex

from gotd.selectors.compiled import compiled

SPACE, WORD, PUNCTUATION = np.uint8(0), np.uint8(1), np.uint8(2)

# Code points with a class of their own: the basic plane and the one with emoji.
# All above count as letters; nearly all of them are Chinese characters.
TABLE_SIZE = 0x20000

# FNV-1a over code points, then the finaliser of MurmurHash3: FNV alone leaves the
# high bits, from which the bucket is taken, nearly constant for short words.
FNV_BASIS = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
GRAM_PRIME = np.uint64(0x9E3779B97F4A7C15)
MIX_PRIME = np.uint64(0xFF51AFD7ED558CCD)
SHIFT = np.uint64(32)


@cache
def code_points() -> tuple[np.ndarray, np.ndarray]:
    """Compute the class and the lower case of every code point: uint8 and uint64."""
    characters = "".join(map(chr, range(TABLE_SIZE)))
    kind = np.full(TABLE_SIZE, PUNCTUATION, dtype=np.uint8)
    for pattern, value in ((r"\w+", WORD), (r"\s+", SPACE)):
        for match in regex.finditer(pattern, characters):
            kind[match.start() : match.end()] = value
    lower = np.arange(TABLE_SIZE, dtype=np.uint64)
    for point, character in enumerate(characters):
        lowered = character.lower()
        if len(lowered) == 1:
            lower[point] = ord(lowered)
    return kind, lower


@compiled(nogil=True)
def row_buckets(data, start, stop, kind, lower, ngrams, buckets, history, found):
    """Write the buckets of one text into ``found`` and return their number.

    ``history[k]`` is the hash of the token ``k`` places back. The step at ``stop``
    acts as a space, so that the last token ends like any other.
    """
    n_found = 0
    n_tokens = 0
    current = SPACE
    token = FNV_BASIS
    position = start
    while position <= stop:
        this = SPACE
        unit = np.uint64(0)
        width = 1
        if position < stop:
            byte = data[position]
            point = np.int64(byte)
            if byte >= 0xC0:  # the first of several bytes
                width = 2 + (byte >= 0xE0) + (byte >= 0xF0)
                point = np.int64(byte & (0x7F >> width))
            for extra in range(1, width):
                point = (point << 6) | np.int64(data[position + extra] & 0x3F)
            if point < TABLE_SIZE:
                this = kind[point]
                unit = lower[point]
            else:
                this = WORD
                unit = np.uint64(point)
        if this != current:
            if current != SPACE:
                for back in range(min(n_tokens, ngrams - 1), 0, -1):
                    history[back] = history[back - 1]
                history[0] = token
                n_tokens += 1
                gram = np.uint64(0)
                for back in range(min(n_tokens, ngrams)):
                    gram = gram * GRAM_PRIME + history[back]
                    mixed = (gram ^ (gram >> SHIFT)) * MIX_PRIME
                    mixed ^= mixed >> SHIFT
                    found[n_found] = np.int64(((mixed >> SHIFT) * np.uint64(buckets)) >> SHIFT)
                    n_found += 1
            token = FNV_BASIS
            current = this
        token = (token ^ unit) * FNV_PRIME
        position += width
    return n_found


@compiled(nogil=True)
def read_rows(data, offsets, kind, lower, ngrams, buckets, weights):
    """Count the n-grams of all rows per bucket, and sum their buckets' weights by row."""
    longest = np.int64(0)
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    history, found = np.zeros(ngrams, np.uint64), np.empty(ngrams * (longest + 1), np.int64)
    counts, scores = np.zeros(buckets, np.int64), np.zeros(len(offsets) - 1, np.float64)
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        n_found = row_buckets(data, start, stop, kind, lower, ngrams, buckets, history, found)
        for bucket in found[:n_found]:
            counts[bucket] += 1
            scores[row] += weights[bucket]
    return counts, scores
