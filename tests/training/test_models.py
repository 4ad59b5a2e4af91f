import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    DistilBertConfig,
    RobertaConfig,
)

from gotd.training import loading
from gotd.training.models import (
    ModelSpec,
    build_model,
    load_encoder,
    load_masked_lm,
    load_tokenizer,
    masked_lm_head,
    read_pooler,
    resolve_folder,
    save_model,
)


def test_built_model_is_a_function_of_its_seed_and_leaves_the_caller_alone(tmp_path):
    spec = ModelSpec(hidden_size=16, heads=2, feed_forward_size=16)
    state = torch.get_rng_state()
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        build_model(spec, ["cat", "dog", "."], seed, tmp_path / name)
    assert torch.equal(state, torch.get_rng_state())
    a, b, c = [(tmp_path / n / "model.safetensors").read_bytes() for n in "abc"]
    assert a == b
    assert a != c


def test_word_level_vocabulary_is_exactly_the_words(tmp_path):
    build_model(ModelSpec(hidden_size=16, heads=2), ["cat", "dog", "."], 1, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == 8
    assert tokenizer.tokenize("cat . fish") == ["cat", ".", "[UNK]"]
    network, fresh_head = load_masked_lm(tmp_path)
    assert not fresh_head
    assert network.cls.predictions.decoder.weight is network.get_input_embeddings().weight
    with pytest.raises(ValueError, match="two words"):
        build_model(ModelSpec(), ["two words"], 1, tmp_path)
    with pytest.raises(ValueError, match="empty"):
        build_model(ModelSpec(), [], 1, tmp_path)


def test_wordpiece_model_reads_what_it_was_trained_on(tmp_path):
    spec = ModelSpec(tokenizer="wordpiece", vocabulary_size=60, hidden_size=16, heads=2)
    for name in "ab":
        build_model(spec, ["The cat sat on the mat", "the cats sat"] * 5, 1, tmp_path / name)
    tokenizer = load_tokenizer(tmp_path / "a")
    encoded = tokenizer("The CAT", "mats")
    assert tokenizer.decode(encoded["input_ids"]) == "[CLS] the cat [SEP] mats [SEP]"
    assert encoded["token_type_ids"][-1] == 1
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (
        tmp_path / "b/tokenizer.json"
    ).read_bytes()


def test_pretrained_folder_is_copied(tiny_base, tmp_path):
    given, out = tmp_path / "given", tmp_path / "out"
    shutil.copytree(tiny_base, given)
    for name in ("manifest.json", "report.json"):  # a stage wrote the model
        (given / name).write_text("{}")
    out.mkdir()
    build_model(ModelSpec(pretrained=str(given)), [], 1, out)
    assert {f.name for f in out.iterdir()} == {f.name for f in tiny_base.iterdir()}
    assert (out / "model.safetensors").read_bytes() == (
        tiny_base / "model.safetensors"
    ).read_bytes()


def test_pooler_travels_beside_the_language_modelling_head(tiny_base, tmp_path):
    network, _ = load_masked_lm(tiny_base)
    assert read_pooler(tiny_base) == {}
    pooler = {"pooler.dense.weight": torch.randn(32, 32), "pooler.dense.bias": torch.randn(32)}
    save_model(network, load_tokenizer(tiny_base), tmp_path, pooler)
    again = read_pooler(tmp_path)
    assert all(torch.equal(again[key], pooler[key]) for key in pooler)
    encoder, fresh = load_encoder(tmp_path)
    assert not fresh
    assert torch.equal(encoder.pooler.dense.bias, pooler["pooler.dense.bias"])
    assert not load_masked_lm(tmp_path)[1]
    # The pooler of a bare encoder has no prefix.
    encoder.save_pretrained(tmp_path / "bare")
    assert set(read_pooler(tmp_path / "bare")) == set(pooler)


def test_missing_head_is_told_and_missing_layers_are_refused(tiny_base, tmp_path):
    encoder = AutoModel.from_pretrained(tiny_base)
    encoder.save_pretrained(tmp_path)
    assert load_masked_lm(tmp_path)[1]
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.layer.0.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for load in (load_masked_lm, load_encoder):
        with pytest.raises(ValueError, match=r"lacks 1 weights .*layer\.0\.output\.dense\.weight"):
            load(tmp_path)


def test_a_hub_model_is_read_at_one_commit_and_none_of_its_code_runs(monkeypatch, tiny_base):
    asked, read = [], []

    def find(name, revision, weights):
        asked.append((name, revision, weights))
        return tiny_base

    def load(folder, **options):
        read.append((folder, options))

    monkeypatch.setattr(loading, "model_folder", find)
    monkeypatch.setattr(AutoConfig, "from_pretrained", load)
    loading.load_config("somebody/model")
    loading.load_config("somebody/model", "d" * 40)
    assert asked == [("somebody/model", None, False), ("somebody/model", "d" * 40, False)]
    assert read == [(tiny_base, {"trust_remote_code": False})] * 2


@pytest.mark.parametrize(
    "error", [MemoryError(), KeyboardInterrupt(), RuntimeError("CUDA out of memory. Tried to")]
)
def test_a_full_memory_is_no_damaged_model(monkeypatch, tiny_base, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(AutoModel, "from_pretrained", fail)
    with pytest.raises(type(error)) as raised:
        load_encoder(tiny_base)
    assert raised.value is error


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        (RobertaConfig, {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}),
        (DistilBertConfig, {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}),
    ],
)
def test_heads_of_other_families_are_found(family, sizes, tmp_path):
    network = AutoModelForMaskedLM.from_config(family(vocab_size=40, **sizes)).eval()
    network.save_pretrained(tmp_path)
    tokens = torch.tensor([[2, 7, 9, 3]])
    with torch.no_grad():
        hidden = network.base_model(tokens).last_hidden_state
        torch.testing.assert_close(masked_lm_head(network)(hidden), network(tokens).logits)
    assert not load_masked_lm(tmp_path)[1]
    AutoModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "bare")
    assert load_masked_lm(tmp_path / "bare")[1]


def test_folder_without_model_is_refused(tiny_base, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        resolve_folder(tmp_path)
    (tmp_path / "config.json").write_text((tiny_base / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="safetensors"):
        resolve_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor"):
        resolve_folder(tmp_path / "absent" / "folder" / "name")


def test_half_precision_weights_are_trained_in_float32(tiny_base, tmp_path):
    AutoModelForMaskedLM.from_pretrained(tiny_base).bfloat16().save_pretrained(tmp_path)
    assert {p.dtype for p in load_masked_lm(tmp_path)[0].parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "wrong", [{"tokenizer": "char"}, {"heads": 3}, {"layers": 0}, {"dropout": 1.0}]
)
def test_bad_spec_is_refused(wrong):
    with pytest.raises(ValueError, match=r"model|heads"):
        ModelSpec(**wrong)
