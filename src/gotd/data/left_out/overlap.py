"""Rows that share word n-grams with test sets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from gotd.data.base import Part
from gotd.data.left_out.ngrams import ngrams
from gotd.data.left_out.record import OVERLAP, LeftOut
from gotd.data.text_alone import read_texts

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class WithoutOverlap:
    """The rows of a part that share no word 13-gram with a test set.

    Args:
        part: The part.
        test_set: The texts.
        rule: What they are, for the identity; JSON-able.
    """

    part: Part
    test_set: Part
    rule: dict[str, Any]

    @property
    def label(self) -> str:
        """Return the name of the part."""
        return self.part.label

    def identity(self) -> dict[str, Any]:
        """Return the identity of the part, with the rule."""
        return {**self.part.identity(), "without": self.rule}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the part's tables without such rows, and log how many there were."""
        left_out = rows = 0
        for table in self.part.pieces():
            found = ngrams(table["text"].to_pylist(), NGRAM_WORDS)
            shared = np.isin(found.hashes, self._sorted)
            keep = np.ones(table.num_rows, bool)
            keep[found.text[shared]] = False
            left_out, rows = left_out + int((~keep).sum()), rows + len(keep)
            yield table.filter(pa.array(keep))
        if left_out:
            log.warning(
                "%s: %s of %s rows share %d words in a row with the rows of %s, and are left out",
                self.label,
                f"{left_out:,}",
                f"{rows:,}",
                NGRAM_WORDS,
                self.test_set.label,
            )

    @cached_property
    def _sorted(self) -> np.ndarray:
        return np.unique(_hashes([self.test_set])[0])


def _hashes(test_sets: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of all n-grams, and the id of each one's text."""
    return read_texts(test_sets, _read_hashes)


def _read_hashes(test_sets: Sequence[Part]) -> tuple[np.ndarray, np.ndarray]:
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
