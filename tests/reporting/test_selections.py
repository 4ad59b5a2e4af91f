"""Selection reports of records: today's names, and those of older records."""

import pytest

from gotd.reporting.cells import blocks
from gotd.reporting.selections import first_rows_table, overlap_table, selections_table
from gotd.reporting.tables import scores_table

COVERAGE = {"mean_distance": 0.7, "mean_distance_random": 0.735, "share_nearer": 0.67}
LENGTHS = [
    {"length_chars": {"selected": {"q50": 250.0}, "pool": {"q50": 256.0}}},
    {"lengths": {"selected": {"chars": {"q50": 250.0}}, "pool": {"chars": {"q50": 256.0}}}},
]


def with_selection(record, **fields):
    return {**record, "selection": {**record["selection"], **fields}}


@pytest.mark.parametrize("lengths", LENGTHS, ids=["today", "older"])
def test_both_names_of_the_lengths_are_read(record, lengths):
    one = with_selection(
        record("cola", "got_d", 1, score=0.5), coverage=COVERAGE, duplicate_texts=3, **lengths
    )
    (block,) = blocks([one])
    table = selections_table(block)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["median chars"], row["pool chars"], row["repeated texts"]) == ("250", "256", "3")
    assert (row["distance to target"], row["at random"]) == ("0.7", "0.735")
    assert row["nearer than random %"] == "67"
    assert row["largest marginal error"] == ""


AMOUNTS = {"trained_tokens": 2500, "updates": 40, "duplicate_texts": 4}


def test_tokens_updates_and_distinct_texts_are_shown_and_are_empty_for_older_records(record):
    new = with_selection(record("cola", "got_d", 1, score=0.5), **AMOUNTS)
    old = record("cola", "dsir", 1, score=0.4)
    for table in (selections_table(blocks([new, old])[0]), scores_table(blocks([new, old])[0])):
        assert {"tokens", "updates", "distinct texts"} <= set(table.columns)
        rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
        names = ("tokens", "updates", "distinct texts")
        rows_selected = new["selection"]["distinct_rows"]
        shown = [rows["got_d"][name].replace(",", "") for name in names]
        assert shown == ["2500", "40", str(rows_selected - 4)]
        assert [rows["dsir"][name] for name in names] == ["", "", ""]
        assert any("Tokens and updates" in note for note in table.notes)
    before = scores_table(blocks([old])[0])
    assert before.columns[-2:] == ("distinct / rows", "under-covered %")


def test_degenerate_selections_are_flagged_in_the_tables(record):
    short = {"length_chars": {"selected": {"q50": 12.0}, "pool": {"q50": 490.0}}}
    one = {"domains": {"news": 10}, "expected_domains": {"news": 1.0}, "rows": 10}
    records = [
        with_selection(record("cola", "dsir", 1, score=0.5), **short),
        with_selection(record("rte", "dsir", 1, score=0.5), **short, **one),
        with_selection(record("cola", "got_d", 1, score=0.5), **one),
    ]
    (block,) = blocks(records)
    table = selections_table(block)
    flagged = {row[0]: row[table.columns.index("flags")] for row in table.rows}
    assert flagged == {"dsir": "short (2), one domain (1)", "got_d": "one domain (1)"}
    notes = " ".join(table.notes)
    assert "Flag short (cells): the median length is below 0.5 of the pool's." in notes
    assert "Flag repeated" not in notes
    assert scores_table(block).notes[-1] == (
        "Degenerate selections, see Selections: dsir is short in 2 of 2 cells."
    )


def test_overlaps_are_a_mean_over_cells(record):
    records = [
        with_selection(record("cola", arm, seed, score=0.5), overlap={other: share})
        for arm, other in (("got_d", "dsir"), ("dsir", "got_d"))
        for seed, share in ((1, 0.2), (2, 0.4))
    ]
    (block,) = blocks(records)
    table = overlap_table(block)
    assert table.rows == (("dsir", "", "30"), ("got_d", "30", ""))


def test_the_first_rows_are_those_of_the_lowest_seed(record):
    records = [
        with_selection(
            record("cola", "got_d", seed, score=0.5),
            first_rows=[{"id": f"c{seed}", "domain": "d", "excerpt": "a &lt; b"}],
        )
        for seed in (10, 2)
    ]
    (block,) = blocks(records)
    assert first_rows_table(block).rows == (("cola", "got_d", "1", "c2", "d", "a < b"),)
    assert selections_table(blocks([record("cola", "none", 1, score=0.5)])[0]) is None
