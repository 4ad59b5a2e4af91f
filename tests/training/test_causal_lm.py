import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gotd.training.causal_lm import CausalLM, CausalLMSettings, pack
from gotd.training.causal_models import (
    CausalSpec,
    load_causal_lm,
    load_causal_tokenizer,
)
from gotd.training.data import IGNORED
from gotd.training.language_model import pre_fine_tune
from gotd.training.models import build_model
from gotd.training.randomness import TrainingSeeds

SEEDS = TrainingSeeds.derive(1)
WORDS = [f"w{i}" for i in range(60)]
SETTINGS = {
    "learning_rate": 3e-3,
    "epochs": 3,
    "global_batch_size": 4,
    "per_device_batch_size": 4,
    "max_length_tokens": 24,
}


def build(folder, **fields):
    spec = CausalSpec(
        **{
            "tokenizer": "word_level",
            "hidden_size": 32,
            "heads": 2,
            "feed_forward_size": 64,
            "dropout": 0.0,
            "max_length_tokens": 48,
            **fields,
        }
    )
    build_model(spec, WORDS, 1, folder)
    return folder


@pytest.fixture(scope="module", params=["gpt2", "gpt_neo"])
def base(request, tmp_path_factory):
    return build(tmp_path_factory.mktemp("base"), architecture=request.param)


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_single_token_that_is_left_is_no_block(base, texts):
    tokenizer = load_causal_tokenizer(base)
    every = pack(tokenizer, texts[:6], 10_000, True, seed=3).tokens
    kept = len(every) - 1
    sizes = [size for size in range(2, kept + 1) if kept % size == 0]
    assert len(sizes) > 1
    for size in sizes:
        rows = pack(tokenizer, texts[:6], size, True, seed=3)
        assert rows.offsets.tolist() == [*range(0, kept + 1, size)]
        assert rows.tokens.tolist() == every[:kept].tolist()


def test_packing_loses_no_token_and_ends_every_text(base, texts):
    tokenizer = load_causal_tokenizer(base)
    rows = pack(tokenizer, texts, 24, True, seed=3)
    assert set(rows.lengths[:-1]) == {24}
    end = tokenizer.eos_token_id
    ends = np.flatnonzero(rows.tokens == end)
    read = [tokenizer.decode(part) for part in np.split(rows.tokens, ends + 1) if len(part)]
    assert sorted(t.removesuffix("<|endoftext|>").strip() for t in read) == sorted(texts)
    joined = pack(tokenizer, texts, 24, False, seed=3)
    assert end not in joined.tokens
    assert not np.array_equal(rows.tokens, pack(tokenizer, texts, 24, True, seed=4).tokens)


def test_every_token_but_the_first_of_a_block_is_predicted(base, texts):
    module = CausalLM(base, texts, CausalLMSettings(**SETTINGS), SEEDS)
    module.initialise()
    which = np.array([len(module.rows) - 1, 0, 1])  # the short last block among others
    batch = module.collate(0, which)
    (part,) = batch.parts
    # An end-of-text token is a label although it also pads.
    labels = part["input_ids"].masked_fill(part["attention_mask"] == 0, IGNORED)
    theirs = load_causal_lm(base)(**part, labels=labels).loss
    ours = module.sum_losses(part) / batch.terms
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert batch.terms == module.rows.lengths[which].sum() - 3


def test_training_learns_and_what_fits_on_a_device_does_not_matter(base, texts, tmp_path):
    for per_device in (4, 3):
        settings = CausalLMSettings(**SETTINGS | {"per_device_batch_size": per_device})
        out = tmp_path / str(per_device)
        report = pre_fine_tune(base, texts, settings, SEEDS, tmp_path / "work", out)
        assert report["loss_curve"][-1][1] < report["loss_curve"][0][1] - 0.3
    whole, cut = (load_file(tmp_path / n / "model.safetensors") for n in ("4", "3"))
    for key in whole:
        torch.testing.assert_close(whole[key], cut[key], atol=1e-4, rtol=1e-3)


def test_a_long_run_says_where_it_stands(base, texts, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("gotd.training.trainer.PROGRESS_LINE_S", 0)
    with caplog.at_level("INFO", logger="gotd.training.trainer"):
        settings = CausalLMSettings(**SETTINGS | {"epochs": 1})
        steps = pre_fine_tune(base, texts, settings, SEEDS, tmp_path / "work", tmp_path / "out")[
            "steps"
        ]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == steps > 1
    assert lines[0].startswith(f"step 1 of {steps}, about ")
    assert lines[-1] == f"step {steps} of {steps}, about 0 min left"


def test_checkpointed_activations_train_the_same(base, texts, tmp_path):
    for name, on in (("plain", False), ("recomputed", True)):
        settings = CausalLMSettings(**SETTINGS | {"epochs": 1, "gradient_checkpointing": on})
        pre_fine_tune(base, texts, settings, SEEDS, tmp_path / "work", tmp_path / name)
    plain, again = (load_file(tmp_path / n / "model.safetensors") for n in ("plain", "recomputed"))
    for key in plain:
        torch.testing.assert_close(plain[key], again[key], atol=1e-5, rtol=1e-4)


def test_lora_merges_into_plain_weights(base, texts, tmp_path):
    settings = CausalLMSettings(**SETTINGS | {"tuning": "lora", "learning_rate": 3e-2})
    report = pre_fine_tune(base, texts, settings, SEEDS, tmp_path / "work", tmp_path / "out")
    assert report["loss_curve"][-1][1] < report["loss_curve"][0][1]
    before, after = (
        load_file(base / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all("attn" in key for key in changed), changed
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


RUN = """
import os, signal, sys
from pathlib import Path
from gotd.training.causal_lm import CausalLMSettings
from gotd.training.language_model import pre_fine_tune
from gotd.training.models import build_model
from gotd.training.randomness import TrainingSeeds
from gotd.training.trainer import StepModule
base, out, stop = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if stop:
    after = StepModule.after_update
    def kill(self, step):
        after(self, step)
        if step == stop:
            os.kill(os.getpid(), signal.SIGKILL)
    StepModule.after_update = kill
texts = [" ".join(f"w{(7 * i + j) % 60}" for j in range(3 + i % 9)) for i in range(40)]
settings = CausalLMSettings(
    learning_rate=3e-3, epochs=3, global_batch_size=4, max_length_tokens=24,
    checkpoint_every_steps=4, tuning=sys.argv[4], lora_dropout=0.1,
)
pre_fine_tune(base, texts, settings, TrainingSeeds.derive(1), out / "work", out / "model")
"""


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_killed_run_goes_on_to_the_same_bytes(tmp_path, tuning):
    base = build(tmp_path / "base", dropout=0.1)

    def run(out, stop):
        command = [sys.executable, "-c", RUN, str(base), str(out), str(stop), tuning]
        return subprocess.run(command, env=os.environ, capture_output=True, check=False).returncode

    assert run(tmp_path / "whole", 0) == 0
    assert run(tmp_path / "killed", 10) == -signal.SIGKILL
    assert (tmp_path / "killed" / "work" / "last.ckpt").is_file()
    assert run(tmp_path / "killed", 0) == 0
    whole, killed = tmp_path / "whole" / "model", tmp_path / "killed" / "model"
    assert weights(whole) == weights(killed)
    if tuning == "lora":
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert (whole / "adapter" / name).read_bytes() == (
                killed / "adapter" / name
            ).read_bytes()


def test_anybody_can_load_what_is_built(base):
    network = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
    assert tokenizer("w3 w4")["input_ids"] == tokenizer.convert_tokens_to_ids(["w3", "w4"])
    assert tokenizer.decode(tokenizer("w3 w4")["input_ids"]) == "w3 w4"


def test_byte_level_vocabulary_is_reproducible_and_knows_every_text(tmp_path):
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list("abcdé"), 5)) for _ in range(100)]
    texts = [" ".join(random.choice(words, 40)) for _ in range(50)]
    spec = CausalSpec(vocabulary_size=300, hidden_size=32, feed_forward_size=64)
    for name in "ab":
        build_model(spec, texts, 1, tmp_path / name)
    one, two = (tmp_path / name for name in "ab")
    assert (one / "tokenizer.json").read_bytes() == (two / "tokenizer.json").read_bytes()
    assert weights(one) == weights(two)
    tokenizer = load_causal_tokenizer(one)
    assert len(tokenizer) == 300
    for text in ("never seen: 日本 \n tabs\t", texts[0]):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_what_cannot_be_built_or_trained_is_refused(base, tmp_path, texts):
    with pytest.raises(ValueError, match="architecture"):
        CausalSpec(architecture="bert")
    with pytest.raises(ValueError, match="pairs of layers"):
        CausalSpec(architecture="gpt_neo", layers=3)
    with pytest.raises(ValueError, match="list is empty"):
        build_model(CausalSpec(), [], 1, tmp_path / "none")
    with pytest.raises(ValueError, match="list is empty"):
        pack(load_causal_tokenizer(base), [], 24, True, 1)
    settings = CausalLMSettings(**SETTINGS | {"max_length_tokens": 64})
    with pytest.raises(ValueError, match="knows only 48 positions"):
        pre_fine_tune(base, texts, settings, SEEDS, tmp_path / "work", tmp_path / "out")
