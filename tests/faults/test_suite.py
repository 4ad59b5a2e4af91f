"""The fault suite: disturbed runs end in the bytes of an undisturbed run, or in one clear line."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_cases import (
    CHANGED,
    CLOSED,
    COMMANDS,
    DAMAGED,
    FULL_DISKS,
    HOMELESS,
    KILLS,
    READ_ONLY,
    SELECT,
    SIGNALS,
    TOGETHER,
    fill_hub,
    write_rows,
)
from fault_runs import FULL, Ended, Server, differences, left, sample
from hub_stand_in import HubStandIn

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(3600)]

PROGRAM = {"select": "select", "sweep": "run", "export": "export", "report": "report"}


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    there = Server({})
    yield there
    there.close()


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server whose children read the Hub stand-in; they share a cache of requests."""
    hub = HubStandIn()
    fill_hub(hub)
    there = Server(hub.environment(tmp_path_factory.mktemp("home")))
    yield there
    there.close()
    assert hub.unpinned() == []
    hub.shutdown()


@pytest.fixture(scope="session")
def finished(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a finished cell and its records."""
    folder = tmp_path_factory.mktemp("cell")
    ended = server.run(folder, COMMANDS["sweep"].arguments)
    assert ended.status == 0, ended.printed
    (records,) = folder.glob("store/reports/*/records.jsonl")
    shutil.copy(records, folder / "records.jsonl")
    return folder


class Place:
    """Runs one command in fresh folders, and compares what it leaves.

    Args:
        server: Runs it.
        name: Of the command.
        base: Folder for the folders.
        finished: Folder of a finished cell.
    """

    def __init__(self, server: Server, name: str, base: Path, finished: Path | None) -> None:
        self.server, self.name, self.base = server, name, base
        self.command, self.finished, self.made = COMMANDS[name], finished, 0
        self.undisturbed: dict[str, str] = {}

    def fresh(self) -> Path:
        """Make a folder with the command's input."""
        self.made += 1
        folder = self.base / f"{self.name}{self.made}"
        folder.mkdir()
        if self.command.needs == "rows":
            write_rows(folder)
        if self.finished is not None:
            (folder / "store").symlink_to(self.finished / "store")  # it is only read
            shutil.copy(self.finished / "records.jsonl", folder)
        return folder

    def run(self, folder: Path, **options: Any) -> Ended:
        """Run the command in a folder."""
        if self.name == "fetch":
            options |= {"prepare": "fault_cases:few_rows"}
        return self.server.run(folder, self.command.arguments, **options)

    def left(self, folder: Path) -> dict[str, str]:
        """Return what the command left, and every other name there."""
        found = {}
        for result in self.command.results:
            found |= {f"{result}/{name}": sum_ for name, sum_ in left(folder / result).items()}
        return found | {name.name: "top" for name in folder.iterdir()}

    def count(self) -> list[str]:
        """Run it undisturbed and return its operations."""
        folder = self.fresh()
        ended = self.run(folder)
        assert ended.status == 0, ended.printed
        self.undisturbed = self.left(folder)
        return ended.operations

    def reruns_equal(self, folder: Path) -> str:
        """Run it again undisturbed; return what is wrong, or nothing."""
        ended = self.run(folder)
        # A run that was killed after its last step has done its work, which is not replaced.
        done = self.name == "export" and ended.is_clear("export")
        if ended.status and not done:
            return f"the rerun ended with {ended.status}: {ended.printed[-300:]}"
        wrong = differences(self.left(folder), self.undisturbed)
        return f"the rerun differs in {wrong[:5]}" if wrong else ""


@pytest.fixture
def place(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], Place]:
    def make(name: str) -> Place:
        needs_cell = COMMANDS[name].needs == "cell"
        cell = request.getfixturevalue("finished") if needs_cell else None
        there = request.getfixturevalue("hub_server") if name == "fetch" else server
        return Place(there, name, tmp_path, cell)

    return make


def tally(name: str, operations: int, tried: int, wrong: list[str]) -> None:
    """Count a case for the table, and fail where something is wrong."""
    if table := os.environ.get("FAULTS_TABLE"):
        counts = {"operations": operations, "tried": tried, "passed": tried - len(wrong)}
        row = {"case": name, **counts, "wrong": wrong}
        with Path(table).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    assert not wrong, "\n".join(wrong)


def disturb(
    here: Place, name: str, most: int, fault: dict[str, Any], judge: Callable[[Ended], str]
) -> None:
    """Run a command with a fault at each operation of a sample, then again without."""
    operations, wrong = here.count(), []
    tried = sample(len(operations), most)
    for at in tried:
        folder = here.fresh()
        ended = here.run(folder, fault={**fault, "at": at})
        problem = judge(ended) or here.reruns_equal(folder)
        if problem:
            wrong.append(f"at {operations[at - 1]}: {problem}")
        shutil.rmtree(folder)
    tally(name, len(operations), len(tried), wrong)


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_run_is_made_good_by_the_next(name, place):
    here = place(KILLS[name])

    def judge(ended: Ended) -> str:
        return "" if ended.status == -9 else f"it was not killed: {ended.status}"

    disturb(here, name, here.command.kills, {"kind": "kill"}, judge)


def refused(command: str) -> Callable[[Ended], str]:
    """Return a judge of runs that may end well, or in one line, or with a failed cell."""

    def judge(ended: Ended) -> str:
        failed_cell = command == "run" and ended.status == 1 and "\nfailed: " in ended.printed
        well = ended.status == 0 or ended.is_clear(command) or failed_cell
        if well and "Traceback" not in ended.printed:
            return ""
        return f"status {ended.status}: {ended.printed[-1500:]}"

    return judge


@pytest.mark.parametrize("name", FULL_DISKS)
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(name, place):
    here = place(FULL_DISKS[name])
    fault = {"kind": "errno", "number": errno.ENOSPC}
    disturb(here, name, 5, fault, refused(PROGRAM[here.name]))


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_folder_that_cannot_be_written_is_one_line(name, place):
    here = place(READ_ONLY[name])
    here.count()
    folder = here.fresh()
    ended = here.run(folder, fault={"kind": "errno", "number": errno.EACCES, "at": 1})
    wrong = [] if ended.is_clear(PROGRAM[here.name]) else [ended.printed[-600:]]
    problem = here.reruns_equal(folder)
    tally(name, 1, 1, [*wrong, *([problem] if problem else [])][:1])


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_a_run_that_the_next_goes_on_with(name, place):
    command, number = SIGNALS[name]

    def judge(ended: Ended) -> str:
        if ended.status in (130, -number, 0) and "Traceback" not in ended.printed:
            return ""
        return f"status {ended.status}: {ended.printed[-1500:]}"

    disturb(place(command), name, 4, {"kind": "signal", "number": number}, judge)


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_output_loses_nothing(name, place):
    here = place(CLOSED[name])
    here.count()
    folder = here.fresh()
    ended = here.run(folder, closed=True)
    wrong = differences(here.left(folder), here.undisturbed)
    if ended.status or "Traceback" in ended.printed:
        wrong.append(f"status {ended.status}: {ended.printed[-300:]}")
    tally(name, 1, 1, wrong[:1])


@pytest.mark.parametrize("name", HOMELESS)
def test_a_run_needs_no_home(name, place):
    here = place(HOMELESS[name])
    here.count()
    folder = here.fresh()
    ended = here.run(folder, unset=["HOME"])
    wrong = differences(here.left(folder), here.undisturbed)
    tally(name, 1, 1, [*wrong, *([ended.printed[-300:]] if ended.status else [])][:1])


def stored_files(folder: Path) -> list[Path]:
    """Return one stored file of each kind of artifact and name."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("store/*/*/*")):
        kind = path.parts[-3]
        if path.is_file() and path.stat().st_size and kind not in ("reports", "hub"):
            found.setdefault((kind, path.name), path)
    return [*found.values()]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_flipped_byte_is_found_or_harmless(name, place):
    here = place(DAMAGED[name])
    here.count()
    folder, wrong = here.fresh(), []
    assert here.run(folder).status == 0
    files = stored_files(folder)
    picked = files if FULL else [files[at - 1] for at in sample(len(files), 8)]
    for path in picked:
        original = path.read_bytes()
        middle = len(original) // 2
        path.write_bytes(original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :])
        ended = here.run(folder)
        path.write_bytes(original)
        problem = refused(PROGRAM[here.name])(ended)
        if not problem and ended.status == 0:
            problem = ", ".join(differences(here.left(folder), here.undisturbed)[:3])
        if problem:
            wrong.append(f"{path.relative_to(folder)}: {problem}")
    tally(name, len(files), len(picked), wrong)


def test_an_input_that_grows_is_refused_or_read_whole(place):
    """A run that ends well has read the rows of the beginning or all of them, never a part."""
    here, wrong = place("select"), []
    operations = here.count()
    more = {"id": "new", "text": "the dog barks and the cat sleeps"}
    change = {"kind": "change", "path": "p.jsonl", "text": json.dumps(more) + "\n"}
    after = here.fresh()
    with (after / "p.jsonl").open("a") as file:
        file.write(change["text"])
    assert here.run(after).status == 0
    grown = here.left(after)
    tried = sample(len(operations), 8)
    for at in tried:
        folder = here.fresh()
        ended = here.run(folder, fault={**change, "at": at})
        problem = refused("select")(ended)
        if not problem and ended.status == 0:
            result = here.left(folder)
            either = [differences(result, one) for one in (here.undisturbed, grown)]
            problem = ", ".join(min(either, key=len)[:3])
        # The next run reads what is there now; what an earlier one stored is under another key.
        again = here.run(folder)
        chosen = {k: v for k, v in here.left(folder).items() if k.startswith("out/")}
        expected = {k: v for k, v in grown.items() if k.startswith("out/")}
        problem = (
            problem or ", ".join(differences(chosen, expected)) or again.printed * again.status
        )
        if problem:
            wrong.append(f"at {operations[at - 1]}: {problem}")
    tally(CHANGED, len(operations), len(tried), wrong)


@pytest.mark.parametrize("name", TOGETHER)
def test_two_runs_at_once(name, place):
    """Two outputs of one store are equal; of two runs with one output, one may be refused."""
    here, wrong = place("select"), []
    here.count()
    tries = 8 if FULL else 3
    for _ in range(tries):
        folder = here.fresh()
        other = [*SELECT]
        if TOGETHER[name] == "store":
            other[other.index("out")] = "out2"
        ended = here.server.together(folder, {"arguments": SELECT}, {"arguments": other})
        problem = "".join(refused("select")(one) for one in ended)
        if all(one.status for one in ended):
            problem += "neither ended well"
        if TOGETHER[name] == "store":
            selected = {(folder / out / "selected.parquet").read_bytes() for out in ("out", "out2")}
            problem += "" if len(selected) == 1 else "two selections differ"
            shutil.rmtree(folder / "out2")
        problem = problem or here.reruns_equal(folder)
        if problem:
            wrong.append(problem)
    tally(name, tries, tries, wrong)
