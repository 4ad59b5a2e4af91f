"""Cost, tracker and report come after the record, and take nothing from it (K10)."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest

from gotd.pipeline.record import has_cost, write_cost
from gotd.runs import sweep, tracker
from gotd.runs.process import closed_output_ignored, stopped_as_interrupted
from gotd.runs.tracker import WandbTracker
from gotd.storage.artifacts import Step, Store
from gotd.training.tracking import log_loss, tracking


def broken(*_, **__):
    raise RuntimeError("tracker is broken")


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_of_any_package_never_fails_a_cell(where, caplog):
    """B26: a finished cell was recorded as failed."""
    run = SimpleNamespace(log=lambda *_: None, finish=lambda *_, **__: None)
    given = SimpleNamespace(start=lambda *_: run)
    setattr(given if where == "start" else run, where, broken)
    with tracking(given, "key", "glue", {}, {}) as tracked:
        log_loss(1, {"loss": 1.0})
        tracked.finish({"status": "done"})
    assert caplog.text.count("the tracker failed and is left out") == 1


def test_a_server_that_does_not_answer_is_waited_for_once(tmp_path, monkeypatch):
    """B27: every cell of a sweep waited for it."""
    monkeypatch.setattr(tracker, "FINISH_TIMEOUT_S", 0.01)
    monkeypatch.setattr(tracker, "_silent", set())
    monkeypatch.setattr(tracker, "_has_wandb", lambda: True)
    silent, opened = WandbTracker(str(tmp_path)), []

    def never(*_, **__):
        opened.append(1)
        threading.Event().wait(0.5)

    monkeypatch.setattr(tracker, "_redirect_files", never)
    for seed in (1, 2, 3):
        silent.start(f"k{seed}", "glue", {"task": "cola"}, {}).finish()
    assert opened == [1]


def test_a_lost_cost_is_written_by_the_next_run(tmp_path):
    """B25: a kill between record and cost left `cost: {}` for ever."""
    store = Store(tmp_path)
    base = Step("base", 1, "b", {}, lambda folder, _: (folder / "f").write_text("x"))
    step = Step("record", 1, "r", {}, lambda folder, _: (folder / "f").write_text("x"), {"b": base})
    store.get(step)
    assert not has_cost(store, step)
    assert write_cost(store, step, None)
    assert has_cost(store, step)
    assert not write_cost(store, step, 1.0)


@pytest.mark.parametrize("closed", [True, False])
def test_a_reader_that_goes_away_ends_no_sweep(monkeypatch, closed):
    """B23: the report was lost with `>&-` and with `| head`."""

    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", None if closed else Broken())
    with closed_output_ignored():
        sys.stdout.write("table")
        assert not sys.stdout.isatty()
        from rich.console import Console

        Console(width=140).print("table")


def test_a_request_to_terminate_is_an_interrupt():
    """B29: the workers of a sweep went on for an hour."""
    with pytest.raises(KeyboardInterrupt), stopped_as_interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError()])
def test_a_report_that_cannot_be_written_has_a_remedy(tmp_path, monkeypatch, error):
    """B24."""

    def fail(*_):
        raise error

    monkeypatch.setattr("gotd.reporting.records.write_jsonl", fail)
    record = {"status": "done"}
    with pytest.raises(OSError, match="the records are kept: free some space and run"):
        sweep.report([(None, record)], 1, tmp_path / "report", "gotd run", "")
