"""A store that is full or cannot be written ends a sweep at its first cell, with one line."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from gotd.pipeline import experiment
from gotd.runs import sweep
from gotd.storage.artifacts import Store
from gotd.storage.errors import StoreError

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
    # Composed once, by Hydra alone: what was planned before does not matter here.
    cell = SimpleNamespace(
        record=SimpleNamespace(key="k"), is_complete=False, store=Store(tmp_path)
    )
    monkeypatch.setattr(sweep, "expand_cells", lambda _: ([cell], []))
    given = [*CELLS.split(), "hydra/launcher=basic", f"store={tmp_path}"]
    assert sweep.run("glue", given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    expected = {
        "cell": "glue: no space left in store; free some space",
        "hydra": f"glue: cannot write the store {tmp_path}: Read-only file system; "
        "choose another folder for it",
    }
    assert line == expected[where]
    assert len(tried) == (where == "cell")
    assert not (tmp_path / "failed").exists()
