"""A store that is full or cannot be written ends a sweep at its first cell, with one line."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from types import SimpleNamespace

import pytest

from gotd.pipeline import experiment
from gotd.runs import export as exporting
from gotd.runs import sweep
from gotd.storage.artifacts import Step, Store
from gotd.storage.errors import StoreError
from gotd.storage.files import locked

CELLS = "scale=micro task=cola selector=none seed=1,2 tracker=none"


@pytest.mark.parametrize("where", ["cell", "hydra"])
def test_a_sweep_ends_with_one_line(tmp_path, capsys, monkeypatch, where):
    tried = []

    def full(*_):
        tried.append(1)
        raise StoreError("no space left in store; free some space")

    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), tmp_path / "hydra")

    if where == "cell":
        monkeypatch.setattr(experiment, "run_cell", full)
    else:
        monkeypatch.setattr("hydra.core.utils.Path.mkdir", refused)
        monkeypatch.setattr(sweep, "check_writable", lambda _: None)
    # Hydra's handlers of an earlier test write to a stream that is closed by now.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    # Composed once, by Hydra alone: what was planned before does not matter here.
    cell = SimpleNamespace(
        record=SimpleNamespace(key="k"), is_complete=False, store=Store(tmp_path)
    )
    monkeypatch.setattr(sweep, "expand_cells", lambda _: ({("seed=1",): cell}, []))
    given = [*CELLS.split(), "hydra/launcher=basic", f"store={tmp_path}"]
    assert sweep.run("glue", given) == 2
    written = capsys.readouterr().err  # other tests may have asked for log lines there
    expected = {
        "cell": "glue: no space left in store; free some space",
        "hydra": f"glue: cannot write the store {tmp_path}: Read-only file system; "
        "choose another folder for it",
    }
    assert written.splitlines()[-1] == expected[where]
    assert written.count(expected[where]) == 1
    assert "Traceback" not in written
    assert len(tried) == (where == "cell")
    assert not (tmp_path / "failed").exists()


@pytest.fixture
def exports(tmp_path, monkeypatch):
    """Give a function that exports a finished cell to ``model``."""
    model = Step("m", 1, "m", {}, print)
    record = Step("record", 1, "r", {}, print, {"model": model})
    cell = SimpleNamespace(record=record, store=Store(tmp_path / "store"))
    monkeypatch.setattr(exporting, "expand", lambda _: [(None, "")])
    monkeypatch.setattr(exporting, "plan_cell", lambda *_: cell)
    monkeypatch.setattr(Store, "is_done", lambda *_: True)
    monkeypatch.setattr(Store, "get", lambda *_: tmp_path / "stored")
    return lambda: exporting.export([], tmp_path / "model")


def test_two_exports_into_one_folder_take_turns(exports, tmp_path):
    with locked(tmp_path / ".model.gotd-lock"):
        part = tmp_path / ".model.gotd.part"
        part.mkdir()
        with pytest.raises(ValueError, match="another gotd export is writing .*model; wait"):
            exports()
        assert part.exists()  # the other run is filling it


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("[Errno 28] No space left on device", "no space left for {}; free some space"),
        ("[Errno 13] Permission denied", r"cannot write {}: \[Errno 13\] .*; choose another --out"),
    ],
)
def test_a_model_that_cannot_be_copied_has_a_remedy(exports, tmp_path, monkeypatch, words, remedy):
    def fail(*_, **__):
        raise shutil.Error([("store/model", "part/model", words), ("a", "b", words)])

    monkeypatch.setattr(exporting.shutil, "copytree", fail)
    with pytest.raises(OSError, match=remedy.format(tmp_path / "model")):
        exports()
    assert not [*tmp_path.iterdir()]
