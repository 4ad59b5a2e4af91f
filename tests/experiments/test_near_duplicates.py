import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "near_duplicates.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("near_duplicates", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["near_duplicates"] = module
    spec.loader.exec_module(module)
    return module


def test_a_row_is_lost_if_another_asks_the_same(script):
    assert script.lost_share(["a", "b", "c~001", "d~000"]) == 0
    assert script.lost_share(["a", "a~003", "a~004", "b"]) == 0.5


def test_the_table_has_an_interval_for_each_arm_and_pool(script):
    rows = [
        {"pool": pool, "arm": arm, "seed": seed, "loss": 2.0 + seed, "lost_share": lost}
        for pool in ("no copies", "1 % x 100")
        for arm, lost in (("none", None), ("random", 0.25))
        for seed in (0, 1)
    ]
    lines = script.tabulate(rows, "command").splitlines()
    assert lines[8] == "| none |  | 2.500 (-3.853 to 8.853) |  | 2.500 (-3.853 to 8.853) |"
    assert lines[9].count("25.0 (25.0 to 25.0)") == 2


def test_the_committed_table_is_that_of_its_rows(script):
    folder = SCRIPT.parents[1] / "results" / "tables"
    lines = (folder / "near_duplicates.jsonl").read_text("utf-8").splitlines()
    page = (folder / "near_duplicates.md").read_text("utf-8")
    command = re.findall(r"Command: `(.*)`", page)[-1]
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 5 * len(script.POOLS) * len(script.ARMS)
    assert script.tabulate(rows, command) == page


def test_unknown_names_are_refused(script):
    with pytest.raises(SystemExit):
        script.main(["--arms", "nobody"])


@pytest.mark.slow
def test_a_pool_of_copies_is_measured(script, tmp_path):
    small = [
        f"store={tmp_path / 'store'}",
        "source.pretraining_documents=40",
        "source.pool_rows=400",
        "source.evaluation_rows=18",
        "model.pretraining.epochs=1",
        "pre_fine_tune.epochs=1",
        "budget=20",
        "rank_rows=20",
    ]
    chosen = ["--pools", "1 % x 100", "--arms", "none;KNN-Uniform;KNN-KDE (looked up)"]
    where = ["--seeds", "1", "--out", str(tmp_path)]
    found = script.main([*chosen, *where, *small])
    assert [row["arm"] for row in found] == ["none", "KNN-Uniform", "KNN-KDE (looked up)"]
    assert found[0]["lost_share"] is None
    assert all(0 <= row["lost_share"] < 1 for row in found[1:])
    assert script.main([*chosen, *where, *small]) == found
    lines = (tmp_path / "tables" / "near_duplicates.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found
