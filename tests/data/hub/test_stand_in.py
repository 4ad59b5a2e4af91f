"""`gotd fetch` from a stand-in of the Hub that drops, refuses, moves and renames, then offline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_cases import FETCH, fill_hub
from fault_runs import Ended, Server, left
from hub_stand_in import Fault, HubStandIn, Repository

pytestmark = pytest.mark.slow

GLUE = "datasets/nyu-mll/glue"
BOOKS = "datasets/lucadiliello/bookcorpusopen"


class Given:
    """A stand-in, and a process that asks it."""

    def __init__(self, home: Path) -> None:
        self.hub = HubStandIn()
        fill_hub(self.hub)
        self.server = Server(self.hub.environment(home))

    def fetch(self, folder: Path, *more: str) -> Ended:
        """Run `gotd fetch` in a folder; every request for content must name a commit."""
        ended = self.server.run(folder, [*FETCH, *more], prepare="fault_cases:few_rows")
        assert self.hub.unpinned() == []
        assert "Traceback" not in ended.printed
        return ended


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    there = Given(tmp_path_factory.mktemp("home"))
    yield there
    there.server.close()
    there.hub.shutdown()


@pytest.fixture(scope="module")
def fetched(given: Given, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = given.fetch(folder)
    assert ended.status == 0, ended.printed
    commits = json.loads((folder / "hub" / "revisions.json").read_text())
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits.values())
    return left(folder)


FAULTS = {
    "503 for a commit": Fault(r"/api/datasets/nyu-mll/glue$", 2, 503),
    "429 with a time to wait": Fault(r"/api/datasets/nyu-mll/glue$", 1, 429, {"Retry-After": "1"}),
    "a dropped connection": Fault(r"/api/datasets/nyu-mll/glue$", 2),
    "503 for a file of a corpus": Fault(r"bookcorpusopen/resolve/.*parquet", 2, 503),
    "a file that is cut": Fault(r"bookcorpusopen/resolve/.*parquet", 1, cut_after=300),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_passes_changes_nothing(given, fetched, tmp_path, name):
    given.hub.faults = [FAULTS[name]]
    ended = given.fetch(tmp_path)
    assert ended.status == 0, ended.printed
    assert FAULTS[name].times == 0
    assert left(tmp_path) == fetched


def test_what_was_fetched_needs_no_hub_and_keeps_its_commit(given, fetched, tmp_path):
    assert given.fetch(tmp_path).status == 0
    repository = given.hub.repositories[GLUE]
    before = dict(repository.commits)
    given.hub.commit(GLUE, {"README.md": b"moved on"})
    given.hub.faults = [Fault(".", 10**6, 503)]
    asked = len(given.hub.requests)
    try:
        assert given.fetch(tmp_path).status == 0
    finally:
        repository.commits = before
        given.hub.faults = []
    assert len(given.hub.requests) == asked
    assert left(tmp_path) == fetched


def test_a_renamed_repository_is_followed(given, fetched, tmp_path):
    hub = given.hub
    hub.repositories["datasets/new/books"] = hub.repositories[BOOKS]
    hub.repositories[BOOKS] = Repository(moved_to="datasets/new/books")
    try:
        ended = given.fetch(tmp_path)
    finally:
        hub.repositories[BOOKS] = hub.repositories.pop("datasets/new/books")
    assert ended.status == 0, ended.printed
    assert left(tmp_path) == fetched


def test_a_gated_repository_is_one_line(given, tmp_path):
    books = given.hub.repositories[BOOKS]
    books.gated = True
    try:
        ended = given.fetch(tmp_path)
    finally:
        books.gated = False
    assert ended.is_clear("fetch"), ended.printed
    assert "bookcorpusopen" in ended.printed
    assert given.fetch(tmp_path).status == 0
