"""Processes that tokenise for a GPU: their errors are the caller's, and none outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gotd.config.schemas import Chunking
from gotd.data.columns import Columns
from gotd.data.inputs import table_parts
from gotd.data.pool import shard_files, write_pool
from gotd.embedding import token_processes
from gotd.embedding.token_processes import TokenProcesses, process_count
from gotd.embedding.tokens import TextRange, TokenIds
from gotd.storage.errors import WorkerKilled


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    parts = table_parts([f"text {n}" for n in range(7)], "c", Columns())
    write_pool(parts, folder, Chunking("whole"))
    return shard_files(folder)[0][0]


def stand_in(function: Any, count: int = 1) -> TokenProcesses:
    """Processes that call a function of a module instead of a tokeniser, which loads slowly."""
    return TokenProcesses(function, count)


def test_processes_are_for_gpus_and_many_ranges(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert [process_count(name, 1000) for name in ("cpu", "cuda", "cuda:1")] == [0, 7, 7]
    assert [process_count("cuda", ranges) for ranges in (0, 3, 4, 12)] == [0, 0, 1, 3]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(1), raising=False)
    assert process_count("cuda", 1000) == 0


def test_a_range_is_read_in_the_process_and_its_error_is_raised_here(rows, tmp_path):
    processes = stand_in(sorted)
    assert processes(TextRange(rows, 2, 5, 6)) == ["text 2", "text 3", "text 4"]
    with pytest.raises(FileNotFoundError, match="absent"):
        processes(TextRange(tmp_path / "absent.arrow", 0, 1))
    assert processes(TextRange(rows, 0, 1)) == ["text 0"], "an error must not end the process"
    processes.close()


def test_a_killed_process_is_an_error_for_all_that_wait(rows):
    processes = stand_in(len, 2)
    processes.close()
    for _ in range(3):
        with pytest.raises(WorkerKilled, match="often for lack of memory"):
            processes(TextRange(rows, 0, 1))


def test_a_process_that_cannot_start_is_an_error(rows, monkeypatch):
    monkeypatch.setattr(token_processes, "PROGRAM", "raise SystemExit(3)")
    with pytest.raises(WorkerKilled):
        stand_in(len)(TextRange(rows, 0, 1))


PROGRAM = """
import sys
from pathlib import Path
from gotd.embedding.token_processes import TokenProcesses
from gotd.embedding.tokens import TextRange
processes = TokenProcesses(len, 1)
assert processes(TextRange(Path(sys.argv[1]), 0, 2)) == 2
print(processes._all[0]._process.pid, flush=True)
input()
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for a process in /proc")
def test_a_process_ends_with_a_caller_that_is_killed(rows, tmp_path):
    """The caller is a script without a guard of its main module, which is not run again."""
    script = tmp_path / "script.py"
    script.write_text(PROGRAM, "utf-8")
    command = [sys.executable, str(script), str(rows)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as caller:
        assert caller.stdout is not None
        pid = int(caller.stdout.readline())
        assert is_running(pid)
        caller.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_rows_are_padded_on_the_right():
    tokens = TokenIds(np.array([5, 6, 7, 8, 9], np.int32), np.array([2, 0, 3]))
    ids, mask = tokens.padded([2, 0, 1], 4, 1)
    np.testing.assert_array_equal(ids, [[7, 8, 9, 1], [5, 6, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert ids.dtype == mask.dtype == np.int64
