"""Hashes of the word n-grams of many texts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from gotd.data.unique_ids import hash_strings
from gotd.data.words import words

FACTOR = 0x9E3779B97F4A7C15
"""Odd, so that no word of an n-gram is lost; from Knuth's multiplicative hashing."""


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of some texts, text after text.

    Args:
        hashes: ``[k]`` uint64.
        text: ``[k]`` int64 number of each one's text.
        first_word: ``[k]`` int64 its first word, within the text.
        words: The words of each text.
    """

    hashes: np.ndarray
    text: np.ndarray
    first_word: np.ndarray
    words: list[list[str]]


def ngrams(texts: Sequence[str], n: int) -> Ngrams:
    """Hash the n-grams of words; a text of fewer words, but one, is one n-gram of all of them.

    Args:
        texts: Texts.
        n: Words of an n-gram.
    """
    found = [words(text) for text in texts]
    counts = np.array([len(each) for each in found], dtype=np.int64)
    codes, names = pd.factorize(np.array(list(chain.from_iterable(found)), dtype=object))
    hashes = hash_strings(names)[codes] if len(names) else np.empty(0, np.uint64)
    # A short text is padded with words of hash 0 to one n-gram, so all are computed alike.
    padded = np.where(counts, np.maximum(counts, n), 0)
    starts, ends = np.cumsum(padded) - padded, np.cumsum(counts)
    line = np.zeros(int(padded.sum()), dtype=np.uint64)
    within = np.arange(len(hashes)) - np.repeat(ends - counts, counts)
    line[np.repeat(starts, counts) + within] = hashes
    per_text = np.where(counts, padded - n + 1, 0)
    text = np.repeat(np.arange(len(found)), per_text)
    first_word = np.arange(len(text)) - np.repeat(np.cumsum(per_text) - per_text, per_text)
    places = starts[text] + first_word
    total = np.zeros(len(text), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(n):
            total = total * np.uint64(FACTOR) + line[places + offset]
    return Ngrams(total, text, first_word, found)
