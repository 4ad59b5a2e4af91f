"""Requests to the Hub: a limit, retries, and the right cause (K11)."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.schemas import Chunking
from gotd.data.base import SourceUnavailable, read_all
from gotd.data.hub import source as hub
from gotd.data.hub.access import RECIPE, HubAccess, SourceAbsent
from gotd.data.hub.corpora import COPIES
from gotd.data.hub.source import Hub
from gotd.data.sizes import expected_chunks
from gotd.pipeline.record import hub_models
from gotd.storage import hub_requests
from gotd.storage.artifacts import Step
from gotd.storage.hub_requests import asked, cause_of


def answered(status: int, **headers: str) -> OSError:
    error = OSError(f"{status} Error")
    error.response = SimpleNamespace(status_code=status, headers=headers)
    return error


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(hub_requests.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (answered(401), "absent"),
        (answered(403), "absent"),
        (answered(404), "absent"),
        (answered(429), "temporary"),
        (answered(503), "temporary"),
        (ConnectionResetError("reset"), "temporary"),
        (TimeoutError(), "temporary"),
        (OSError(errno.ENOSPC, "full"), "disk"),
        (RuntimeError("own defect"), "other"),
    ],
)
def test_causes_are_told_apart(error, cause):
    """C25: a full disk was reported as an unreachable Hub."""
    assert cause_of(error) == cause
    outer = RuntimeError("outer")
    outer.__cause__ = error
    assert cause_of(outer) == cause


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_is_made_again(waits, status):
    """B31: one answer of 503 ended a cell."""
    errors = [answered(status, **{"Retry-After": "7"}), answered(status), ConnectionError()]

    def request():
        if errors:
            raise errors.pop(0)
        return "answer"

    assert asked(request, "x") == "answer"
    assert waits == [7.0, *hub_requests.WAITS_S[1:]]


def test_what_is_absent_is_asked_for_once(waits):
    def request():
        raise answered(404)

    with pytest.raises(OSError, match="404"):
        asked(request, "x")
    assert waits == []


def test_every_request_has_a_time_limit(monkeypatch):
    """B30: a Hub that accepts and does not answer was waited for without end."""
    session = SimpleNamespace(timeout=None)
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
    asked(lambda: 1, "x")
    assert session.timeout == hub_requests.TIMEOUT_S


def test_row_counts_of_a_card_are_not_checked(tmp_path, monkeypatch):
    """B32: a stale card stopped the rows."""
    seen = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **options: seen.update(options))
    HubAccess(tmp_path / "r.json", "").load("x", "owner/name")
    assert seen["verification_mode"] == "no_checks"


@pytest.mark.parametrize(("status", "error"), [(503, SourceUnavailable), (404, None)])
def test_a_second_copy_stands_in_only_for_one_that_is_gone(
    tmp_path, monkeypatch, waits, status, error
):
    """B33: after one 503 another copy was read for good."""
    first, second = COPIES["chemprot"]

    def info(_, dataset, **__):
        if dataset == first:
            raise answered(status)
        return SimpleNamespace(sha="a" * 40)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    here = Hub(str(tmp_path), suite="domain")
    if error is None:
        assert here._domain_copy("chemprot")["dataset"] == second
        return
    with pytest.raises(error, match="did not answer; run the same command again later") as raised:
        here._domain_copy("chemprot")
    assert not isinstance(raised.value, SourceAbsent)


def test_a_larger_sample_serves_a_smaller_one(tmp_path, monkeypatch):
    """A20: each size overwrote the other, and was streamed again."""
    monkeypatch.setattr(Hub, "_fetch_domain", lambda *_: pytest.fail("fetched again"))
    (tmp_path / "revisions.json").write_text(
        json.dumps({corpus.dataset: "a" * 40 for corpus in hub.CORPORA.values()})
    )
    large = Hub(str(tmp_path), domains=("books",), chars_per_domain=1000)
    texts = [f"{i:03d} " + "x" * 16 for i in range(60)]
    rows = pa.table({"id": [f"books/{i}" for i in range(60)], "text": texts})
    rows = rows.append_column("domain", pa.array(["books"] * 60))
    recipe = {RECIPE: json.dumps(large.corpus_recipe("books")).encode()}
    path = tmp_path / "candidates" / "books.parquet"
    path.parent.mkdir()
    pq.write_table(rows.replace_schema_metadata(recipe), path)
    before = path.read_bytes()
    small = Hub(str(tmp_path), domains=("books",), chars_per_domain=200, held_out_chars=100)
    assert read_all(small.candidates())["text"].to_pylist() == texts[:10]
    assert read_all(small.held_out())["text"].to_pylist() == texts[10:15]
    assert read_all(large.candidates())["text"].to_pylist() == texts[:50]
    assert path.read_bytes() == before
    assert small.corpus_recipe("books") != large.corpus_recipe("books")


def test_the_record_has_the_commits_of_the_models(tmp_path):
    """A3: the models of the Hub were not recorded."""
    model = {"hub": "owner/name", "revision": "c" * 40}
    base = Step("base", 1, "b", {"spec": {"pretrained": model}}, print)
    last = Step("last", 1, "l", {"encoder": {"model": {"folder": "f"}}}, print, {"base": base})
    assert hub_models([last]) == {("owner/name", "c" * 40)}
    assert hub_models([Step("x", 1, "x", {}, print)]) == set()


def test_one_process_at_a_time_streams_a_corpus(tmp_path, monkeypatch):
    """C24: two processes streamed the same one."""
    locks = []

    class Locked:
        def __init__(self, path, *_):
            locks.append(path.name)

        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(hub, "locked", Locked)
    monkeypatch.setattr(Hub, "corpus_recipe", lambda *_: {"chars": 1})
    monkeypatch.setattr(Hub, "_fetch_domain", lambda _, domain, path, recipe: path)
    Hub(str(tmp_path)).domain_file("books")
    assert locks == ["books"]


@pytest.mark.parametrize(("length", "chunks"), [(1000, 4000), (500, 8000), (2000, 2000)])
def test_a_plan_counts_chunks_of_their_own_length(tmp_path, length, chunks):
    """B34: half of the chunks of 500 characters were planned."""
    source = Hub(str(tmp_path), domains=("books",), chars_per_domain=4_000_000)
    assert expected_chunks(source, Chunking("fixed", length)) == chunks
