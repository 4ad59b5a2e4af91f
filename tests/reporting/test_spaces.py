"""Selectors by spaces: each number recomputed from the records, and the other tables as before."""

import copy
import re

import numpy as np
import pytest
from scipy import stats

from gotd.reporting.cells import blocks
from gotd.reporting.report import console_table, write_report
from gotd.reporting.spaces import sections, split

OWN, OTHER, THIRD = "tfidf_svd", "minilm", "gradient"
ARMS = ("nearest", "got_d", "mmd")
TASKS = ("gap_cs_papers", "gap_math")
STEPS = {"base_model": 400.0, "fitted_encoder": 3.0, "embeddings": 2.0, "pool_scores": 1.5}


def cell(record, task, arm, seed, loss, space=OWN, **axes):
    """Build a record as of the gap experiment."""
    variant = None if space == OWN else f"embedder={space}"
    axes = {"model": "mix_small", "source": "mix", "variant": variant, **axes}
    made = record(task, arm, seed, score=loss, experiment="gap", scale="folder", **axes)
    made["metrics"] = {
        "headline": loss,
        "headline_name": "target_loss/mean",
        "headline_higher_is_better": False,
    }
    made["config"] = {"embedder": {"name": space}}
    made["cost"]["stages_s"] = dict(STEPS)
    if made["selection"]:
        made["selection"]["under_covered_share"] = 0.1 * (seed % 4)
    else:
        made["axes"]["budget"] = None
    return made


@pytest.fixture
def records(record):
    """Three seeds in the own space, four in others; one cell more than those of the grid."""
    rng = np.random.default_rng(3)
    made = []
    for task in TASKS:
        for seed in (1, 2, 3, 4):
            base = rng.normal(7, 0.1)
            made.append(cell(record, task, "none", seed, base))
            made += [
                cell(record, task, arm, seed, base + rng.normal(-0.01, 0.01))
                for arm in ("random", "dsir")
            ]
            for space in (OWN, OTHER, THIRD):
                for arm in ARMS if space != OWN or seed < 4 else ():
                    loss = base + rng.normal(-0.04, 0.01)
                    made.append(cell(record, task, arm, seed, loss, space))
            made.append(cell(record, task, "oracle", seed, base - 0.1))
    return made


def table(records, number=0):
    _, grids = split(records)
    (section,) = sections(grids)
    return section.tables[number]


def read(shown, arm, column):
    row = next(row for row in shown.rows if row[0] == arm)
    return row[shown.columns.index(column)]


def recomputed(records, arm, space, tasks=TASKS, seeds=(1, 2, 3)):
    """Compute what a cell says, without any function of the report."""

    def losses(of, seed):
        return [
            next(
                r["metrics"]["headline"]
                for r in records
                if (r["axes"]["task"], r["axes"]["arm"], r["axes"]["seed"]) == (task, of, seed)
                and (of != arm or r["config"]["embedder"]["name"] == space)
            )
            for task in tasks
        ]

    values = [np.mean(losses(arm, s)) - np.mean(losses("none", s)) for s in seeds]
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    share = np.mean([0.1 * (seed % 4) for seed in seeds])
    return f"{np.mean(values):+.3f} ± {half:.3f}; {100 * share:.0f} %".replace("0.", ".")


def test_cells_are_what_the_records_say_on_the_common_draws(records):
    shown = table(records)
    assert shown.columns == ("selector", OWN, THIRD, OTHER)
    free = [f"{arm} (no space)" for arm in ("random", "dsir", "oracle")]
    assert [row[0] for row in shown.rows] == [*free, "nearest", "got_d", "mmd"]
    for arm in ARMS:
        for space in (OWN, OTHER, THIRD):
            assert read(shown, arm, space) == f"{recomputed(records, arm, space)}; 6.5 s"
    assert read(shown, free[1], OWN) == f"{recomputed(records, 'dsir', OWN)}; 1.5 s"
    assert read(shown, free[1], OTHER) == ""
    assert any("every space has: 3 (1, 2, 3)" in note for note in shown.notes)


def test_each_task_has_a_table(records):
    for number, task in enumerate(TASKS, start=1):
        shown = table(records, number)
        assert task in shown.title
        wanted = f"{recomputed(records, 'got_d', OTHER, [task])}; 6.5 s"
        assert read(shown, "got_d", OTHER) == wanted


def test_a_row_that_lacks_a_draw_is_marked_and_compared_on_the_others(records):
    records = [
        r
        for r in records
        if (r["axes"]["arm"], r["axes"]["seed"], r["config"]["embedder"]["name"])
        != ("mmd", 2, OTHER)
    ]
    shown = table(records)
    for space in (OWN, OTHER):
        values = recomputed(records, "mmd", space, seeds=(1, 3)).replace(";", " (2/3);", 1)
        assert read(shown, "mmd", space) == f"{values}; 6.5 s"
    assert "/" not in read(shown, "got_d", OTHER)


def test_an_arm_of_one_space_is_no_row(records, record):
    records.append(cell(record, TASKS[0], "round_robin", 1, 7.0))
    assert "round_robin" not in [row[0] for row in table(records).rows]


def test_the_other_tables_are_as_without_other_spaces(records, tmp_path):
    own = [r for r in records if r["config"]["embedder"]["name"] == OWN]
    for name, of in (("own", own), ("all", records)):
        write_report(of, tmp_path / name, paper=None, command="gotd report")
    alone, both = (
        {
            file.relative_to(tmp_path / name): re.sub("<!--.*-->|%.*", "", file.read_text("utf-8"))
            for file in (tmp_path / name).rglob("gap*")
        }
        for name in ("own", "all")
    )
    assert alone == both
    assert not (tmp_path / "own" / "tables" / "grid.md").exists()
    page = (tmp_path / "all" / "report.html").read_text("utf-8")
    assert "Selectors by spaces, mean of the tasks" in page
    assert (tmp_path / "all" / "figures" / "grid_spaces.svg").exists()
    text = (tmp_path / "all" / "tables" / "grid.md").read_text("utf-8")
    assert f"### Registered comparisons, space {OTHER}" in text
    assert f"space {OWN}" not in text


def test_comparisons_of_a_space_hold_its_own_cells(records):
    _, grids = split(records)
    (section,) = sections(grids)
    shown = next(t for t in section.tables if t.title == f"Registered comparisons, space {OTHER}")
    row = dict(zip(shown.columns, next(r for r in shown.rows if r[1] == "nearest"), strict=True))
    assert row["pairs"] == "4/4"
    losses = {
        arm: np.mean(
            [
                r["metrics"]["headline"]
                for r in records
                if r["axes"]["arm"] == arm and r["config"]["embedder"]["name"] == OTHER
            ]
        )
        for arm in ("got_d", "nearest")
    }
    assert row["difference"] == f"{losses['got_d'] - losses['nearest']:+.3f}"


def test_a_sweep_in_which_each_space_is_an_override_keeps_its_tables(records):
    for record in records:
        record["axes"]["variant"] = f"embedder={record['config']['embedder']['name']}"
    rest, (grid,) = split(records)
    assert rest == records
    assert grid.own is None
    assert read(table(records), "got_d", OTHER).startswith(recomputed(records, "got_d", OTHER))
    assert len(blocks(rest)) == 1


def test_settings_are_apart(records):
    others = copy.deepcopy(records)
    for record in others:
        record["key"] += "-b"
        record["axes"]["variant"] = " ".join(
            filter(None, [record["axes"]["variant"], "model.seed=1"])
        )
    _, grids = split([*records, *others])
    assert [grid.first.axes.get("base") for grid in grids] == [None, "model.seed=1"]


def test_a_failed_cell_is_listed(records, failed):
    at = next(n for n, r in enumerate(records) if r["config"]["embedder"]["name"] == THIRD)
    records[at] = failed(records[at])
    _, grids = split(records)
    (section,) = sections(grids)
    assert any(t.title == f"Failed cells, space {THIRD}" for t in section.tables)


def test_records_of_one_space_and_of_no_loss_have_no_grid(records, make_records):
    assert split(make_records()) == (make_records(), [])
    own = [r for r in records if r["config"]["embedder"]["name"] == OWN]
    assert split(own) == (own, [])


def test_the_terminal_has_the_table(records, capsys):
    from rich.console import Console

    Console(width=200).print(console_table(records))
    assert "selectors by spaces" in capsys.readouterr().out
