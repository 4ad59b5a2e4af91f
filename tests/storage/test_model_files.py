"""A model is identified by what its weights are, not by what it is called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from gotd.storage.model_files import hub_commit, model_identity


@pytest.fixture(autouse=True)
def _fresh():
    hub_commit.cache_clear()
    yield
    hub_commit.cache_clear()


def folder(path: Path, weights: str) -> Path:
    path.mkdir(parents=True)
    (path / "model.safetensors").write_text(weights)
    return path


def test_a_folder_is_identified_by_its_files(tmp_path):
    one = model_identity(str(folder(tmp_path / "a" / "model", "1")))
    assert model_identity(str(folder(tmp_path / "b" / "model", "1"))) == one
    assert model_identity(str(folder(tmp_path / "c" / "model", "2"))) != one


def cache(root: Path, commit: str) -> None:
    """Write what the Hub's cache holds of one model."""
    model = root / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots" / commit).mkdir(parents=True)
    (model / "snapshots" / commit / "config.json").write_text("{}")


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
