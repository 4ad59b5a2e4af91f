"""Selection reports of records: today's names, and those of older records."""

import pytest

from gotd.reporting.cells import blocks
from gotd.reporting.selections import first_rows_table, overlap_table, selections_table

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
