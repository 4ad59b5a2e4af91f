"""Chunks: nothing lost, nothing empty, nothing too long, ids unique."""

import sys

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd.data.base import SCHEMA
from gotd.data.chunking import MIXED, fixed_chunks

TEXTS = st.lists(st.text(alphabet="ab \n\u00a0é漢", max_size=60), max_size=12)


def docs(texts: list[str], domains: list[str | None] | None = None) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([f"d{i}" for i in range(len(texts))], pa.string()),
            "text": pa.array(texts, pa.string()),
            "domain": pa.array(domains or ["x"] * len(texts), pa.string()),
        }
    )


def chunk(
    documents: pa.Table,
    length_chars: int = 1000,
    separator: str = " ",
    min_chars: int = 0,
    dropped: list[None] | None = None,
) -> pa.Table:
    count = (lambda: None) if dropped is None else (lambda: dropped.append(None))
    tables = list(fixed_chunks([documents], length_chars, separator, min_chars, count))
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def texts_of(table: pa.Table) -> list[str]:
    return table["text"].to_pylist()


def letters(texts: list[str]) -> str:
    return "".join("".join(texts).split())


@settings(max_examples=200, deadline=None)
@given(texts=TEXTS, length=st.integers(1, 40), separator=st.sampled_from([" ", ""]))
def test_fixed_chunks_lose_nothing_and_fit(texts, length, separator):
    chunks = chunk(docs(texts), length_chars=length, separator=separator)
    assert letters(texts_of(chunks)) == letters(texts)
    assert all(text.strip() and len(text) <= length for text in texts_of(chunks))
    names = chunks["id"].to_pylist()
    assert len(set(names)) == len(names)


WORDS = st.lists(st.text(alphabet="ab", min_size=1, max_size=6), max_size=12).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(WORDS, max_size=6), length=st.integers(6, 20))
def test_no_word_is_cut_that_fits(texts, length):
    chunks = chunk(docs(texts), length_chars=length)
    assert " ".join(texts_of(chunks)).split() == " ".join(texts).split()


def test_short_texts_are_joined_as_long_as_they_fit():
    chunks = chunk(docs(["aaa", "bbb", "ccc", "ddd"]), length_chars=7)
    assert texts_of(chunks) == ["aaa bbb", "ccc ddd"]
    assert chunks["id"].to_pylist() == ["d0#0", "d2#0"]


def test_published_joining_glues_words_together():
    assert texts_of(chunk(docs(["aaa", "bbb"]), separator="")) == ["aaabbb"]


def test_long_texts_are_cut_at_the_last_white_space_that_fits():
    chunks = chunk(docs(["one two three four"]), length_chars=9)
    assert texts_of(chunks) == ["one two", "three", "four"]
    assert chunks["id"].to_pylist() == ["d0#0", "d0#1", "d0#2"]
    for length in (7, 8):
        chunks = chunk(docs(["one two three"]), length_chars=length)
        assert texts_of(chunks) == ["one two", "three"]


def test_a_text_without_white_space_is_cut_hard():
    assert texts_of(chunk(docs(["a" * 25]), length_chars=10)) == [
        "a" * 10,
        "a" * 10,
        "a" * 5,
    ]


def test_what_was_cut_apart_stays_apart():
    chunks = chunk(docs(["one two"]), length_chars=6, separator="")
    assert texts_of(chunks) == ["one", "two"]


def test_the_tail_of_a_long_text_is_joined_to_the_next():
    chunks = chunk(docs(["one two three", "four"]), length_chars=10)
    assert texts_of(chunks) == ["one two", "three four"]
    assert chunks["id"].to_pylist() == ["d0#0", "d0#1"]


# Least length --------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    texts=TEXTS,
    length=st.integers(1, 40),
    least=st.floats(0, 1),
    separator=st.sampled_from([" ", ""]),
)
def test_no_chunk_is_shorter_than_the_least_length_and_what_is_lost_is_counted(
    texts, length, least, separator
):
    min_chars, dropped = round(least * length), []
    chunks = chunk(docs(texts), length, separator, min_chars, dropped)
    found = texts_of(chunks)
    assert all(min_chars <= len(text) <= length for text in found)
    assert len(set(chunks["id"].to_pylist())) == len(found)
    lost = len(letters(texts)) - len(letters(found))
    assert len(dropped) <= lost <= len(dropped) * max(0, min_chars - 1)
    # Letters stay in order: those that are left are a subsequence.
    rest = iter(letters(texts))
    assert all(letter in rest for letter in letters(found))


def test_the_short_end_of_a_text_takes_the_beginning_of_the_next():
    texts = ["one two three", "four five six seven"]
    plain = chunk(docs(texts), length_chars=10)
    assert texts_of(plain) == ["one two", "three", "four five", "six seven"]
    chunks = chunk(docs(texts), length_chars=10, min_chars=6)
    assert texts_of(chunks) == ["one two", "three four", "five six"]
    assert chunks["id"].to_pylist() == ["d0#0", "d0#1", "d1#1"]


def test_a_short_text_that_nothing_follows_is_dropped_and_counted():
    dropped = []
    chunks = chunk(docs(["one two three", "four five six seven"]), 10, " ", 6, dropped)
    assert letters(texts_of(chunks)) == letters(["one two three four five six"])
    assert len(dropped) == 1
    assert texts_of(chunk(docs(["aaa"]), 10, min_chars=4)) == []


def test_a_short_text_before_a_word_that_leaves_no_room_is_dropped():
    dropped = []
    chunks = chunk(docs(["aa " + "b" * 10]), 10, " ", 5, dropped)
    assert texts_of(chunks) == ["b" * 10]
    assert len(dropped) == 1


def test_a_least_length_cuts_no_word_that_has_a_white_space_before_it():
    texts = ["word " * 21 + "end", "other " * 20]
    chunks = chunk(docs(texts), length_chars=50, min_chars=40)
    found, given_words = " ".join(texts_of(chunks)).split(), " ".join(texts).split()
    assert found == given_words[: len(found)]
    assert len(given_words) - len(found) < 8  # the last text is short


def test_lengths_are_more_equal_with_a_least_length():
    texts = ["word " * (100 + 7 * (i % 13)) for i in range(60)]
    spread = {}
    for min_chars in (0, 200, 360):
        lengths = np.array([len(t) for t in texts_of(chunk(docs(texts), 400, min_chars=min_chars))])
        spread[min_chars] = lengths.std() / lengths.mean()
    assert spread[0] > 2 * spread[200] > 2 * spread[360]


def test_the_domain_of_texts_that_a_least_length_joins_is_mixed():
    chunks = chunk(docs(["aaa", "bbbb bbbb"], ["x", "y"]), length_chars=8, min_chars=4)
    assert texts_of(chunks) == ["aaa bbbb", "bbbb"]
    assert chunks["domain"].to_pylist() == [MIXED, "y"]


def test_domain_is_kept_or_called_mixed_and_never_moves_a_cut():
    texts = ["aaa", "bbb", "ccc", "ddd", "eee", "fff"]
    domains = ["x", "x", "x", "y", None, None]
    chunks = chunk(docs(texts, domains), length_chars=7)
    assert chunks["domain"].to_pylist() == ["x", MIXED, None]
    assert texts_of(chunks) == texts_of(chunk(docs(texts), length_chars=7))


def test_ids_stay_apart_when_document_ids_look_like_chunk_ids():
    documents = pa.table({"id": ["a", "a#0"], "text": ["x" * 9, "y" * 9], "domain": ["d", "d"]})
    chunks = chunk(documents, length_chars=4)
    assert len(set(chunks["id"].to_pylist())) == chunks.num_rows == 6


def test_how_documents_are_grouped_in_tables_decides_nothing():
    documents = docs(["word " * (i % 40) for i in range(100)])
    split = [documents.slice(0, 7), documents.slice(7, 0), documents.slice(7)]
    assert pa.concat_tables(fixed_chunks(split, 50)).equals(chunk(documents, 50))


def test_no_documents_give_no_chunks():
    assert list(fixed_chunks([docs(["", " "])], 10)) == []


def test_work_is_linear_in_the_text():
    def calls(n: int) -> int:
        documents, counted = docs(["word " * 200] * n), 0

        def count(*_):
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            chunk(documents, length_chars=1000)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(2000) < 30 * calls(100)  # 20 if linear, 400 if quadratic
