"""The leaderboard ranks complete arms by their gain, and says how certain a rank is."""

import numpy as np
import pytest

from gotd.reporting.cells import blocks
from gotd.reporting.leaderboard import SWEEPS, leaderboard
from gotd.reporting.report import write_report
from gotd.runs.expand import compose_shared, composing

ARMS = {"none": 0.0, "random": 0.01, "nearest": 0.05, "dsir": 0.06, "got_d": 0.12, "oracle": 0.14}


@pytest.fixture
def ranked(record):
    def make(arms=ARMS, seeds=8, noise=0.0, **axes):
        random = np.random.default_rng(0)
        return [
            record(task, arm, seed, score=0.5 + gain + noise * random.normal(), **axes)
            for task in ("cola", "sst2")
            for arm, gain in arms.items()
            for seed in range(seeds)
        ]

    return make


def rows_of(records):
    (section,) = leaderboard(blocks(records))
    (table,) = section.tables
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_arms_are_ranked_by_their_gain_and_those_that_know_the_truth_have_no_rank(ranked):
    rows = rows_of(ranked())
    assert [row["selector"] for row in rows] == [
        *("oracle", "got_d", "dsir", "nearest", "random", "none"),
    ]
    assert [row["rank"] for row in rows] == ["*", "1", "2", "3", "4", "5"]
    assert [row["gain"] for row in rows][:2] == ["+14.00", "+12.00"]
    assert rows[1]["rank, 95 %"] == "1"
    assert rows[1]["command"] == (
        "gotd run experiment=glue scale=micro selector=got_d model=micro budget=400"
    )


def test_ranks_are_uncertain_where_gains_are(ranked):
    near = {name: gain / 100 for name, gain in ARMS.items()}
    rows = {row["selector"]: row for row in rows_of(ranked(near, noise=0.1))}
    low, _, high = rows["dsir"]["rank, 95 %"].partition(" to ")
    assert int(high) - int(low) >= 2
    assert low <= rows["dsir"]["rank"] <= high


def test_few_seeds_give_no_interval_of_a_rank(ranked):
    assert {row["rank, 95 %"] for row in rows_of(ranked(seeds=3, noise=0.1))} == {""}


def test_an_arm_that_lacks_a_cell_has_no_row(ranked, failed):
    records = [
        failed(r) if (r["axes"]["arm"], r["axes"]["seed"]) == ("dsir", 3) else r
        for r in ranked({**ARMS, "tsds": 0.1})
    ]
    assert "dsir" not in [row["selector"] for row in rows_of(records)]


def test_the_setting_with_most_selectors_is_shown(ranked):
    few = {name: ARMS[name] for name in ("none", "random", "nearest", "dsir", "got_d")}
    records = [*ranked(few, budget=100), *ranked({**ARMS, "tsds": 0.1}, budget=400)]
    rows = rows_of(records)
    assert len(rows) == 7
    assert rows[1]["command"].endswith("budget=400")


def test_each_base_has_a_ranking_of_its_own(ranked):
    other = {**ARMS, "dsir": 0.13}
    sections = leaderboard(blocks([*ranked(), *ranked(other, variant="model.seed=1")]))
    first = [dict(zip(t.columns, t.rows[1], strict=True)) for s in sections for t in s.tables]
    assert [row["selector"] for row in first] == ["got_d", "dsir"]
    assert "model.seed=1" in sections[1].title
    assert first[1]["command"].endswith("model.seed=1")


def test_the_command_names_all_that_is_shared(ranked):
    rows = rows_of(ranked(model="minilm", budget_unit="permille", tuning="lora"))
    assert rows[1]["command"].endswith(
        "model=minilm budget=400 budget_unit=permille pre_fine_tune.tuning=lora"
    )


def test_fewer_than_five_selectors_are_no_leaderboard(ranked, tmp_path):
    records = ranked({name: ARMS[name] for name in ("none", "random", "got_d", "oracle")})
    assert leaderboard(blocks(records)) == []
    written = write_report(records, tmp_path, paper=None, command="gotd report")
    assert tmp_path / "leaderboard.md" not in written
    assert not (tmp_path / "leaderboard.md").exists()


def test_the_file_and_the_page_have_it(ranked, tmp_path):
    write_report(ranked(), tmp_path, paper=None, command="gotd report")
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "| got_d | 1 | 1 | +12.00 |" in page
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.index("Leaderboard") < html.index("Registered comparisons")


@pytest.mark.parametrize(("names", "sweep"), SWEEPS.items(), ids=str)
def test_the_command_runs_the_experiment_that_its_records_name(names, sweep):
    with composing():
        config = compose_shared(sweep.split())
    assert (config.experiment_name, config.scale_name) == names


def test_a_comparison_of_own_files_is_named_by_its_own_command(record):
    records = [
        {**record("own", arm, seed, score=0.5 + gain), "experiment": "compare", "scale": "own"}
        for arm, gain in ARMS.items()
        for seed in range(6)
    ]
    commands = {row["selector"]: row["command"] for row in rows_of(records)}
    assert commands["got_d"] == "gotd compare … --methods got_d"
