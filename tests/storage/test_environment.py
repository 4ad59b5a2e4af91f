"""What a number was measured on, on whatever machine that is."""

from __future__ import annotations

import gc
import itertools
import json
import os
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from gotd import __version__
from gotd.storage import environment as machine


@pytest.fixture(autouse=True)
def _fresh():
    for cached in (machine.versions, machine.code, machine.hardware):
        cached.cache_clear()
    yield
    for cached in (machine.versions, machine.code, machine.hardware):
        cached.cache_clear()


def test_versions_name_what_can_move_a_number():
    found = machine.versions()
    assert found["gotd"] == __version__
    assert {"python", "torch", "transformers", "numpy", "pot"} <= set(found)
    assert all(name == name.lower() for name in found)


def test_an_absent_package_is_left_out(monkeypatch):
    monkeypatch.setattr(machine, "_PACKAGES", ("numpy", "no-such-package"))
    assert set(machine.versions()) == {"python", "gotd", "numpy"}


def test_hardware_is_json_and_counts_usable_cores():
    found = json.loads(json.dumps(machine.hardware()))
    assert set(found) == {"cpu", "cores", "memory_gib", "gpu"}
    assert found["cpu"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert found["memory_gib"] > 0.1


def test_peak_memory_is_in_gib_and_grows_with_what_is_held():
    machine.reset_peak_memory()
    before = machine.peak_memory_gib()
    held = bytearray(os.urandom(1)) * (256 * 2**20)
    after = machine.peak_memory_gib()
    assert len(held) == 256 * 2**20
    assert 0.01 < before < 64
    assert 0.2 < after - before < 0.3


def test_reset_starts_a_new_high_water_mark():
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system cannot reset the high-water mark")
    held = bytearray(os.urandom(1)) * (256 * 2**20)
    high = machine.peak_memory_gib()
    del held
    machine.reset_peak_memory()
    assert machine.peak_memory_gib() < high - 0.2


def resident_mib() -> float:
    kib = machine._system_value("/proc/self/status", "VmRSS")
    assert kib is not None
    return int(kib.split()[0]) / 1024


def test_freed_memory_goes_back_to_the_system():
    """Blocks that stay hold the end of the heap, so the allocator alone returns nothing."""
    if machine._malloc_trim() is None:
        pytest.skip("this C library returns nothing on demand")
    machine.return_memory()  # what other tests freed
    before = resident_mib()
    blocks = [bytes(8000) + bytes([number % 256]) for number in range(20_000)]
    del blocks[:-1]
    kept = resident_mib()
    machine.return_memory()
    assert kept - before > 100
    assert resident_mib() - before < 30


def test_networks_in_cycles_do_not_pile_up(monkeypatch):
    """As long as a full collection is far, each stage would leave its network."""

    class Network:
        def __init__(self) -> None:
            self.trainer = [self]

    monkeypatch.setattr(machine, "_collection", machine._Collection())
    left, threshold = weakref.ref(Network()), gc.get_threshold()
    gc.set_threshold(100_000, 100, 100)
    try:
        assert left() is not None
        machine.return_memory()
        assert left() is None
    finally:
        gc.set_threshold(*threshold)


def test_collecting_takes_a_small_share_of_the_time(monkeypatch):
    """A collection of .2 s is followed by the next one after 4 s."""
    now, collected = [0.0], []

    def collect():
        collected.append(now[0])
        now[0] += 0.2

    monkeypatch.setattr(machine, "_collection", machine._Collection())
    monkeypatch.setattr(machine.gc, "collect", collect)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])
    for _ in range(100):
        machine.return_memory()
        now[0] += 0.5
    assert 10 < len(collected) < 14
    assert all(later - first > 4.1 for first, later in itertools.pairwise(collected))


def test_a_process_that_has_just_begun_collects_nothing():
    """A small selection would spend a twentieth of its time on it."""
    code = (
        "import gc; from gotd.storage import environment; calls = []; "
        "gc.collect = lambda: calls.append(1); environment.return_memory(); print(len(calls))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_a_c_library_without_the_function_is_no_error(monkeypatch):
    machine._malloc_trim.cache_clear()
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: object())
    machine.return_memory()
    assert machine._malloc_trim() is None
    machine._malloc_trim.cache_clear()


def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with one commit and let the module stand in its src/gotd."""
    file = tmp_path / "src" / "gotd" / "storage" / "environment.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(machine, "__file__", str(file))
    return file


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_code_names_the_commit_and_whether_files_differ(tmp_path, monkeypatch):
    file = checkout(tmp_path, monkeypatch)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "m")
    (tmp_path / "notes.txt").write_text("outside what can move a number")
    assert machine.code() == {"git_sha": git(tmp_path, "rev-parse", "HEAD"), "git_dirty": False}
    machine.code.cache_clear()
    file.write_text("changed")
    assert machine.code()["git_dirty"] is True


def test_code_is_empty_rather_than_wrong(tmp_path, monkeypatch):
    checkout(tmp_path, monkeypatch)
    assert machine.code() == {}, "a repository without a commit has no name for its code"
    machine.code.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path / "no-git-here"))
    assert machine.code() == {}, "without git nothing is known, and no cell may stop for it"
    machine.code.cache_clear()
    monkeypatch.setattr(
        machine, "__file__", str(tmp_path.parent / "a" / "b" / "c" / "environment.py")
    )
    assert machine.code() == {}


def test_tests_cannot_leave_this_machine():
    """The guard of conftest.py; 192.0.2.1 is reserved for documentation."""
    with pytest.raises(RuntimeError, match=r"tried to reach '192\.0\.2\.1'"):
        socket.create_connection(("192.0.2.1", 80), timeout=0.1)
    with socket.socket() as plain, pytest.raises(RuntimeError, match="without a network"):
        plain.connect_ex(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 80)


def test_tests_may_talk_to_themselves():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"
