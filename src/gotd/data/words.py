"""Words of a text in any language, for features that count words.

Scripts that put spaces between words give words. Chinese, Japanese, Korean, Thai, Lao, Khmer,
Burmese and Tibetan text gives overlapping character n-grams, since a run of such characters
is a phrase or a sentence. An emoji is a word.
"""

from __future__ import annotations

import re
import unicodedata

import regex

# U+30FC lengthens a vowel in both kana scripts, so it has no script of its own.
_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
)
_runs = regex.compile(
    rf"(?P<unspaced>[{_UNSPACED}]+)|[[\w\p{{M}}]--[{_UNSPACED}]]+|\p{{Extended_Pictographic}}",
    regex.V1,
).finditer

# Latin, Greek and Cyrillic letters without combining marks, and general punctuation: here the
# standard module finds the same words five times as fast.
_is_simple = re.compile(
    "[\x00-\xa8\xaa-\xad\xaf-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u200b\u200e-\u203b\u203d\u203e\u2041-\u2048\u20a0-\u20cf]*"
).fullmatch
_simple_words = re.compile(r"\w+").findall

NGRAMS = (2, 3)
"""Lengths of the character n-grams of scripts without spaces."""


def words(text: str) -> list[str]:
    """Return the words of a text, in order, after NFKC normalisation and lower-casing.

    Args:
        text: Any text.

    Returns:
        Words, with their combining marks; of a run of characters of a script without
        spaces its character n-grams of `NGRAMS`, or the run itself if it is shorter.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.lower()
    if _is_simple(text):
        return _simple_words(text)
    found = []
    for match in _runs(text):
        run = match.group()
        if match["unspaced"] is None or len(run) < min(NGRAMS):
            found.append(run)
        else:
            found += [run[i : i + n] for n in NGRAMS for i in range(len(run) - n + 1)]
    return found
