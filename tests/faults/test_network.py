"""Every request to the network has a time limit, retries and the right cause (K11)."""

from __future__ import annotations

import ast
import errno
import socket
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError

import huggingface_hub
import pytest

from gotd.embedding.encoders import TransformerEncoder
from gotd.runs import export
from gotd.storage import hub_models, hub_requests, model_files
from gotd.storage.hub_requests import TIMEOUT_S, cause_of

SOURCES = Path(__file__).parents[2] / "src" / "gotd"
REQUESTS = {
    "create_commit",
    "create_repo",
    "dataset_info",
    "download_url_to_file",
    "from_pretrained",
    "get_hf_file_metadata",
    "hf_hub_download",
    "load_dataset",
    "model_info",
    "repo_info",
    "snapshot_download",
    "upload_file",
    "upload_folder",
    "whoami",
}


LOCAL = {("training/loading.py", "from_pretrained")}
"""Calls with a folder alone, whose files were asked for before."""


def answered(status: int) -> OSError:
    error = OSError(f"{status} Error")
    error.response = SimpleNamespace(status_code=status, headers={})
    return error


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    slept: list[float] = []
    hub_models._ask_commit.cache_clear()
    monkeypatch.setattr(hub_requests.time, "sleep", slept.append)
    return slept


class Hub:
    """Fails with some errors, then gives an answer.

    Args:
        errors: What each request raises, in order.
        answer: What the others return.
    """

    def __init__(self, errors, answer=None):
        self.errors, self.answer, self.asked = list(errors), answer, 0

    def __call__(self, *_, **__):
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.answer


def test_no_request_is_sent_but_by_the_one_function_for_it():
    direct = []
    for path in SOURCES.rglob("*.py"):
        text = path.read_text("utf-8")
        if not any(name in text for name in REQUESTS):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                place = path.relative_to(SOURCES).as_posix()
                if name in REQUESTS and (place, name) not in LOCAL:
                    direct.append((place, name))
    assert direct == []


def test_the_configuration_of_a_model_is_asked_for_again(monkeypatch, waits, tmp_path):
    hub = Hub([answered(503), ConnectionResetError("reset")], str(tmp_path / "config.json"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    monkeypatch.setattr(hub_models, "hub_commit", lambda *_: "c" * 40)
    assert model_files.config_file("me/model") == tmp_path / "config.json"
    assert (hub.asked, len(waits)) == (3, 2)


@pytest.mark.parametrize(
    ("error", "says", "times"),
    [
        (answered(503), "now .*; run the same command again later", 4),
        (answered(404), "is neither a folder nor reachable on the Hub", 1),
        (OSError(errno.ENOSPC, "full"), "cannot be kept on this disk .*; free some space", 1),
    ],
)
def test_why_a_model_cannot_be_read_is_said(monkeypatch, waits, error, says, times):
    from gotd.training.models import resolve_folder

    # The commit cannot be asked for, then it is known and no file can be read.
    hub = Hub([error] * 9)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", hub)
    with pytest.raises(OSError, match=says):
        model_files.config_file("me/model")
    with pytest.raises(OSError, match=says):
        resolve_folder("me/model")
    assert hub.asked == times
    monkeypatch.setattr(hub_models, "hub_commit", lambda *_: "c" * 40)
    for request, load in (
        ("hf_hub_download", model_files.config_file),
        ("HfApi.model_info", resolve_folder),
    ):
        hub = Hub([error] * 9)
        monkeypatch.setattr(f"huggingface_hub.{request}", hub)
        with pytest.raises(OSError, match=says):
            load("me/model")
        assert hub.asked == times


@pytest.mark.parametrize(
    ("status", "says"), [(503, "cannot be read from the Hub now"), (404, "no encoder 'me/model'")]
)
def test_why_an_encoder_cannot_be_read_is_said(monkeypatch, waits, status, says):
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", Hub([answered(status)] * 9))
    with pytest.raises(FileNotFoundError, match=says):
        TransformerEncoder("model", "me/model").width()


def test_a_dropped_connection_is_no_offline_mode():
    """`huggingface_hub` raises one class for both."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    for cause, expected in (
        (ConnectionResetError("reset"), "temporary"),
        (OfflineModeIsEnabled("offline"), "other"),
    ):
        error = LocalEntryNotFoundError("not here")
        error.__cause__ = cause
        assert cause_of(error) == expected
    busy = HTTPError("http://x", 503, "busy", None, None)  # type: ignore[arg-type]
    assert cause_of(busy) == "temporary"


@pytest.mark.parametrize("status", [401, 503])
def test_a_model_that_cannot_be_pushed_stays_here(monkeypatch, waits, tmp_path, status):
    """A traceback, or the words of the library, after the export was done."""
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", Hub([answered(503)]))
    uploads = Hub([answered(status)] * 9)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", uploads)
    with pytest.raises(OSError, match=f"the model is in {tmp_path}: upload that folder"):
        export._push("me/warm", tmp_path)
    assert uploads.asked == (4 if status == 503 else 1)


def test_the_release_of_a_scorer_has_a_time_limit_and_retries(monkeypatch, waits, tmp_path):
    import torch

    from gotd.evaluation.scorers import detoxify

    limits = []

    def download(_, path, *__, **___):
        limits.append(socket.getdefaulttimeout())
        if len(limits) == 1:
            raise ConnectionResetError("reset")
        Path(path).write_bytes(b"x")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(detoxify, "checksum", lambda _: detoxify.RELEASE_SHA256)
    assert detoxify._fetch().read_bytes() == b"x"
    assert limits == [TIMEOUT_S, TIMEOUT_S]
    assert socket.getdefaulttimeout() is None
