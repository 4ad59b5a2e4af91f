"""Figure 1: what a selection is worth in labels."""

import numpy as np
import pytest

from gotd.reporting.cells import blocks
from gotd.reporting.report import write_report
from gotd.reporting.sweeps import labels_table, sweeps

NEEDED = "labels without a selection"


@pytest.fixture
def swept(record):
    """Fine-tuning alone scores .1 * log2(labels / 100) + .5; a selection is worth 4 x labels."""
    records = []
    for labels in (100, 200, 400, 800):
        for arm, worth in (("none", 1), ("got_d", 4)):
            for seed in (1, 2, 3):
                score = 0.5 + 0.1 * np.log2(worth * labels / 100)
                variant = f"limits.labels={labels}"
                made = record("cola", arm, seed, score=score, experiment="labels", variant=variant)
                records.append({**made, "config": {"limits": {"labels": labels}}})
    return records


def test_the_table_reads_the_labels_off_the_curve_and_says_where_it_ends(swept):
    (sweep,) = sweeps(blocks(swept))
    table = labels_table(sweep)
    needed = {row[1]: row[table.columns.index(NEEDED)] for row in table.rows}
    assert needed == {
        "100": "400",
        "200": "800",
        "400": "more than 800",
        "800": "more than 800",
    }
    assert {row[0] for row in table.rows} == {"got_d"}


def test_rows_stand_by_the_number_of_labels(record):
    variants = [f"limits.labels={n}" for n in (1000, 250, 2000)]
    (block,) = blocks([record("cola", "none", 1, score=0.5, variant=v) for v in variants])
    assert [row.rpartition("=")[2] for row in block.arms] == ["250", "1000", "2000"]


def test_between_two_points_and_before_the_first(swept):
    def scored(value):
        rest = [r for r in swept if r["axes"]["arm"] == "none"]
        made = [r for r in swept if r["axes"]["arm"] == "got_d" and r["axes"]["seed"] == 1][:1]
        metrics = {**made[0]["metrics"], "headline": value}
        (sweep,) = sweeps(blocks([*rest, {**made[0], "metrics": metrics}]))
        ((*_, needed),) = labels_table(sweep).rows
        return needed

    assert scored(0.65) == "283"  # half way between 200 and 400 on a logarithmic scale
    assert scored(0.3) == "at most 100"


def test_the_report_has_the_figure_and_others_have_no_table(swept, make_records, tmp_path):
    written = write_report(swept, tmp_path, paper=None, command="labels")
    assert tmp_path / "figures" / "labels_labels.svg" in written
    assert sweeps(blocks(make_records(seeds=2))) == []
    budgets = [r for budget in (200, 400) for r in make_records(seeds=2, budget=budget)]
    (sweep,) = sweeps(blocks(budgets))
    assert labels_table(sweep) is None
