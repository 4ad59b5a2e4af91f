"""The published quality filters of DSIR: which texts look like running text.

``paper`` is the filter of the paper's experiments, ``package`` that of ``data-selection``.
Tokens are those of the n-grams. The experiments used another tokeniser (``word_tokenize`` of
NLTK), which differs in contractions and numbers. So a text of one punctuation mark after the
other, which is one token here, counts as punctuation.

Source: Xie et al. (2023), App. on quality filtering, and the repository p-lambda/dsir.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from gotd.selectors.hashed_ngrams import check_texts, tokenise

PACKAGE_TOKENS = 100
"""Fewest tokens of a text that ``package`` passes."""

TOKENS = (40, 500)
REPEATED = (0.02, 0.2)
"""Share of the most frequent token."""
INFORMATIVE = (0.3, 0.7)
"""Share of the tokens that are neither a stop word nor punctuation."""
NOT_NUMERIC = 0.8
"""Share of the tokens that are no single digit, at least."""

STOP_WORDS = frozenset(
    """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself
    she her hers herself it its itself they them their theirs themselves what which who whom this
    that these those am is are was were be been being have has had having do does did doing a an
    the and but if or because as until while of at by for with about against between into through
    during before after above below to from up down in out on off over under again further then
    once here there when where why how all any both each few more most other some such no nor not
    only own same so than too very s t can will just don should now d ll m o re ve y ain aren
    couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn
    """.split()  # noqa: SIM905
)
"""English stop words as NLTK lists them, without those that have an apostrophe."""


def passes(texts: pa.Array, kind: Literal["paper", "package"]) -> np.ndarray:
    """Mark the texts that pass a filter.

    Args:
        texts: ``[n]`` texts.
        kind: Which filter.

    Returns:
        ``[n]`` bool.

    Raises:
        ValueError: If a text is missing.
    """
    passed = {"paper": _is_running_text, "package": _is_long}[kind]
    rows = (passed(tokenise(text)) for text in check_texts(texts).to_pylist())
    return np.fromiter(rows, bool, len(texts))


def _is_long(tokens: Sequence[str]) -> bool:
    return len(tokens) >= PACKAGE_TOKENS


def _is_running_text(tokens: Sequence[str]) -> bool:
    """Return whether length, repetition and the shares of kinds of tokens are within bounds."""
    n = len(tokens)
    if not TOKENS[0] < n < TOKENS[1]:
        return False
    counts = Counter(tokens)
    informative = sum(
        count
        for token, count in counts.items()
        if token not in STOP_WORDS and any(c.isalnum() or c == "_" for c in token)
    )
    digits = sum(counts[digit] for digit in "0123456789")
    return (
        REPEATED[0] < max(counts.values()) / n < REPEATED[1]
        and INFORMATIVE[0] < informative / n < INFORMATIVE[1]
        and 1 - digits / n > NOT_NUMERIC
    )
