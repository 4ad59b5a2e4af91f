"""A file is old or new, never half; one process at a time holds a lock."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import gotd
from gotd.storage import files
from gotd.storage.files import atomic_write, locked, remove_left_over, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.npy"
    for value in (1, 2):
        with atomic_write(path) as part, part.open("wb") as file:
            np.save(file, np.full(3, value))
    assert np.load(path).tolist() == [2, 2, 2]
    write_text(tmp_path / "new" / "b.txt", "a\nb")
    assert (tmp_path / "new" / "b.txt").read_bytes() == b"a\nb"
    assert names(path.parent) == ["a.npy", "b.txt"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    for value, error in (({"a": math.nan}, ValueError), ({"a": object()}, TypeError)):
        with pytest.raises(error):
            write_json(path, value)
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_an_error_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, where):
    path = tmp_path / "a"
    write_text(path, "old")

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    owner, name = {
        "write": (Path, "write_text"),
        "fsync": (os, "fsync"),
        "replace": (Path, "replace"),
    }[where]
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_threads_that_write_one_file_do_not_mix(tmp_path):
    path, both = tmp_path / "a", threading.Barrier(2)

    def write(letter: str) -> None:
        with atomic_write(path) as part:
            part.write_text(letter * 1000)
            both.wait(10)
            part.open("a").close()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in ("x" * 1000, "y" * 1000)
    assert names(tmp_path) == ["a"]


def test_the_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(files, "flush", lambda path: calls.append(f"flush {path.name[:6]}"))
    monkeypatch.setattr(Path, "replace", lambda *p: (calls.append("replace"), replace(*p)))
    write_text(tmp_path / "a.text", "a")
    assert calls == ["flush a.text", "replace", f"flush {tmp_path.name[:6]}"]


HOLDER = """
import sys, time
from pathlib import Path
from gotd.storage.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path):
    """Run a process that holds the lock."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait(30)
    process.stdout.close()


def test_waiting_is_logged_once_and_a_killed_process_releases_the_lock(tmp_path, holder, caplog):
    threading.Timer(0.5, holder.kill).start()
    with caplog.at_level(logging.INFO, "gotd"), locked(tmp_path / "lock", "that builds a"):
        assert holder.wait(30) == -9
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for another process that builds a"
    ]


def test_a_lock_that_is_held_is_an_error_at_once_where_asked(tmp_path, holder):
    with (
        pytest.raises(BlockingIOError, match="another process holds"),
        locked(tmp_path / "lock", wait=False),
    ):
        pass


def test_threads_of_one_process_wait_for_each_other(tmp_path):
    inside: list[int] = []

    def work() -> None:
        with locked(tmp_path / "lock"):
            inside.append(1)
            assert len(inside) == 1
            threading.Event().wait(0.05)
            inside.pop()
            done.append(1)

    done: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4


def test_a_lock_file_may_be_removed_by_its_holder(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "lock"):
            (tmp_path / "lock").unlink()
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_removed_by_the_next_write(tmp_path):
    """Parts of processes that run, of other machines and of other files stay."""
    path = tmp_path / "a[1].json"
    code = (
        "import os, sys; from pathlib import Path; from gotd.storage.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as part: part.touch(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (left,) = tmp_path.glob("*.part")
    machine, dead, thread = left.name.removesuffix(".part").rpartition(".")[2].split("-")
    mine = tmp_path / f"a[1].json.{machine}-{os.getpid()}-1.part"
    other = tmp_path / f"a[1].json.00000000-{dead}-{thread}.part"
    beside = tmp_path / f"b.json.{machine}-{dead}-{thread}.part"
    for kept in (mine, other, beside):
        kept.touch()
    write_text(path, "whole")
    assert {*tmp_path.iterdir()} == {path, mine, other, beside}


def test_what_killed_commands_left_in_a_folder_is_removed(tmp_path):
    """Only of processes that are gone: a lock that is held or new, and a live process, count."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    machine = files._MACHINE
    gone = [tmp_path / f"weights.parquet.{machine}-{dead.pid}-7.part"]
    kept = [
        tmp_path / f"weights.parquet.{machine}-{os.getpid()}-7.part",
        tmp_path / f"weights.parquet.00000000-{dead.pid}-7.part",
        tmp_path / "mine.part",
        tmp_path / "mine-7-8.part",
        tmp_path / ".new.gotd.gotd-lock",
    ]
    for path in (*gone, *kept):
        path.write_text("x")
    for name in (".old.gotd.gotd", ".held.gotd.gotd", ".model.gotd"):
        lock, part = tmp_path / f"{name}-lock", tmp_path / f"{name}-part"
        part = tmp_path / f"{name}.part" if name == ".model.gotd" else part
        lock.touch()
        os.utime(lock, (1, 1))
        part.mkdir()
        (part / "rows.jsonl").write_text("x")
        (kept if "held" in name else gone).extend((lock, part))
    with locked(tmp_path / ".held.gotd.gotd-lock", wait=False):
        os.utime(tmp_path / ".held.gotd.gotd-lock", (1, 1))
        remove_left_over(tmp_path)
    assert {*tmp_path.iterdir()} == {*kept}
