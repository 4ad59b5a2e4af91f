"""A worker that is killed ends the command with one line."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from joblib.externals.loky.process_executor import TerminatedWorkerError
from ray import exceptions

from gotd.cli.main import main
from gotd.engine.ray import _errors_unwrapped
from gotd.runs import sweep
from gotd.storage.artifacts import Store

CELLS = "scale=micro task=cola selector=none seed=1,2 tracker=none"


class UncompletedJobError(RuntimeError):
    """Named as that of submitit, which may not be installed."""


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (TerminatedWorkerError("a\nb"), "fewer processes (hydra.launcher.n_jobs=1)"),
        (UncompletedJobError("a\nb"), "more memory or time (hydra.launcher.mem_gb, timeout_min)"),
    ],
)
def test_a_killed_worker_of_a_launcher_is_one_line(tmp_path, capsys, monkeypatch, error, remedy):
    def launch(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(
        Plugins, "instantiate_launcher", lambda *_, **__: SimpleNamespace(launch=launch)
    )
    monkeypatch.setattr(logging, "raiseExceptions", False)
    cell = SimpleNamespace(
        record=SimpleNamespace(key="k"), is_complete=False, store=Store(tmp_path)
    )
    monkeypatch.setattr(sweep, "expand_cells", lambda _: ({("seed=1",): cell}, []))
    assert sweep.run("glue", [*CELLS.split(), f"store={tmp_path}"]) == 2
    written = capsys.readouterr().err.splitlines()
    assert written[-1].startswith("glue: a worker process was killed")
    assert written[-1].endswith(f"the same command resumes, perhaps with {remedy}")


def test_another_error_of_a_launcher_is_not_hidden(tmp_path, monkeypatch):
    def launch(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of the program")

    launcher = SimpleNamespace(launch=launch)
    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: launcher)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        sweep._launch(["experiment=glue", *CELLS.split(), f"store={tmp_path}"], [("seed=1",)])


@pytest.mark.parametrize(
    "error", [exceptions.WorkerCrashedError(), exceptions.OutOfMemoryError("no memory")]
)
def test_a_killed_worker_of_ray_is_one_line(capsys, monkeypatch, error):
    def died(*_: Any) -> None:
        with _errors_unwrapped(SimpleNamespace(exceptions=exceptions)):
            raise error

    monkeypatch.setattr("gotd.cli.select.run", died)
    arguments = ["select", "--target", "t", "--candidates", "p", "--budget", "1", "--out", "o"]
    assert main(arguments) == 2
    written = capsys.readouterr().err.splitlines()[-1]
    assert written.startswith("gotd select: a Ray worker died")
    assert written.endswith("check that it has enough memory")
