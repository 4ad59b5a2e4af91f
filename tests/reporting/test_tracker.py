import json
import logging
import os
import subprocess
import sys
import textwrap

import pytest

from gotd.runs import tracker
from gotd.runs.tracker import NoTracker, WandbTracker

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="online, offline or disabled"):
        WandbTracker(directory=str(tmp_path), mode="offlne")
    with pytest.raises(ValueError, match="directory must not be empty"):
        WandbTracker(directory="")


def test_nothing_is_written_when_nothing_is_tracked(tmp_path, record):
    one = record("cola", "got_d", 1, score=0.5)
    NoTracker().mirror(one)
    WandbTracker(directory=str(tmp_path / "w"), mode="disabled").mirror(one)
    assert not (tmp_path / "w").exists()


def test_without_the_package_one_warning_is_given(tmp_path, record, monkeypatch, caplog):
    tracker._has_wandb.cache_clear()
    monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        for seed in (1, 2):
            WandbTracker(directory=str(tmp_path / "w")).mirror(
                record("cola", "got_d", seed, score=0.5)
            )
    tracker._has_wandb.cache_clear()
    assert [r.message.startswith("wandb is not installed") for r in caplog.records] == [True]
    assert not (tmp_path / "w").exists()


PROGRAM = """
    import json, os, socket, sys, time
    from pathlib import Path
    def refuse(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"network touched: {address}")
        return connect(self, address)
    connect, socket.socket.connect = socket.socket.connect, refuse
    from gotd.reporting.records import read_jsonl
    from gotd.runs.tracker import WandbTracker
    mirror = WandbTracker(directory=sys.argv[2])
    seconds = []
    for one in read_jsonl(Path(sys.argv[1])):
        began = time.perf_counter()
        mirror.mirror(one)
        seconds.append(time.perf_counter() - began)
    run = mirror.start("open1", "glue", {"task": "cola", "arm": "x", "seed": 1}, {"a": 1})
    other = mirror.start("open2", "glue", {"task": "cola", "arm": "x", "seed": 2}, {"a": 2})
    run.log({"loss": 1.0}, step=3)
    other.finish(None)
    run.finish(None)
    print(json.dumps(seconds))
"""


def test_offline_runs_stay_inside_and_away_from_the_network(tmp_path, record, failed):
    """One process, several cells: runs land in the folder, none in the home, fast."""
    from gotd.reporting.records import write_jsonl

    records = [record("cola", "got_d", s, score=0.5) for s in range(1, 5)]
    records.append(failed(record("cola", "got_d", 5, score=0.5)))
    write_jsonl(records, tmp_path / "r.jsonl")
    home, folder = tmp_path / "home", tmp_path / "mirror"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "c")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), tmp_path / "r.jsonl", folder],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    assert list(home.iterdir()) == []
    runs = {p.name.rpartition("-run-")[2] for p in folder.glob("wandb/offline-run-*")}
    names = {p.name for p in folder.glob("wandb/offline-run-*/run-*.wandb")}
    assert names == {f"run-{r['key']}.wandb" for r in records} | {
        "run-open1.wandb",
        "run-open2.wandb",
    }
    assert len(runs) == 7
    # The first start also starts wandb's service; after that a cell costs little.
    assert min(json.loads(done.stdout)[1:]) < 1.0
    tables = list(folder.rglob("*.table.json"))
    shown = [json.loads(p.read_text()) for p in tables]
    assert {"columns": next(t for t in shown if "domain" in t["columns"])["columns"]} == {
        "columns": ["domain", "selected_rows", "target_share"]
    }
    assert any(["headline", 0.5] in t["data"] for t in shown)
    stored = next(folder.glob(f"wandb/*/run-{records[0]['key']}.wandb")).read_bytes()
    assert b"learning_rate" in stored
    assert b"pre_fine_tune_loss/value" in stored
    assert b"matthews_correlation" in stored


def test_a_tracker_that_cannot_start_does_not_take_the_cell_with_it(
    tmp_path, record, monkeypatch, caplog
):
    def refuse(**settings):
        raise wandb.Error("no service")

    monkeypatch.setattr(wandb, "init", refuse)
    with caplog.at_level(logging.WARNING):
        WandbTracker(directory=str(tmp_path)).mirror(record("cola", "got_d", 1, score=0.5))
    assert "no service" in caplog.text


def test_a_run_is_closed_even_if_copying_fails():
    class Broken:
        closed = None

        def define_metric(self, *args, **settings):
            raise RuntimeError("broken")

        def finish(self, exit_code):
            self.closed = exit_code

    run = Broken()
    record = {"curves": {"loss": [[0, 1.0]]}, "status": "done"}
    with pytest.raises(RuntimeError, match="broken"):
        tracker.WandbRun(run, "a run").finish(record)
    assert run.closed == 1


class Dead:
    """A run whose service is gone; every call raises."""

    def __init__(self, error):
        self.error, self.finished = error, 0

    def define_metric(self, *args, **settings):
        raise self.error

    def log(self, *args, **settings):
        raise self.error

    def finish(self, exit_code=0):
        self.finished += 1
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        wandb.Error("service gone"),
        OSError(28, "service gone"),
        type("MailboxClosedError", (Exception,), {"__module__": "wandb.sdk.mailbox"})(
            "service gone"
        ),
    ],
)
def test_a_tracker_that_breaks_midway_warns_once_per_run(
    tmp_path, record, monkeypatch, caplog, error
):
    opened = []

    def init(**settings):
        opened.append(Dead(error))
        return opened[-1]

    monkeypatch.setattr(wandb, "init", init)
    one = WandbTracker(directory=str(tmp_path))
    records = [record("cola", "got_d", seed, score=0.5) for seed in (1, 2)]
    with caplog.at_level(logging.WARNING):
        for each in records:
            one.mirror(each)
        one.tabulate([*records, record("cola", "got_d", 1, score=0.5, budget=200)])
        run = one.start("key", "glue", {"task": "cola", "arm": "dsir"}, {})
        for _ in range(3):
            run.log({"loss": 1.0})
        run.finish(None)
    said = [r.message for r in caplog.records]
    names = [s.split(" ")[2] for s in said]
    assert names == [
        "cola-got_d-400-1",
        "cola-got_d-400-2",
        "table-all-200",
        "table-all-400",
        "cola-dsir",
    ]
    assert all("service gone" in s for s in said)
    assert [run.finished for run in opened] == [1] * 5


def test_a_folder_that_cannot_be_made_does_not_take_the_cell_with_it(tmp_path, record, caplog):
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        WandbTracker(directory=str(tmp_path / "file")).mirror(record("cola", "got_d", 1, score=0.5))
    assert "cola-got_d-400-1" in caplog.text


def test_the_final_table_is_a_run_of_its_own(tmp_path, record):
    records = [
        record("cola", arm, 1, score=score) for arm, score in (("none", 0.4), ("got_d", 0.5))
    ]
    WandbTracker(directory=str(tmp_path)).tabulate(records)
    (table,) = tmp_path.rglob("*.table.json")
    kept = json.loads(table.read_text())
    assert [row[0] for row in kept["data"]] == ["none", "got_d"]
    assert kept["columns"][:2] == ["arm", "cola"]
