"""The table of a paper: every published row, ours beside it, and a status that is true."""

from pathlib import Path

import pytest

from gotd.reporting.cells import blocks
from gotd.reporting.paper_rows import paper_table
from gotd.reporting.published import read_published
from gotd.selectors.registry import arm_of

PAPER = Path(__file__).parents[2] / "results/paper"


@pytest.fixture(scope="module")
def published():
    return read_published(PAPER)


def rows_of(published, records):
    table = paper_table(published, blocks(records))
    return {row[:3]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def at_paper(make_records, labels, **fields):
    records = make_records(seeds=3, scale="paper", source="hub", **fields)
    return [{**r, "config": {"limits": {"labels": labels}}} for r in records]


def test_every_published_method_and_setting_has_one_row(published):
    rows = rows_of(published, [])
    expected = {
        (str(entry.table), entry.block, entry.row)
        for entry in published
        if arm_of(entry.row) != "none"
    }
    assert set(rows) == expected
    assert {row["status"] for row in rows.values()} == {"never run"}
    assert not any(row[c] for row in rows.values() for c in row if c.startswith("here"))


def test_a_published_gain_is_the_printed_number_minus_the_printed_base(published):
    rows = rows_of(published, [])
    printed = {(e.table, e.block, e.row, e.column): float(e.mean) for e in published}
    for (table, block, method), base in (
        ((4, "5k", "GOT-D"), "BERT_vanilla"),
        ((2, "150k", "DSIR"), "BERT_vanilla"),
    ):
        row = rows[str(table), block, method]
        at = printed[table, block, method, row["number"]]
        assert float(row["gain"]) == pytest.approx(at - printed[table, block, base, row["number"]])


def test_ours_is_paired_by_seed_and_its_status_says_what_ran(published, make_records):
    arms = ("none", "got_d", "curated_tapt")
    folder = make_records(seeds=3, scale="folder", source="folder", arms=arms)
    rows = rows_of(published, folder)
    of = {r["axes"]["arm"]: {} for r in folder}
    for record in folder:
        of[record["axes"]["arm"]].setdefault(record["axes"]["seed"], []).append(
            record["metrics"]["headline"]
        )
    by_seed = [
        sum(of["got_d"][seed]) / len(of["got_d"][seed])
        - sum(of["none"][seed]) / len(of["none"][seed])
        for seed in of["none"]
    ]
    row = rows["4", "5k", "GOT-D"]
    assert row["status"] == "stand-in"
    assert float(row["here, real rows"].split(" ")[0]) == pytest.approx(
        100 * sum(by_seed) / len(by_seed), abs=0.006
    )
    assert not row["here, generated"]
    assert not row["here, paper's setting"]
    # The published selection of curated TAPT repeats rows: ours, with distinct ones, is marked.
    assert rows["4", "5k", "TAPT/c"]["here, real rows"].endswith(" *")


def test_generated_worlds_are_in_a_column_of_their_own(published, make_records):
    arms = ("none", "got_d", "curated_tapt")
    rows = rows_of(published, make_records(seeds=3, arms=arms))
    for method in ("GOT-D", "TAPT/c"):
        row = rows["4", "5k", method]
        assert row["status"] == "generated"
        assert row["here, generated"]
        assert not row["here, real rows"]


def test_a_run_at_the_papers_setting_is_beside_that_setting_alone(published, make_records):
    records = at_paper(make_records, 5_000, budget=50_000, arms=("none", "got_d"))
    rows = rows_of(published, records)
    assert rows["4", "5k", "GOT-D"]["status"] == "run"
    assert rows["4", "5k", "GOT-D"]["here, paper's setting"]
    assert rows["4", "all", "GOT-D"]["status"] == "never run"
    assert rows["12", "20k", "GOT-D"]["status"] == "never run"
