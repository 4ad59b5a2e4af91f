"""One table for every pair of axes that vary, and a curve along every axis of numbers."""

import numpy as np
import pandas as pd
import pytest

from gotd.reporting.cells import average_interval, blocks
from gotd.reporting.report import console_table, write_report
from gotd.reporting.sweeps import averages, curve_figures, sweep_tables, sweeps

ARMS = ("none", "random", "got_d")


@pytest.fixture
def grid(make_records):
    """Draw budgets x models: selector=none,random,got_d budget=100,400 model=small,large."""
    return [
        record
        for budget in (100, 400)
        for model in ("small", "large")
        for record in make_records(3, budget, arms=ARMS, tasks=("cola", "sst2"), model=model)
    ]


def tables_of(records):
    (sweep,) = sweeps(blocks(records))
    return {table.title: table for table in sweep_tables(sweep)}


def cell(table, row, column):
    (line,) = [row_ for row_ in table.rows if row_[0] == row]
    return line[table.columns.index(column)]


def test_every_pair_of_axes_has_one_table(grid):
    tables = tables_of(grid)
    assert list(tables) == [
        "Scores by arm and budget",
        "Scores by arm and model",
        "Scores by budget and model",
    ]
    first = tables["Scores by arm and budget"]
    assert first.columns == ("arm", "budget 100", "budget 400")
    assert [row[0] for row in first.rows] == list(ARMS)
    assert all("±" in text for row in first.rows for text in row[1:])
    assert "model large, small; task cola, sst2" in first.notes[0]


def test_an_average_is_over_tasks_and_the_other_axis_within_a_seed(grid):
    scores = [
        np.mean([
            r["metrics"]["headline"]
            for r in grid
            if (r["axes"]["arm"], r["axes"]["budget"], r["axes"]["seed"]) == ("got_d", 400, seed)
        ])
        for seed in (1, 2, 3)
    ]  # fmt: skip
    text = cell(tables_of(grid)["Scores by arm and budget"], "got_d", "budget 400")
    assert float(text.split(" ")[0]) == pytest.approx(100 * np.mean(scores), abs=0.051)


def test_an_arm_that_an_axis_does_not_concern_is_in_every_column_but_in_no_average(grid):
    tables = tables_of(grid)
    first = tables["Scores by arm and budget"]
    assert cell(first, "none", "budget 100") == cell(first, "none", "budget 400")
    assert "arm random, got_d;" in tables["Scores by budget and model"].notes[0]


def test_only_settings_that_all_cells_have_are_averaged(grid):
    """One task more at one budget must not shift that budget's average."""
    extra = [r for r in grid if r["axes"]["budget"] != 100 or r["axes"]["task"] == "cola"]
    table = tables_of(extra)["Scores by arm and budget"]
    assert "task cola." in table.notes[0]
    cola = [r for r in grid if r["axes"]["task"] == "cola"]
    assert table.rows == tables_of(cola)["Scores by arm and budget"].rows


def test_settings_without_a_common_part_have_no_table(make_records):
    records = [
        *make_records(2, 100, arms=("got_d",), tasks=("cola",)),
        *make_records(2, 400, arms=("got_d",), tasks=("sst2",)),
    ]
    assert tables_of(records) == {}
    assert averages(pd.DataFrame(), ("arm",), ("task",)) == ({}, {})


def test_a_failed_cell_takes_its_seed_out_of_the_average(grid, failed):
    hit = next(i for i, r in enumerate(grid) if r["axes"]["arm"] == "got_d")
    grid[hit] = failed(grid[hit])
    table = tables_of(grid)["Scores by arm and budget"]
    budget = grid[hit]["axes"]["budget"]
    assert cell(table, "got_d", f"budget {budget}").endswith(" (2/3)")
    assert "(" not in cell(table, "random", f"budget {budget}")


def test_overrides_are_axes_and_a_cell_without_one_has_the_default(make_records):
    records = make_records(2, arms=("random", "got_d"))
    for epsilon in ("0.05", "0.5"):
        for rows in (100, 200):
            variant = f"limits.labels={rows} selector.method.epsilon={epsilon}"
            records += make_records(2, arms=("got_d",), variant=variant)
    tables = tables_of(records)
    assert "Scores by limits.labels and selector.method.epsilon" in tables
    # Nothing ran both without an override and at these labels, so only overrides are shown.
    table = tables["Scores by arm and selector.method.epsilon"]
    assert [c.rpartition(" ")[2] for c in table.columns[1:]] == ["0.05", "0.5"]
    assert [row[0] for row in table.rows] == ["got_d"]
    plain = make_records(2, arms=("random", "got_d"))
    one = make_records(2, arms=("got_d",), variant="selector.method.epsilon=0.5")
    (table,) = tables_of(plain + one).values()
    assert [c.rpartition(" ")[2] for c in table.columns[1:]] == ["0.5", "default"]
    assert cell(table, "random", table.columns[1]) == ""
    assert cell(table, "random", table.columns[2]) != ""


def test_one_arm_has_a_table_by_budget(make_records):
    records = [r for b in (100, 400) for r in make_records(2, b, arms=("got_d",))]
    assert list(tables_of(records)) == ["Scores by arm and budget"]
    assert sweeps(blocks(make_records(2))) == []  # nothing but the arm varies


@pytest.mark.parametrize("axis", ["tuning", "protocol", "embedder"])
def test_any_axis_of_any_experiment_is_swept(make_records, axis):
    records = [
        r
        for value in ("one", "other")
        for r in make_records(2, arms=("random", "got_d"), experiment="mine", **{axis: value})
    ]
    assert list(tables_of(records)) == [f"Scores by arm and {axis}"]
    (sweep,) = sweeps(blocks(records))
    assert curve_figures(sweep) == {}  # no axis of numbers


def test_scales_and_metrics_without_a_common_unit_stay_apart(make_records, record):
    records = [
        r
        for budget in (100, 400)
        for scale in ("micro", "folder")
        for r in make_records(2, budget, arms=("got_d",), scale=scale)
    ]
    assert len(sweeps(blocks(records))) == 2
    loss = [record("lm", "got_d", seed, score=3.0, budget=100) for seed in (1, 2)]
    loss = [{**r, "metrics": {"headline": 3.0, "headline_name": "loss"}} for r in loss]
    micro = [r for r in records if r["scale"] == "micro"]
    assert sweeps(blocks([*micro, *loss])) == []


def test_curves_equal_the_averages_of_the_blocks(make_records):
    records = [r for b in (100, 400) for r in make_records(4, b, arms=("random", "got_d"))]
    members = blocks(records)
    (sweep,) = sweeps(members)
    intervals, _ = averages(sweep.cells, ("arm", "budget"), ("task",))
    for block in members:
        expected = average_interval(block, "got_d")
        shown = intervals["got_d", block.axes["budget"]]
        assert (shown.mean, shown.low, shown.n) == pytest.approx(
            (expected.mean, expected.low, expected.n)
        )


def test_a_curve_has_a_panel_for_every_setting_of_the_other_axes(grid):
    (sweep,) = sweeps(blocks(grid))
    (figure,) = curve_figures(sweep).values()
    assert sorted(axis.get_title() for axis in figure.axes) == ["model large", "model small"]
    assert all(len(axis.containers) == len(ARMS) for axis in figure.axes)


def test_a_report_and_the_terminal_have_the_sweep(grid, tmp_path):
    write_report(grid, tmp_path, paper=None, command="c")
    text = (tmp_path / "tables/glue.md").read_text()
    assert text.index("## glue: sweep, scale micro") < text.index("### Scores by arm and budget")
    assert text.count("### Scores by arm and") + text.count("### Scores by budget and") == 3
    assert (tmp_path / "figures/glue_budgets.svg").is_file()
    assert "Scores by budget and model" in (tmp_path / "report.html").read_text()
    titles = [table.title.plain for table in console_table(grid).columns[0].cells]
    assert titles[-1] == "glue: sweep, scale micro: Scores by budget and model"
