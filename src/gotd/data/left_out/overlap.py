"""Rows that share word n-grams with test sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gotd.data.base import Part
from gotd.data.left_out.ngrams import ngrams
from gotd.data.left_out.record import OVERLAP, LeftOut

NGRAM_WORDS = 13
"""As in GPT-3 (Brown et al. 2020, App. C) and in lm-evaluation-harness."""


def leave_out_overlap(left_out: LeftOut, test_sets: Sequence[Part]) -> None:
    """Leave out rows with a word 13-gram of a test set.

    A test text of fewer words removes the rows that have the same words and no others.

    Args:
        left_out: The pool.
        test_sets: The texts; they are in memory as hashes, 16 bytes for each word.
    """
    hashes, names = _hashes(test_sets)
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    competes = left_out.competes
    for first, texts in left_out.texts():
        found = ngrams(texts, NGRAM_WORDS)
        place = np.minimum(np.searchsorted(hashes, found.hashes), len(hashes) - 1)
        hits = np.flatnonzero(hashes[place] == found.hashes)
        text, once = np.unique(found.text[hits], return_index=True)
        keep = competes[first + text]
        text, hits = text[keep], hits[once[keep]]
        because = []
        for number, hit in zip(text, hits, strict=True):
            start = found.first_word[hit]
            shared = " ".join(found.words[number][start : start + NGRAM_WORDS])
            because.append(f"{names[order[place[hit]]]} has: {shared}")
        left_out.add(first + text, OVERLAP, because)


def _hashes(test_sets: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all n-grams, and the id of each one's text."""
    hashes, names = [], []
    for part in test_sets:
        for table in part.pieces():
            found = ngrams(table["text"].to_pylist(), NGRAM_WORDS)
            ids = np.array([f"{part.label}: {name}" for name in table["id"].to_pylist()], object)
            hashes.append(found.hashes)
            names.append(ids[found.text])
    if not sum(map(len, hashes)):
        labels = ", ".join(part.label for part in test_sets)
        raise ValueError(f"no text of {labels} has a word; give other files to --exclude")
    return np.concatenate(hashes), np.concatenate(names)
