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
    SIGNALS,
    TOGETHER,
    fill_hub,
    write_rows,
)
from fault_injection import change
from fault_runs import FULL, Ended, Server, differences, left, sample
from hub_stand_in import HubStandIn

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(3600)]


class Given:
    """What the cases of a process share: servers, and one undisturbed run of each command."""

    def __init__(self, base: Path) -> None:
        self.base, self.hub = base, HubStandIn()
        self.servers: dict[str, Server] = {}
        self.places: dict[str, Place] = {}

    def server(self, command: str) -> Server:
        """Return the server of a command; only that of `gotd fetch` asks the Hub stand-in."""
        kind = "hub" if command == "fetch" else "offline"
        if kind not in self.servers:
            environment = {}
            if kind == "hub":
                fill_hub(self.hub)
                environment = self.hub.environment(self.base / "home")
            self.servers[kind] = Server(environment)
        return self.servers[kind]

    def place(self, name: str) -> Place:
        """Return the place of a command, after its undisturbed run."""
        if name not in self.places:
            self.places[name] = Place(self, name)
        return self.places[name]

    def close(self) -> None:
        """End the servers; none has asked for content without a commit."""
        for server in self.servers.values():
            server.close()
        self.hub.shutdown()
        assert self.hub.unpinned() == []


class Place:
    """Runs one command in fresh folders, and compares what it leaves.

    Args:
        given: What the cases share.
        name: Of the command.
    """

    def __init__(self, given: Given, name: str) -> None:
        self.server, self.name, self.base, self.made = given.server(name), name, given.base, 0
        self.command = COMMANDS[name]
        self.finished = given.place("sweep").whole if self.command.needs == "cell" else None
        self.whole = self.fresh()
        ended = self.run(self.whole)
        assert ended.status == 0, ended.printed
        self.operations, self.undisturbed = ended.operations, self.left(self.whole)

    def fresh(self) -> Path:
        """Make a folder with the command's input."""
        self.made += 1
        folder = self.base / f"{self.name}{self.made}"
        folder.mkdir()
        if self.command.needs == "rows":
            write_rows(folder)
        if self.finished is not None:
            (records,) = self.finished.glob("store/reports/*/records.jsonl")
            shutil.copy(records, folder)
            if self.name == "export":
                (folder / "store").symlink_to(self.finished / "store")  # it is only read
        return folder

    def run(self, folder: Path, **options: Any) -> Ended:
        """Run the command in a folder."""
        if self.name == "fetch":
            options |= {"prepare": "fault_cases:few_rows"}
        return self.server.run(folder, self.command.arguments, **options)

    def together(self, folder: Path, *all_arguments: list[str]) -> list[Ended]:
        """Run the command several times at once."""
        prepared = {"prepare": "fault_cases:few_rows"} if self.name == "fetch" else {}
        runs = [{"arguments": arguments, **prepared} for arguments in all_arguments]
        return self.server.together(folder, *runs)

    def left(self, folder: Path) -> dict[str, str]:
        """Return what the command left, and every other name there."""
        found = {}
        for result in self.command.results:
            found |= {f"{result}/{name}": sum_ for name, sum_ in left(folder / result).items()}
        return found | {name.name: "top" for name in folder.iterdir()}

    def refused(self, ended: Ended) -> str:
        """Return what is wrong with a run that may end well or in one line, or nothing."""
        well = ended.status == 0 or ended.is_clear(self.command.start)
        if well and "Traceback" not in ended.printed:
            return ""
        return f"status {ended.status}: {ended.printed[-1500:]}"

    def reruns_equal(self, folder: Path) -> str:
        """Run it again undisturbed; return what is wrong, or nothing."""
        ended = self.run(folder)
        # A run that was killed after its last step has done its work, which is not replaced.
        done = self.name == "export" and ended.is_clear(self.command.start)
        if ended.status and not done:
            return f"the rerun ended with {ended.status}: {ended.printed[-600:]}"
        wrong = differences(self.left(folder), self.undisturbed)
        return f"the rerun differs in {wrong[:5]}" if wrong else ""

    def disturb(self, name: str, fault: dict[str, Any], judge: Callable[[Ended], str]) -> None:
        """Run it with a fault at each operation of a sample, then again without."""
        wrong = []
        kind = "full" if fault["kind"] == "errno" else fault["kind"]
        tried = sample(len(self.operations), self.command.tries[kind])
        for at in tried:
            folder = self.fresh()
            ended = self.run(folder, fault={**fault, "at": at})
            # A fetch makes fewer operations once the libraries' own cache is filled.
            reached = len(ended.operations) >= at
            problem = (judge if reached else well)(ended) or self.reruns_equal(folder)
            if problem:
                wrong.append(f"at {self.operations[at - 1]}: {problem}")
            shutil.rmtree(folder)
        tally(name, len(self.operations), len(tried), wrong)

    def once(self, name: str, expected: Callable[[Ended], str], **options: Any) -> None:
        """Run it once with other surroundings; it must leave the same bytes."""
        folder = self.fresh()
        ended = self.run(folder, **options)
        problem = expected(ended) or ", ".join(differences(self.left(folder), self.undisturbed))
        tally(name, 1, 1, [problem] if problem else [])


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    there = Given(tmp_path_factory.mktemp("suite"))
    yield there
    there.close()


def tally(name: str, operations: int, tried: int, wrong: list[str]) -> None:
    """Count a case for the table, and fail where something is wrong."""
    if table := os.environ.get("FAULTS_TABLE"):
        counts = {"operations": operations, "tried": tried, "passed": tried - len(wrong)}
        row = {"case": name, **counts, "wrong": wrong}
        with Path(table).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_run_is_made_good_by_the_next(name, given):
    def judge(ended: Ended) -> str:
        return "" if ended.status == -9 else f"it was not killed: {ended.status}"

    given.place(KILLS[name]).disturb(name, {"kind": "kill"}, judge)


@pytest.mark.parametrize("name", FULL_DISKS)
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(name, given):
    here = given.place(FULL_DISKS[name])
    here.disturb(name, {"kind": "errno", "number": errno.ENOSPC}, here.refused)


@pytest.mark.parametrize("name", READ_ONLY)
def test_a_folder_that_cannot_be_written_is_one_line(name, given):
    here = given.place(READ_ONLY[name])
    folder = here.fresh()
    ended = here.run(folder, fault={"kind": "errno", "number": errno.EACCES, "at": 1})
    problem = "" if ended.is_clear(here.command.start) else ended.printed[-600:]
    problem = problem or here.reruns_equal(folder)
    tally(name, 1, 1, [problem] if problem else [])


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_a_run_that_the_next_goes_on_with(name, given):
    command, number = SIGNALS[name]

    def judge(ended: Ended) -> str:
        if ended.status in (130, -number, 0) and "Traceback" not in ended.printed:
            return ""
        return f"status {ended.status}: {ended.printed[-1500:]}"

    given.place(command).disturb(name, {"kind": "signal", "number": number}, judge)


def well(ended: Ended) -> str:
    """Return what is wrong with a run that must end well, or nothing."""
    if ended.status == 0 and "Traceback" not in ended.printed:
        return ""
    return f"status {ended.status}: {ended.printed[-600:]}"


@pytest.mark.parametrize("name", CLOSED)
def test_a_closed_output_loses_nothing(name, given):
    given.place(CLOSED[name]).once(name, well, closed=True)


@pytest.mark.parametrize("name", HOMELESS)
def test_a_run_needs_no_home(name, given):
    given.place(HOMELESS[name]).once(name, well, unset=["HOME"])


@pytest.mark.parametrize("name", CHANGED)
def test_an_input_that_changes_is_refused_or_read_whole(name, given):
    """A run that ends well has read the rows of the beginning or all others, never a part."""
    here, how, wrong = given.place("select"), CHANGED[name], []
    after = here.fresh()
    change(after / "p.jsonl", how)
    assert here.run(after).status == 0
    changed = here.left(after)
    tried = sample(len(here.operations), here.command.tries["full"])
    for at in tried:
        folder = here.fresh()
        ended = here.run(folder, fault={"kind": "change", "path": "p.jsonl", "how": how, "at": at})
        problem = here.refused(ended)
        if not problem and ended.status == 0:
            either = [differences(here.left(folder), one) for one in (here.undisturbed, changed)]
            problem = ", ".join(min(either, key=len)[:3])
        # The next run reads what is there now; what an earlier one stored is under another key.
        again = here.run(folder)
        chosen, expected = (
            {k: v for k, v in one.items() if k.startswith("out/")}
            for one in (here.left(folder), changed)
        )
        problem = problem or ", ".join(differences(chosen, expected)) or well(again)
        if problem:
            wrong.append(f"at {here.operations[at - 1]}: {problem}")
    tally(name, len(here.operations), len(tried), wrong)


def stored_files(here: Place, folder: Path) -> list[Path]:
    """Return what to damage: records, a model, or a file of each kind of artifact and name."""
    if here.name == "report":
        return [folder / "records.jsonl"]
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("store/*/*/*")):
        kind = path.parts[-3]
        wanted = kind == "pre_fine_tuned" if here.name == "export" else kind != "reports"
        if path.is_file() and path.stat().st_size and wanted:
            found.setdefault((kind, path.name), path)
    return [*found.values()]


def damaged(content: bytes, how: str) -> bytes:
    """Return a content with a flipped byte in its middle, or without its second half."""
    middle = len(content) // 2
    if how == "cut":
        return content[:middle]
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_found_or_harmless(name, given):
    command, how, most = DAMAGED[name]
    here, wrong = given.place(command), []
    folder = here.base / f"{command}-{how}"
    if command == "export":
        assert here.finished is not None
        folder = here.fresh()
        (folder / "store").unlink()
        shutil.copytree(here.finished / "store", folder / "store")
    else:
        shutil.copytree(here.whole, folder)
    files = stored_files(here, folder)
    picked = [files[at - 1] for at in sample(len(files), most)]
    for path in picked:
        original = path.read_bytes()
        path.write_bytes(damaged(original, how))
        ended = here.run(folder)
        path.write_bytes(original)
        problem = "" if failed_cell(here, ended) else here.refused(ended)
        if not problem and ended.status == 0:
            problem = ", ".join(differences(here.left(folder), here.undisturbed)[:3])
        if command == "export":
            shutil.rmtree(folder / "model", ignore_errors=True)
        if problem:
            wrong.append(f"{path.relative_to(folder)}: {problem}")
    tally(name, len(files), len(picked), wrong)


def failed_cell(here: Place, ended: Ended) -> bool:
    """Return whether a sweep has a failed cell, whose reason is one line of its report."""
    lines = [line for line in ended.printed.splitlines() if line.startswith("failed: ")]
    found = here.name == "sweep" and ended.status == 1 and len(lines) == 1
    return found and "Traceback" not in ended.printed


@pytest.mark.parametrize("name", TOGETHER)
def test_two_runs_at_once(name, given):
    """Two runs end in the same bytes; of two runs with one output, one may be refused."""
    command, other_out, tries = TOGETHER[name]
    here, wrong = given.place(command), []
    tries = 8 if FULL else tries
    for _ in range(tries):
        folder = here.fresh()
        arguments = here.command.arguments
        other = [other_out if other_out and one == "out" else one for one in arguments]
        ended = here.together(folder, arguments, other)
        problem = "".join(map(here.refused, ended))
        if all(one.status for one in ended):
            problem += "neither ended well"
        if other_out:
            selected = {(folder / out / "selected.parquet").read_bytes() for out in ("out", "out2")}
            problem += "" if len(selected) == 1 else "two selections differ"
            shutil.rmtree(folder / "out2")
        problem = problem or here.reruns_equal(folder)
        if problem:
            wrong.append(problem)
    tally(name, tries, tries, wrong)
