"""One way to load models: of one commit, with their own tokenizer, and no code of theirs (K3)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from gotd.storage import model_files
from gotd.storage.hub_models import FOLDER
from gotd.training import loading
from gotd.training.loading import load_any_tokenizer, load_config, load_network
from gotd.training.models import ModelSpec, build_model, copy_model

WORDS = [f"w{i}" for i in range(30)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 16, "heads": 2, "feed_forward_size": 32, "max_length_tokens": 32}
    build_model(ModelSpec(**sizes), WORDS, 1, folder)
    return folder


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "m"))


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


def read(model: Path) -> None:
    load_any_tokenizer(model)
    load_network(AutoModel, model, ("pooler.",))


def test_a_whole_model_is_read(model):
    read(model)


def test_a_folder_without_a_tokenizer_is_refused(model):
    """A8: every word was unknown, and texts of one length were equal."""
    for file in model.glob("*token*"):
        file.unlink()
    with pytest.raises((ValueError, OSError), match=r"no tokenizer|cannot be loaded"):
        load_any_tokenizer(model)


def test_the_tokenizer_of_another_model_is_refused(model, tmp_path):
    """B14: an index out of range, in the words of torch."""
    sizes = {"hidden_size": 16, "heads": 2, "feed_forward_size": 32, "max_length_tokens": 32}
    build_model(ModelSpec(**sizes), [f"v{i}" for i in range(90)], 1, tmp_path / "larger")
    shutil.copyfile(tmp_path / "larger" / "tokenizer.json", model / "tokenizer.json")
    with pytest.raises(ValueError, match="is the tokenizer of another model"):
        load_any_tokenizer(model)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: path.write_bytes(b"garbage" * 100),
        lambda path: path.write_bytes(b""),
        lambda path: save_file(
            {k: v * torch.nan for k, v in load_file(path).items()}, path, {"format": "pt"}
        ),
    ],
    ids=["truncated", "garbage", "empty", "nan"],
)
def test_damaged_weights_are_one_line_that_names_the_model(model, damage):
    """B14: safetensors' own error passed through."""
    damage(model / "model.safetensors")
    with pytest.raises((ValueError, OSError)) as error:
        read(model)
    assert str(model) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_configuration_is_named_by_its_own_folder(model, tmp_path):
    """B14: it was named by its copy in the store."""
    (model / "config.json").write_text("{not json")
    with pytest.raises(ValueError, match=f"{model}/config.json is damaged"):
        copy_model(model, None, tmp_path)


@pytest.mark.parametrize("load", [load_config, load_any_tokenizer, read])
def test_code_in_a_folder_is_refused_without_a_question(model, load, monkeypatch):
    """B15: `yes | gotd select` ran it."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    marker = model / "ran"
    (model / "code.py").write_text(f"open({str(marker)!r}, 'w').write('ran')\nclass C: pass\n")
    classes = {"AutoConfig": "code.C", "AutoModel": "code.C", "AutoTokenizer": ["code.C", None]}
    change(model / "config.json", model_type="unknown_kind", auto_map=classes)
    change(model / "tokenizer_config.json", tokenizer_class="C", auto_map=classes)
    with pytest.raises(ValueError, match=r"code of its own|unknown kind"):
        load(model)
    assert not marker.exists()


def test_an_adapter_beside_a_model_is_refused(model):
    """It would load another model than that of the folder."""
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "/elsewhere"}')
    with pytest.raises(ValueError, match="holds an adapter"):
        read(model)


def test_a_hub_model_is_read_at_the_commit_of_its_key(model, tmp_path, monkeypatch):
    """A3: configuration, weights and tokenizer might be those of three commits."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(FOLDER, "")
    there = tmp_path / "cache" / "models--owner--two-commits"
    for commit, sizes in (("a" * 40, {}), ("b" * 40, {"hidden_size": 999})):
        shutil.copytree(model, there / "snapshots" / commit)
        change(there / "snapshots" / commit / "config.json", **sizes)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text("b" * 40)
    own = load_config(model).hidden_size
    assert load_config("owner/two-commits").hidden_size == 999
    assert load_config("owner/two-commits", "a" * 40).hidden_size == own
    network, _ = loading.load_network(AutoModel, "owner/two-commits", ("pooler.",), "a" * 40)
    assert network.config.hidden_size == own


def test_no_other_module_loads_a_model():
    sources = Path(loading.__file__).parents[1]
    with_loads = {
        path.relative_to(sources).as_posix()
        for path in sources.rglob("*.py")
        if ".from_pretrained" in path.read_text("utf-8")
    }
    assert with_loads == {"training/loading.py"}


@pytest.mark.parametrize(
    ("given", "found"),
    [("bert-base-uncased", "google-bert/bert-base-uncased"), ("own/name", "own/name"), ("x", "x")],
)
def test_a_published_model_has_its_publisher(given, found):
    """B16: a name without an owner is not in the cache of today's Hub."""
    assert model_files.published_name(given) == found
