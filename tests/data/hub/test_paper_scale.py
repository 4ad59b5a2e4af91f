"""Every experiment at the scale of the paper, on a stand-in of the Hub: online, then offline.

Cells are tiny; what they ask the Hub for has its published names, files and numbers of rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fault_runs import Ended, Server
from hub_cases import GAP, LINES, POOL, SMALL, STAGES, Line, write_data
from hub_models import BERT, DISTILBERT, MNLI, bert, distilbert, fill_models
from hub_rows import fill_rows, only_second_copies
from hub_stand_in import Fault, HubStandIn, Repository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CELL = f"experiment=glue scale=paper {SMALL} task=rte budget=16 {POOL} {STAGES}"
MODEL = f"experiment=gap scale=paper {SMALL} {GAP} selector=none model=distilbert"
"""A cell whose rows are of a folder: only its model is fetched."""
OFFLINE = [line for line in LINES if line.offline]


def named(line: Line) -> str:
    return f"{line.experiment}-{LINES.index(line)}"


class Given:
    """A stand-in with all that is published, and a process that asks it."""

    def __init__(self, root: Path) -> None:
        self.hub = HubStandIn()
        fill_models(self.hub)
        fill_rows(self.hub)
        self.root = root
        self.folder = root / "online"
        write_data(self.folder / "data")
        self.server = Server(self.hub.environment(root / "home"))

    def gotd(self, arguments: str | Sequence[str], store: str = "", **options: object) -> Ended:
        """Run a command; every request for content must name a commit."""
        words = arguments.split() if isinstance(arguments, str) else arguments
        ended = self.server.run(
            self.folder, [*words, *([f"store={store}"] if store else [])], **options
        )
        assert self.hub.unpinned() == []
        assert "Traceback" not in ended.printed, ended.printed
        return ended


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    there = Given(tmp_path_factory.mktemp("paper"))
    yield there
    there.server.close()
    there.hub.shutdown()


@pytest.fixture(autouse=True)
def _no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "given" in request.fixturenames:
        request.getfixturevalue("given").hub.faults = []


def finished(ended: Ended, cells: int) -> bool:
    return ended.status == 0 and f"{cells} cells done, 0 failed, 0 missing" in ended.printed


@pytest.mark.parametrize("line", LINES, ids=named)
def test_an_experiment_ends_in_its_records(given, line, record_property):
    asked = len(given.hub.requests)
    ended = given.gotd(["run", *line.overrides], "store")
    assert finished(ended, line.cells), ended.printed
    record_property("requests", len(given.hub.requests) - asked)


@pytest.fixture(scope="module")
def machine(given: Given) -> Iterator[tuple[Server, Path]]:
    """A machine without a network and with an empty cache, to which one folder was copied."""
    for line in OFFLINE:
        ended = given.gotd(["fetch", "--models", *line.cell], "fetched")
        assert ended.status == 0, ended.printed
    folder = given.root / "machine"
    write_data(folder / "data")
    shutil.copytree(given.folder / "fetched" / "hub", folder / "store" / "hub")
    offline = {**given.hub.environment(given.root / "empty"), "HF_HUB_OFFLINE": "1"}
    server = Server(offline)
    yield server, folder
    server.close()


@pytest.mark.parametrize("line", OFFLINE, ids=named)
def test_one_folder_serves_it_without_a_network(given, machine, line):
    server, folder = machine
    given.hub.faults = [Fault(".", 10**6, 503)]
    asked = len(given.hub.requests)
    ended = server.run(folder, ["run", *line.cell, "store=store"])
    assert finished(ended, 1), ended.printed
    assert given.hub.requests[asked:] == []
    for path in (folder / "store" / "record").glob("*/record.json"):
        online = given.folder / "store" / "record" / path.parent.name / "record.json"
        if online.is_file():  # its test has run
            assert measured(path) == measured(online)


def measured(path: Path) -> dict[str, object]:
    record = json.loads(path.read_text("utf-8"))
    return {name: record[name] for name in ("axes", "data", "metrics", "selection", "seeds")}


def test_second_copies_serve_where_the_first_are_gone(given):
    before = dict(given.hub.repositories)
    second = only_second_copies(given.hub)
    ended = given.gotd(
        f"fetch experiment=domain scale=paper {SMALL} candidates.files=[books] {POOL}", "second"
    )
    given.hub.repositories = before
    assert ended.status == 0, ended.printed
    known = json.loads((given.folder / "second" / "hub" / "revisions.json").read_text())
    assert {*second} < {*known}
    assert len(second) == 6


def test_the_model_of_a_pull_request_is_fetched_at_its_commit(given):
    """The published runs of RTE with 50,000 rows start from it."""
    large = f"experiment=glue scale=paper {SMALL} task=rte {STAGES} protocol=published"
    ended = given.gotd(f"fetch --models {large} selector=random budget=50000 {POOL}", "published")
    assert ended.status == 0, ended.printed
    commit = given.hub.repositories[f"models/{MNLI}"].branches["refs/pr/1"]
    folder = given.folder / "published" / "hub"
    known = json.loads((folder / "revisions.json").read_text())
    assert known[f"models/{MNLI}@refs/pr/1"] == commit
    assert (folder / "models" / MNLI.replace("/", "--") / commit / "model.safetensors").is_file()


FAULTS = [
    Fault(rf"/api/models/{DISTILBERT}$", 1, 503),
    Fault(rf"/api/models/{DISTILBERT}$", 1, 429, {"Retry-After": "1"}),
    Fault(rf"/{DISTILBERT}/resolve/.*/config.json", 1),  # the connection is dropped
    Fault(rf"/{DISTILBERT}/resolve/.*/tokenizer_config", 1, 503),
    Fault(rf"/{DISTILBERT}/resolve/.*safetensors", 1, cut_after=900),
]


def test_faults_that_pass_change_no_model(given):
    commit = given.hub.commit(f"models/{DISTILBERT}", distilbert(100))
    given.hub.faults = FAULTS
    ended = given.gotd(f"fetch --models {MODEL}", "faults")
    assert ended.status == 0, ended.printed
    assert [fault.times for fault in FAULTS] == [0] * len(FAULTS)
    place = given.folder / "faults" / "hub" / "models" / DISTILBERT.replace("/", "--") / commit
    whole = given.hub.repositories[f"models/{DISTILBERT}"].commits[commit]
    for path in place.iterdir():
        assert path.read_bytes() == whole[path.name]
    assert {path.name for path in place.iterdir()} == {*whole} - {"README.md", "onnx/config.json"}


def test_a_model_that_moves_between_two_cells_stays_at_its_commit(given):
    first = given.gotd(f"run {CELL} selector=none", "moved")
    assert finished(first, 1), first.printed
    known = json.loads((given.folder / "moved" / "hub" / "revisions.json").read_text())
    moved = given.hub.commit(f"models/{BERT}", bert(9))
    second = given.gotd(f"run {CELL} selector=random", "moved")
    assert finished(second, 1), second.printed
    assert known[f"models/{BERT}"] != moved
    after = json.loads((given.folder / "moved" / "hub" / "revisions.json").read_text())
    assert {name: after[name] for name in known} == known
    assert not any(moved in one for one in given.hub.requests)


def test_a_renamed_model_is_followed(given):
    hub = given.hub
    hub.commit(f"models/{DISTILBERT}", distilbert(200))
    hub.repositories["models/new/name"] = hub.repositories[f"models/{DISTILBERT}"]
    hub.repositories[f"models/{DISTILBERT}"] = Repository(moved_to="models/new/name")
    try:
        ended = given.gotd(f"run {CELL} selector=none model=distilbert", "renamed")
    finally:
        hub.repositories[f"models/{DISTILBERT}"] = hub.repositories.pop("models/new/name")
    assert finished(ended, 1), ended.printed


def test_a_gated_model_is_one_line(given):
    hub = given.hub
    hub.commit(f"models/{DISTILBERT}", distilbert(300))
    hub.repositories[f"models/{DISTILBERT}"].gated = True
    try:
        ended = given.gotd(f"run {CELL} selector=none model=distilbert", "gated")
    finally:
        hub.repositories[f"models/{DISTILBERT}"].gated = False
    assert ended.status == 1, ended.printed
    assert f"the model '{DISTILBERT}' is gated on the Hub: accept its terms" in ended.printed
    again = given.gotd(f"run {CELL} selector=none model=distilbert", "gated")
    assert finished(again, 1), again.printed


def test_a_pushed_model_is_a_base(given):
    if not finished(given.gotd(f"run {CELL} selector=random", "pushed"), 1):
        pytest.fail("the cell did not run")
    token = {"HF_TOKEN": "hf_any"}
    line = f"export {CELL} selector=random store=pushed --out model --push tester/warm"
    ended = given.gotd(line, env=token)
    assert ended.status == 0, ended.printed
    there = given.hub.repositories["models/tester/warm"]
    files = there.commits[there.at("main") or ""]
    for path in (given.folder / "model").iterdir():
        assert files[path.name] == path.read_bytes()
    again = given.gotd(f"run {CELL} selector=none model.spec.pretrained=tester/warm", "from-pushed")
    assert finished(again, 1), again.printed
