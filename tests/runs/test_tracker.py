"""Weights & Biases gets the loss while a model trains, and never stops or delays a cell."""

import importlib
import json
import logging
import os
import struct
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from gotd.runs import tracker
from gotd.runs.tracker import NoTracker, WandbTracker
from gotd.training.tracking import current_logger, log_loss, tracking

AXES = {"task": "cola", "arm": "got_d", "budget": 400, "seed": 1}


def record(seed=1, **fields):
    return {
        "key": f"key{seed}",
        "experiment": "glue",
        "scale": "micro",
        "axes": AXES | {"seed": seed, "model": "m", "tuning": "full", "source": "s"},
        "status": "done",
        "n_eval": 100,
        "data": {"name": "microworld"},
        "seeds": {"selection": seed},
        "metrics": {"headline": 0.5, "headline_name": "accuracy"},
        "selection": {
            "key": "5e1ec7",
            "rows": 400,
            "distinct_rows": 400,
            "under_covered_share": 0.5,
            "domains": {"rare_0": 300, "common_0": 100},
            "target_domains": {"common_0": 0.5, "rare_0": 0.5},
        },
        "curves": {"pre_fine_tune_loss": [[0, 5.0], [10, 4.0]]},
        "error": None,
        "cost": {"elapsed_s": 2.0},
        **fields,
    }


def start(folder, seed=1, mode="offline"):
    tracked = WandbTracker(directory=str(folder), mode=mode)
    return tracked.start(f"key{seed}", "glue", AXES | {"seed": seed}, {"learning_rate": 1e-3})


class FakeRun:
    """A run that remembers what it is told; ``broken`` raises, ``hold`` blocks."""

    def __init__(self, broken=None, hold=None):
        self.broken, self.hold = broken, hold
        self.points, self.summary, self.exit_code = [], {}, None

    def _call(self):
        if self.hold is not None:
            self.hold.wait()
        if self.broken is not None:
            raise self.broken

    def define_metric(self, *_, **__):
        self._call()

    def log(self, values):
        self._call()
        self.points.append(values)

    def finish(self, exit_code):
        self.exit_code = exit_code
        self._call()


@pytest.fixture
def fake(monkeypatch):
    """Replace wandb; returns what it was started with and the runs it gave."""
    # A thread of an earlier test may be importing it, and would leave half of it behind.
    with suppress(ImportError):
        importlib.import_module("wandb")

    class Fake(SimpleNamespace):
        def init(self, **settings):
            if self.error is not None:
                raise self.error
            self.started.append(settings)
            self.runs.append(FakeRun(self.broken, self.hold))
            return self.runs[-1]

    module = Fake(
        started=[], runs=[], error=None, broken=None, hold=None, Settings=dict, Table=dict
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(tracker, "_has_wandb", lambda: True)
    monkeypatch.setattr(tracker, "_redirect_files", lambda directory: None)
    monkeypatch.setattr(tracker, "FINISH_TIMEOUT_S", 0.3)
    return module


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="online or offline, not 'disabled'"):
        WandbTracker(directory=str(tmp_path), mode="disabled")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="directory must not be empty"):
        WandbTracker(directory="")


def test_without_a_tracker_nothing_is_logged():
    log_loss(1, {"loss": 1.0})
    with tracking(NoTracker(), "key", "glue", AXES, {}) as run:
        log_loss(1, {"loss": 1.0})
        run.finish(record())
    NoTracker().tabulate([record()])


def test_without_the_package_one_warning_is_given(tmp_path, monkeypatch, caplog):
    tracker._has_wandb.cache_clear()
    monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        for seed in (1, 2):
            start(tmp_path / "w", seed).finish(record(seed))
    tracker._has_wandb.cache_clear()
    assert [r.message.startswith("wandb is not installed") for r in caplog.records] == [True]
    assert not (tmp_path / "w").exists()


def test_the_loss_arrives_during_training_and_the_record_at_the_end(fake, tmp_path):
    with tracking(WandbTracker(str(tmp_path)), "key", "glue", AXES, {"a": 1}) as run:
        log_loss(3, {"masked_lm_loss": 2.5})
        deadline = time.monotonic() + 10
        while not fake.runs or not fake.runs[0].points:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # The block has not ended, and the point is there.
        assert fake.runs[0].points == [
            {"live/masked_lm_loss/step": 3, "live/masked_lm_loss/value": 2.5}
        ]
        run.finish(record())
    assert current_logger.get() is None
    (settings,), (one,) = fake.started, fake.runs
    assert (settings["id"], settings["name"]) == ("key", "cola-got_d-400-1")
    assert (settings["mode"], settings["config"]) == ("offline", {"a": 1, "axes": AXES})
    assert {"pre_fine_tune_loss/step": 10, "pre_fine_tune_loss/value": 4.0} in one.points
    assert one.points[-1]["metrics"] == {
        "columns": ["metric", "value"],
        "data": [["headline", 0.5]],
    }
    assert one.summary["selection"] == {
        "key": "5e1ec7",
        "rows": 400,
        "distinct_rows": 400,
        "under_covered_share": 0.5,
    }
    assert one.summary["elapsed_s"] == 2.0
    assert one.exit_code == 0


def test_a_cell_that_fails_closes_its_run_as_failed(fake, tmp_path):
    with (
        pytest.raises(KeyError),
        tracking(WandbTracker(str(tmp_path)), "key", "glue", AXES, {}),
    ):
        raise KeyError
    assert fake.runs[0].exit_code == 1
    failed = record(status="failed", metrics={}, selection=None, error={"type": "E", "message": ""})
    start(tmp_path).finish(failed)
    assert fake.runs[1].exit_code == 1
    assert fake.runs[1].summary["error"] == failed["error"]


def test_a_tracker_that_cannot_start_does_not_take_the_cell_with_it(fake, tmp_path, caplog):
    fake.error = RuntimeError("no service")
    with caplog.at_level(logging.WARNING):
        run = start(tmp_path)
        for step in range(3):
            run.log(step, {"loss": 1.0})
        run.finish(record())
    assert [r.message for r in caplog.records] == [
        "the wandb run cola-got_d-400-1 is incomplete (its record is not): no service"
    ]


@pytest.mark.parametrize("error", [OSError(28, "disk full"), RuntimeError("gone"), KeyError("x")])
def test_a_tracker_that_breaks_midway_warns_once_per_run(fake, tmp_path, caplog, error):
    fake.broken = error
    with caplog.at_level(logging.WARNING):
        for seed in (1, 2):
            run = start(tmp_path, seed)
            for step in range(5):
                run.log(step, {"loss": 1.0})
            run.finish(record(seed))
            run.finish(record(seed))
    names = [r.message.split(" ")[3] for r in caplog.records]
    assert names == ["cola-got_d-400-1", "cola-got_d-400-2"]
    assert [run.exit_code for run in fake.runs] == [1, 1]


def test_a_network_that_hangs_delays_nothing(fake, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tracker, "QUEUE_SIZE", 20)
    fake.hold = threading.Event()
    began = time.perf_counter()
    with caplog.at_level(logging.WARNING):
        run = start(tmp_path)
        for step in range(1000):
            run.log(step, {"loss": 1.0})
        assert time.perf_counter() - began < 0.3
        run.finish(record())
    assert time.perf_counter() - began < 2
    assert ["does not keep up" in r.message for r in caplog.records] == [True]
    fake.hold.set()  # the thread ends


def test_finishing_waits_no_longer_than_the_limit(fake, tmp_path, caplog):
    fake.hold = threading.Event()
    began = time.perf_counter()
    with caplog.at_level(logging.WARNING):
        run = start(tmp_path)
        run.finish(record())
    assert 0.2 < time.perf_counter() - began < 2
    assert "no answer within 0.3 s" in caplog.text
    fake.hold.set()


PROGRAM = """
    import json, os, socket, sys, time
    from pathlib import Path
    def refuse(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"network touched: {address}")
        return connect(self, address)
    connect, socket.socket.connect = socket.socket.connect, refuse
    from gotd.runs.tracker import WandbTracker
    from gotd.training.language_model import pre_fine_tune
    from gotd.training.masked_lm import MaskedLMSettings
    from gotd.training.models import ModelSpec, build_model
    from gotd.training.randomness import TrainingSeeds
    from gotd.training.tracking import tracking
    folder, records = Path(sys.argv[1]), json.loads(sys.argv[2])
    tracker = WandbTracker(directory=str(folder / "mirror"))
    seconds = []
    for record in records:
        began = time.perf_counter()
        axes = {"task": "cola", "arm": "got_d", "seed": record["key"]}
        tracker.start(record["key"], "glue", axes, {"learning_rate": 1}).finish(record)
        seconds.append(time.perf_counter() - began)
    spec = ModelSpec(hidden_size=32, heads=2, feed_forward_size=64, max_length_tokens=48)
    build_model(spec, ["a", "b", "c"], 1, folder / "base")
    settings = MaskedLMSettings(
        learning_rate=1e-3, epochs=3, global_batch_size=2, max_length_tokens=48
    )
    with tracking(tracker, "trained", "glue", {"task": "cola", "arm": "x"}, {}):
        report = pre_fine_tune(
            folder / "base", ["a b c"] * 4, settings, TrainingSeeds.derive(1), folder / "work",
            folder / "out",
        )
    print(json.dumps([seconds, report["loss_curve"]]))
"""


def messages(data):
    """Yield the messages of a wandb file: LevelDB's log format after a header of 7 bytes."""
    position, message = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        position += 7 + length
        message += data[position - length : position]
        if kind in (1, 4):  # a whole message, or its last part
            yield message
            message = b""


def history(path):
    """Return the logged values of a run's file, by name."""
    from wandb.proto import wandb_internal_pb2

    values: dict[str, list[float]] = {}
    for message in messages(path.read_bytes()):
        entry = wandb_internal_pb2.Record()
        entry.ParseFromString(message)
        for item in entry.history.item:
            name = item.key or "/".join(item.nested_key)
            values.setdefault(name, []).append(json.loads(item.value_json))
    return values


def test_offline_runs_hold_the_live_curve_and_stay_away_from_home_and_network(tmp_path):
    """One process, several cells, the real wandb: files in the folder, none in the home."""
    pytest.importorskip("wandb")
    records = [record(seed) for seed in range(1, 5)]
    home, folder = tmp_path / "home", tmp_path / "mirror"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "c")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), json.dumps(records)],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "incomplete" not in done.stderr
    assert not [path for path in home.rglob("*") if "wandb" in path.name]
    names = {p.name for p in folder.glob("wandb/offline-run-*/run-*.wandb")}
    assert names == {f"run-{r['key']}.wandb" for r in records} | {"run-trained.wandb"}
    seconds, curve = json.loads(done.stdout)
    # The first start also starts wandb's service; after that a cell costs little.
    assert min(seconds[1:]) < 1.0
    shown = [json.loads(p.read_text()) for p in folder.rglob("*.table.json")]
    assert ["domain", "selected_rows", "target_share"] in [t["columns"] for t in shown]
    assert any(["headline", 0.5] in t["data"] for t in shown)
    stored = next(folder.glob("wandb/*/run-key1.wandb"))
    assert b"learning_rate" in stored.read_bytes()
    assert history(stored)["pre_fine_tune_loss/value"] == [5.0, 4.0]
    live = history(next(folder.glob("wandb/*/run-trained.wandb")))
    steps, losses = live["live/masked_lm_loss/step"], live["live/masked_lm_loss/value"]
    assert [[s, pytest.approx(v)] for s, v in curve] == [
        list(p) for p in zip(steps, losses, strict=True)
    ]


def test_a_folder_that_cannot_be_made_does_not_take_the_cell_with_it(tmp_path, caplog):
    pytest.importorskip("wandb")
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        start(tmp_path / "file").finish(record())
    assert "cola-got_d-400-1 is incomplete" in caplog.text


def test_the_scores_of_a_sweep_are_a_run_of_their_own(fake, tmp_path):
    axes = record()["axes"]
    records = [
        record(axes=axes | {"arm": arm}, metrics={"headline_name": "accuracy", "headline": score})
        for arm, score in (("none", 0.4), ("got_d", 0.5))
    ]
    WandbTracker(str(tmp_path)).tabulate(records)
    (run,) = fake.runs
    (point,) = run.points
    assert [row[0] for row in point["scores"]["data"]] == ["none", "got_d"]
    assert point["scores"]["columns"][:2] == ["arm", "cola"]
    assert run.exit_code == 0
