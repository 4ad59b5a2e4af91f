"""The first sentences of a report say what was chosen, beside what, and what looks wrong."""

from __future__ import annotations

import pytest

from gotd.selection_report.opening import NOTHING_WRONG, opening

MANIFEST = {
    "request": {"method": "got_d"},
    "rows": {"target": 30, "candidates": 2000},
    "diagnostics": {"converged": True},
}
SUMMARY = {
    "rows": 100,
    "distinct_rows": 100,
    "duplicate_texts": 0,
    "domains": {"news": 60, "law": 39, "art": 1},
    "expected_domains": {"news": 10.0, "law": 5.0, "art": 85.0},
    "coverage": {"mean_distance": 0.6, "mean_distance_random": 0.8, "share_nearer": 0.9},
    "length_chars": {"selected": {"q05": 90.0, "q50": 480.0}, "pool": {"q50": 490.0}},
    "targets": None,
    "flags": {},
}


def test_a_usual_selection():
    assert opening(MANIFEST, SUMMARY) == [
        "got_d chose 100 of 2,000 candidates for 30 target texts, from news (60 %), law (39 %), "
        "art (1 %).",
        "Beside a random choice of as many rows: target texts are 25 % nearer to their nearest "
        "chosen row, and 90 % of them are nearer; news has 6.0 times as many rows; the median "
        "length is 480 characters (490 in the pool).",
        NOTHING_WRONG,
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"duplicate_texts": 1}, "1 rows repeat the text of another one"),
        ({"distinct_rows": 98}, "2 rows repeat"),
        ({"target_copies": 3}, "3 rows have the same text as a target"),
        ({"flags": {"one domain": "x"}}, "nearly all rows come from one domain"),
        ({"flags": {"short": "x"}}, "much shorter than the pool's"),
        ({"flags": {"unreadable": "x"}}, "cannot read a large part"),
        ({"targets": {"targets": 8, "starved_targets": 3}}, "3 of 8 target texts are hardly"),
        (
            {"length_chars": {"selected": {"q05": 19.0, "q50": 30.0}, "pool": {"q50": 40.0}}},
            "5 % of the rows or more have fewer than 20 characters",
        ),
    ],
)
def test_what_looks_wrong_is_named(change, says):
    concern = opening(MANIFEST, SUMMARY | change)[2]
    assert concern.startswith("Look at this: ")
    assert says in concern


def test_what_is_within_its_bound_is_not_named():
    change = {"targets": {"targets": 8, "starved_targets": 2}}
    assert opening(MANIFEST, SUMMARY | change)[2] == NOTHING_WRONG
    assert "not converged" in opening(MANIFEST | {"diagnostics": {"converged": False}}, SUMMARY)[2]


def test_without_embeddings_or_domains_the_rest_is_said():
    change = {"coverage": None, "domains": {"a": 100}, "expected_domains": {"a": 100.0}}
    said = opening(MANIFEST, SUMMARY | change)[1]
    assert said == (
        "Beside a random choice of as many rows: the median length is 480 characters "
        "(490 in the pool)."
    )
