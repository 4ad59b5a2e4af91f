"""Texts of others are code in a report: shown as they are, and never interpreted."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.rendered import elements, interpreted

from gotd.selection_report.markdown import card, cell, code, report, section
from gotd.selection_report.measures import excerpt

SIGNS = st.text(st.sampled_from("`|\\<>&*_[]!()# ax\n\t~$"), max_size=30)


@settings(max_examples=200, deadline=None)
@given(SIGNS, SIGNS)
def test_any_text_is_one_piece_of_code_that_reads_as_it_is(one, other):
    expected = [text for text in (excerpt(one), excerpt(other)) if text]
    table = section("", ("a", "b"), [(cell(one), cell(other))])
    line = f"We write {code(one)} and {code(other)} here."
    for page in (table, line):
        found = elements(page)
        assert [content for kind, content in found if kind == "code_inline"] == expected
        assert not interpreted(page)
    assert sum(kind == "td_open" for kind, _ in elements(table)) == 2


def manifest(**more: Any) -> dict[str, Any]:
    return {
        "request": {
            "method": "got_d",
            "encoder": "tfidf_svd",
            "seed": 0,
            "unit": "whole",
            "min_chars": 0,
            "leave_out": {"where": "stars > 2 and a_b == 'x|y'"},
        },
        "command": "gotd select --out 'a`b  c\nd'",
        "rows": {"candidates": 20_000, "target": 30},
        "competing_rows": 9_113,
        "blank_rows": {},
        "short_rows": {},
        "unreadable_rows": {},
        "left_out_rows": {"filtered": 10_887},
        "diagnostics": {"solver": "semidual", "converged": True, "own_value": 3, "list": [1]},
        "steps": [],
        "peak_memory_gib": 0.5,
        "columns": ["text", "gotd_score"],
        "versions": {"gotd": "1"},
        "inputs": {"candidates": [{"file": "a_b.jsonl"}], "target": [{"file": "t"}]},
        **more,
    }


def summary(domains: dict[str, int], **more: Any) -> dict[str, Any]:
    first = {"rank": 1, "domain": "a_b", "score": 0.5, "excerpt": "x &gt; 3 &amp; got_d"}
    return {
        "rows": 90,
        "distinct_rows": 90,
        "duplicate_texts": 0,
        "domains": domains,
        "expected_domains": dict.fromkeys(domains, 9.0),
        "target_domains": None,
        "length_chars": {"selected": {"q05": 90.0, "q50": 480.0}, "pool": {"q50": 490.0}},
        "coverage": None,
        "proven": {"rows": 90, "share": 1.0, "left": 0, "ties": 0},
        "targets": None,
        "flags": {},
        "first_rows": [first],
        **more,
    }


def test_words_and_names_read_naturally():
    page = report(manifest(), {90: summary({"a_b": 80, "<b>": 10})})
    assert "\\" not in page.replace("'a`b  c\\nd'", "")  # typed with a line break
    assert "&gt;" not in page
    assert "`x > 3 & got_d`" in page
    assert "| `<b>` | 10 |" in page
    assert "(not `stars > 2 and a_b == 'x|y'`)" in page
    assert "``gotd select --out 'a`b  c\\nd'``" in page


def test_both_numbers_of_candidates_are_said():
    page = report(manifest(), {90: summary({"a": 90})})
    assert "`got_d` chose 90 of 9,113 candidates that competed (20,000 were read) for 30" in page
    assert "20,000 candidates were read, of which 9,113 competed" in page
    said = card(manifest(), {90: summary({"a": 90})}, {90: "a: b.jsonl"}, None)
    assert "90 of 9,113 passages that competed (20,000 were read)" in said
    assert 'data_files: "a: b.jsonl"' in said


def test_one_domain_has_no_table_of_domains():
    assert "## By domain" not in report(manifest(), {90: summary({"a": 90})})
    assert "## By domain" in report(manifest(), {90: summary({"a": 90, "b": 0})})


def test_values_have_their_meaning_and_a_proof_is_explained():
    page = report(manifest(), {90: summary({"a": 90})})
    assert "| value | is | meaning |" in page
    assert "| `solver` | `semidual` | how the transport problem was solved |" in page
    assert "| `own_value` | 3 |  |" in page
    assert page.index("Proven means: ") < page.index("100.00 % are proven")
    assert "Proven" not in report(manifest(), {90: summary({"a": 90}, proven=None)})


def test_a_flag_names_its_domain_as_code():
    chosen = summary({"<i>": 90, "b": 0}, expected_domains={"<i>": 9.0, "b": 81.0})
    page = report(manifest(), {90: chosen})
    assert "100 % of the rows are of `<i>`, which" in page
    assert not interpreted(page)
