"""Flags of degenerate selections: each fires where it should, and not beside its bound."""

import pytest

from gotd.selection_report.flags import EXPLAINED, distinct_texts, flags

GOOD = {
    "rows": 100,
    "distinct_rows": 100,
    "duplicate_texts": 0,
    "length_chars": {"selected": {"q50": 480.0}, "pool": {"q50": 490.0}},
    "domains": {"news": 60, "law": 40},
    "expected_domains": {"news": 10.0, "law": 5.0, "books": 85.0},
    "target_domains": None,
    "pool_rows": {"target": 50, "candidates": 2000},
    "unreadable_rows": {"target": 0, "candidates": 3},
}


def lengths(selected, pool=490.0):
    return {"selected": {"q50": selected}, "pool": {"q50": pool}}


def test_a_usual_selection_has_none():
    assert flags(GOOD) == {}


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"length_chars": lengths(12.0)}, "short"),
        ({"length_chars": lengths(244.9)}, "short"),
        ({"length_chars": lengths(245.0)}, None),
        ({"duplicate_texts": 11}, "repeated"),
        ({"duplicate_texts": 10}, None),
        ({"distinct_rows": 60}, "repeated"),
        ({"distinct_rows": 95, "duplicate_texts": 6}, "repeated"),
        ({"unreadable_rows": {"target": 6, "candidates": 0}}, "unreadable"),
        ({"unreadable_rows": {"target": 5, "candidates": 200}}, None),
        ({"unreadable_rows": {"target": 0, "candidates": 201}}, "unreadable"),
        ({"domains": {"news": 90, "law": 10}}, "one domain"),
        ({"domains": {"news": 89, "law": 11}}, None),
        ({"domains": {"books": 100}}, None),  # the pool is of books, too
        ({"domains": {"news": 95}, "target_domains": {"news": 0.9, "law": 0.1}}, None),
        ({"domains": {"news": 95}, "target_domains": {"news": 0.5, "law": 0.5}}, "one domain"),
    ],
)
def test_each_bound(change, flag):
    found = flags({**GOOD, **change})
    assert list(found) == ([] if flag is None else [flag])
    assert all(sentence.endswith(".") for sentence in found.values())


def test_the_sentences_have_the_numbers():
    report = {
        **GOOD,
        "length_chars": lengths(12.0),
        "duplicate_texts": 25,
        "unreadable_rows": {"target": 20, "candidates": 1500},
        "domains": {"news": 97, "law": 3},
        "target_domains": {"news": 0.5},
    }
    found = flags(report)
    assert list(found) == list(EXPLAINED)
    assert "12 characters, but 490 in the pool" in found["short"]
    assert "25 of 100 rows" in found["repeated"]
    assert "20 of 50 rows of the target and 1,500 of 2,000 rows of the" in found["unreadable"]
    assert "97 % of the rows are of news, which is 10 % of the pool and 50 %" in found["one domain"]


def test_older_reports_are_read_and_what_they_lack_is_not_looked_at():
    chars = {side: {"chars": of} for side, of in lengths(12.0).items()}
    assert list(flags({"rows": 9, "distinct_rows": 9, "lengths": chars})) == ["short"]
    assert flags({"rows": 9, "distinct_rows": 1}) == {}
    assert distinct_texts({"rows": 9, "distinct_rows": 1}) is None
    assert distinct_texts({"distinct_rows": 9, "duplicate_texts": 2}) == 7
