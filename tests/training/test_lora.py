import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, GPT2Config, GPT2LMHeadModel

from gotd.training.classifier import FineTuneSettings, fine_tune, predict
from gotd.training.labels import LabelledTask
from gotd.training.language_model import pre_fine_tune
from gotd.training.lora import add_adapters
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.models import load_masked_lm, load_tokenizer
from gotd.training.randomness import TrainingSeeds

SEEDS = TrainingSeeds.derive(1)
SHARED = {
    "learning_rate": 1e-2,
    "global_batch_size": 16,
    "per_device_batch_size": 16,
    "max_length_tokens": 48,
    "tuning": "lora",
    "lora_rank": 4,
}


def test_only_the_adapted_projections_change_and_the_adapter_explains_it(
    tiny_base, texts, tmp_path
):
    settings = MaskedLMSettings(**SHARED, epochs=3)
    pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "w", tmp_path / "out")
    before = load_file(tiny_base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {key.split(".")[-2] for key in changed} == {"query", "value"}
    files = sorted((tmp_path / "out" / "adapter").iterdir())
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert str(tiny_base) not in files[0].read_text()  # no place on this machine
    network, _ = load_masked_lm(tiny_base)
    adapted = PeftModel.from_pretrained(network, tmp_path / "out" / "adapter").merge_and_unload()
    for key, value in adapted.state_dict().items():
        if key in changed:
            torch.testing.assert_close(value, after[key])


def test_missing_head_learns_beside_the_adapter(tiny_base, texts, tmp_path):
    bare = tmp_path / "bare"
    AutoModel.from_pretrained(tiny_base).save_pretrained(bare)
    load_tokenizer(tiny_base).save_pretrained(bare)
    settings = MaskedLMSettings(**SHARED, epochs=1, head_only_steps=3)
    pre_fine_tune(bare, texts, settings, SEEDS, tmp_path / "w", tmp_path / "out")
    network, fresh = load_masked_lm(tmp_path / "out")
    assert not fresh
    words = network.get_input_embeddings().weight
    assert network.cls.predictions.decoder.weight is words
    base = load_file(bare / "model.safetensors")
    assert torch.equal(words, base["embeddings.word_embeddings.weight"])
    assert network.cls.predictions.bias.abs().max() > 0


@pytest.mark.parametrize("head", ["mean", "pooler"])
def test_classifier_learns_with_adapters(tiny_base, labelled, tmp_path, head):
    settings = FineTuneSettings(**SHARED, epochs=20, head=head, checkpoint_every_steps=7)
    report = fine_tune(
        tiny_base,
        LabelledTask(
            labelled.slice(32),
            labelled.slice(0, 32),
            2,
            False,
            lambda p, t: float((p == t).mean()),
        ),
        settings,
        SEEDS,
        tmp_path / "w",
        tmp_path / "out",
    )
    best = max(score for _, score in report["validation"])
    assert best > 0.8
    truth = labelled["label"].to_numpy()[:32]
    assert (predict(tmp_path / "out", labelled.slice(0, 32)) == truth).mean() == best
    before = load_file(tiny_base / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    key = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(before[key], after[key])
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_adapters_of_gpt2_are_added_without_a_warning():
    network = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
    settings = MaskedLMSettings(learning_rate=1e-3, epochs=1, tuning="lora", lora_rank=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = add_adapters(network, settings)
    assert adapted.peft_config["default"].fan_in_fan_out
