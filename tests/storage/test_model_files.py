"""A model is identified by what its weights are, not by what it is called."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from gotd.storage.hub_models import (
    CHOICES,
    FOLDER,
    FOLDERS,
    _ask_commit,
    _report_password,
    fetch_model,
    hub_variables,
    use_hub_folder,
)
from gotd.storage.model_files import config_file, is_known, model_identity
from gotd.training.loading import load_config


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setenv(FOLDER, "")
    _ask_commit.cache_clear()
    yield
    _ask_commit.cache_clear()


def folder(path: Path, weights: str) -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(weights)
    return path


def test_a_folder_is_identified_by_its_files(tmp_path):
    one = model_identity(str(folder(tmp_path / "a" / "model", "1")))
    assert model_identity(str(folder(tmp_path / "b" / "model", "1"))) == one
    assert model_identity(str(folder(tmp_path / "c" / "model", "2"))) != one


def cache(root: Path, commit: str) -> None:
    """Write what the Hub's cache holds of one model, whose main branch is at a commit."""
    model = root / "models--owner--name"
    (model / "refs").mkdir(parents=True, exist_ok=True)
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots" / commit).mkdir(parents=True)
    (model / "snapshots" / commit / "config.json").write_text(f'{{"at": "{commit[0]}"}}')


def test_a_hub_model_in_the_cache_is_identified_by_its_commit(tmp_path, monkeypatch):
    commit = "a" * 40
    cache(tmp_path, commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_identity("owner/name") == {"hub": "owner/name", "revision": commit}


def test_a_hub_model_that_is_not_in_the_cache_is_looked_up_once(tmp_path, monkeypatch):
    asked = []

    def model_info(self, model, revision, timeout):
        asked.append((model, revision))
        return SimpleNamespace(sha="b" * 40)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    for _ in range(2):
        assert model_identity("owner/other", "v1")["revision"] == "b" * 40
    assert asked == [("owner/other", "v1")]


@pytest.mark.parametrize("name", ["owner/absent", "no name: of the Hub's"])
def test_without_the_hub_the_given_revision_is_used(name):
    assert model_identity(name, "v1") == {"hub": name, "revision": "v1"}


def test_a_recorded_commit_stays_when_the_branch_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    use_hub_folder(tmp_path / "hub")
    for commit in ("a" * 40, "b" * 40):
        cache(tmp_path / "cache", commit)
        _ask_commit.cache_clear()  # as in another process
        assert model_identity("owner/name")["revision"] == "a" * 40
        assert config_file("owner/name").read_text() == '{"at": "a"}'
    assert json.loads((tmp_path / "hub" / "revisions.json").read_text()) == {
        "models/owner/name": "a" * 40
    }
    use_hub_folder(tmp_path / "another")
    assert model_identity("owner/name")["revision"] == "b" * 40


def test_a_revision_has_a_record_of_its_own(tmp_path, monkeypatch):
    commits = iter("ab")
    found = lambda *_, **__: SimpleNamespace(sha=next(commits) * 40)  # noqa: E731
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", found)
    use_hub_folder(tmp_path)
    assert model_identity("owner/one")["revision"] == "a" * 40
    assert model_identity("owner/one", "refs/pr/1")["revision"] == "b" * 40
    assert model_identity("owner/one", "c" * 40)["revision"] == "c" * 40


def test_the_only_commit_in_the_cache_serves_without_the_hub(tmp_path, monkeypatch):
    """What was loaded by its commit leaves no branch in the cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cache(tmp_path, "a" * 40)
    (tmp_path / "models--owner--name" / "refs" / "main").unlink()
    assert model_identity("owner/name")["revision"] == "a" * 40
    _ask_commit.cache_clear()
    (tmp_path / "models--owner--name" / "snapshots" / ("b" * 40)).mkdir()
    assert model_identity("owner/name")["revision"] is None


def test_a_tokenizer_without_a_network_is_known_by_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cache(tmp_path, "a" * 40)
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("a" * 40)
    (snapshot / "config.json").rename(snapshot / "tokenizer.json")
    assert is_known("owner/name")
    assert model_identity("owner/name")["revision"] == "a" * 40


def test_no_model_is_read_without_a_commit():
    """A3: `main` may be another commit than that of the key, which has none."""
    with pytest.raises(OSError, match="the commit of owner/absent is known neither here nor"):
        load_config("owner/absent")


def test_a_part_of_a_model_is_not_kept(tmp_path, monkeypatch):
    """`gotd plan` leaves its configuration alone in the cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    cache(tmp_path / "cache", "a" * 40)
    use_hub_folder(tmp_path / "hub")
    with pytest.raises(OSError, match=r"(?i)offline"):
        fetch_model("owner/name")
    assert not (tmp_path / "hub" / "models").exists()


def test_variables_for_other_processes_hold_no_secret_and_no_relative_folder(
    tmp_path, monkeypatch, caplog
):
    for name in (*FOLDERS, *CHOICES):
        monkeypatch.delenv(name, raising=False)
    assert hub_variables() == {}
    monkeypatch.chdir(tmp_path)
    given = {
        "HF_HOME": "~/kept",
        "HF_HUB_CACHE": "cache",
        "GOTD_HUB": "",
        "HF_ENDPOINT": "https://hub.example:8443",
        "HF_TOKEN": "hf_secret",
        "HF_TOKEN_PATH": "/secret",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert hub_variables() == {
        "HF_HOME": str(Path.home() / "kept"),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_ENDPOINT": "https://hub.example:8443",
    }
    _report_password.cache_clear()
    for address in ("https://me:secret@hub.example", "https://hub.example/?token=secret"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert "HF_ENDPOINT" not in hub_variables()
        assert caplog.text.count("set it where `ray start` runs") == 1
        assert "secret" not in caplog.text
