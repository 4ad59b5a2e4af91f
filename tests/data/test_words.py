"""Words of any script: what a reader calls a word, or n-grams where no blanks mark one."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd.data import words as module
from gotd.data.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n\u00a0\u3000", []),
        ("The cat, the CAT.", ["the", "cat", "the", "cat"]),
        ("don't it\u2019s", ["don", "t", "it", "s"]),
        ("snake_case x2 3.5", ["snake_case", "x2", "3", "5"]),
        ("Straße Ærø naïve", ["straße", "ærø", "naïve"]),
        ("e\u0301te\u0301", ["été"]),
        ("ﬁne ＡＢＣ　１２", ["fine", "abc", "12"]),
        ("Привет, мир! Γειά σου", ["привет", "мир", "γειά", "σου"]),
        ("中", ["中"]),
        ("中文", ["中文"]),
        ("我爱你。", ["我爱", "爱你", "我爱你"]),
        ("コーヒー", ["コー", "ーヒ", "ヒー", "コーヒ", "ーヒー"]),
        ("ｺｰﾋｰ", ["コー", "ーヒ", "ヒー", "コーヒ", "ーヒー"]),
        ("か\u309aき", ["か\u309a", "\u309aき", "か\u309aき"]),
        ("か\u3099", ["が"]),
        ("한국어 말", ["한국", "국어", "한국어", "말"]),
        ("น้ำ", ["น\u0e49", "\u0e49\u0e4d", "\u0e4dา", "น\u0e49\u0e4d", "\u0e49\u0e4dา"]),
        ("ລາວ", ["ລາ", "າວ", "ລາວ"]),
        ("مرحبا بالعالم، كِتَابٌ", ["مرحبا", "بالعالم", "كِتَابٌ"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("हिन्दी में क्\u200dष।", ["हिन्दी", "में", "क्\u200dष"]),
        ("שָׁלוֹם", ["ש\u05b8\u05c1לו\u05b9ם"]),
        ("I love 🐶🐱", ["i", "love", "🐶", "🐱"]),
        ("❤\ufe0f 👍🏽", ["❤", "👍"]),
        ("👨\u200d👩\u200d👧", ["👨", "👩", "👧"]),
        ("🇩🇪🇫🇷", ["🇩🇪", "🇫🇷"]),
        ("GPU搭載のPC", ["gpu", "搭載", "載の", "搭載の", "pc"]),
        ("5㎏の米", ["5kg", "の米"]),
        ("!!! \u2026 \u2013 $ + \u200b", []),
        ("\u0301 \ufe0f \u200d", []),
        ("İ", ["i\u0307"]),
    ],
)
def test_words_of(text, expected):
    assert words(text) == expected


def test_both_ways_give_the_same_words_of_every_character():
    """The fast way may read a character only if it finds what the other way finds."""
    taken = 0
    for code in range(sys.maxunicode + 1):
        character = unicodedata.normalize("NFKC", chr(code)).lower()
        for text in (character, f"a{character}b", f" {character}{character} "):
            if module._is_simple(text):
                taken += 1
                by_runs = [run.group() for run in module._runs(text)]
                assert module._simple_words(text) == by_runs, hex(code)
    assert taken > 3 * 2000


@settings(deadline=None)
@given(st.text())
def test_words_come_from_the_normalised_text(text):
    normal = unicodedata.normalize("NFKC", text).lower()
    for word in words(text):
        assert word
        assert word in normal


@settings(deadline=None)
@given(st.text(), st.text())
def test_a_blank_ends_every_word(one, other):
    assert words(f"{one} {other}") == words(one) + words(other)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="ascii")))
def test_ascii_text_is_not_normalised_but_reads_the_same(text):
    assert words(text) == [run.group() for run in module._runs(text.lower())]
