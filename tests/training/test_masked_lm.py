import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from gotd.training import trainer
from gotd.training.data import IGNORED, order_epoch
from gotd.training.language_model import pre_fine_tune
from gotd.training.masked_lm import MaskedLM, MaskedLMSettings, mask_tokens
from gotd.training.models import load_masked_lm, load_tokenizer
from gotd.training.randomness import TrainingSeeds
from gotd.training.trainer import StepModule

SEEDS = TrainingSeeds.derive(1)
SETTINGS = {
    "learning_rate": 3e-3,
    "epochs": 3,
    "global_batch_size": 8,
    "per_device_batch_size": 8,
    "max_length_tokens": 48,
}


class StoppedError(Exception):
    """Stands for a crash."""


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def stop_after(monkeypatch, step):
    """Crash as soon as ``step`` steps are done, before their checkpoint if one is due."""
    original = StepModule.after_update

    def crash(self, done):
        original(self, done)
        if done == step:
            raise StoppedError

    monkeypatch.setattr(StepModule, "after_update", crash)


def started(base, texts, **options):
    """Make what trains, with its network."""
    module = MaskedLM(base, texts, MaskedLMSettings(**SETTINGS | options), SEEDS)
    module.initialise()
    return module


def test_texts_without_a_token_to_predict_are_refused(tiny_base):
    """Sibling of A12: a training without a loss would look like one that went well."""
    with pytest.raises(ValueError, match="no token that could be predicted"):
        MaskedLM(tiny_base, ["", ""], MaskedLMSettings(**SETTINGS), SEEDS)


def test_masking_follows_bert():
    random = np.random.default_rng(0)
    tokens = random.integers(5, 500, size=200_000)
    special = random.random(200_000) < 0.1
    inputs, labels = mask_tokens(tokens, special, 4, 500, 0.15, random)
    chosen = labels != IGNORED
    assert not chosen[special].any()
    assert chosen[~special].mean() == pytest.approx(0.15, abs=0.005)
    assert (inputs[chosen] == 4).mean() == pytest.approx(0.8, abs=0.02)
    # One random token in 500 is the original by chance, another the mask itself.
    assert (inputs[chosen] == tokens[chosen]).mean() == pytest.approx(0.1, abs=0.02)
    assert np.array_equal(inputs[~chosen], tokens[~chosen])
    assert np.array_equal(labels[chosen], tokens[chosen])


def test_masks_depend_on_step_and_seed_but_not_on_the_cut(tiny_base, texts):
    whole = started(tiny_base, texts).collate
    module = started(tiny_base, texts, per_device_batch_size=3)
    which = order_epoch(module.rows.lengths, 8, 1, 0)[0]

    def flat(batch, key):
        return torch.cat([p[key][p["attention_mask"].bool()] for p in batch.parts])

    one, three = whole(5, which), module.collate(5, which)
    assert (len(one.parts), len(three.parts)) == (1, 3)
    assert one.terms == three.terms == int((flat(one, "labels") != IGNORED).sum())
    assert torch.equal(flat(one, "input_ids"), flat(three, "input_ids"))
    assert torch.equal(flat(one, "labels"), flat(three, "labels"))
    assert not torch.equal(flat(one, "labels"), flat(whole(6, which), "labels"))


def test_a_loss_is_the_mean_over_masked_tokens_also_of_one_or_none(calm_base, texts):
    module = started(calm_base, texts, mask_probability=0.1)
    shown = set()
    for step in range(30):
        batch = module.collate(step, np.arange(1))
        count = int((batch.parts[0]["labels"] != IGNORED).sum())
        assert batch.terms == max(count, 1)
        shown.add(count)
    assert {0, 1, 2} <= shown


def test_loss_at_masked_positions_is_the_full_loss(calm_base, texts):
    module = started(calm_base, texts)
    batch = module.collate(0, np.arange(8))
    ours = module.sum_losses(batch.parts[0]) / batch.terms
    theirs = load_masked_lm(calm_base)[0](**batch.parts[0]).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_part_without_rows_has_no_loss(calm_base, texts):
    module = started(calm_base, texts)
    part = {key: value[:0] for key, value in module.collate(0, np.arange(8)).parts[0].items()}
    loss = module._sum_or_zero(part)
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in module.network.parameters())


def test_update_does_not_depend_on_what_fits_on_a_device(calm_base, texts, tmp_path):
    for per_device in (8, 3):
        settings = MaskedLMSettings(**SETTINGS | {"per_device_batch_size": per_device})
        pre_fine_tune(
            calm_base,
            texts,
            settings,
            SEEDS,
            tmp_path / "work",
            tmp_path / str(per_device),
        )
    whole = load_file(tmp_path / "8" / "model.safetensors")
    cut = load_file(tmp_path / "3" / "model.safetensors")
    for key in whole:
        torch.testing.assert_close(whole[key], cut[key], atol=1e-4, rtol=1e-3)


def test_learns_reports_and_leaves_no_trace(tiny_base, texts, tmp_path):
    state = torch.get_rng_state()
    settings = MaskedLMSettings(**SETTINGS | {"epochs": 12, "embedding_learning_rate": 0.03})
    report = pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "work", tmp_path / "out")
    assert torch.equal(state, torch.get_rng_state())
    assert not (tmp_path / "work").exists()
    assert report["steps"] == 60
    assert report["tokens"] == 12 * sum(len(t.split()) + 2 for t in texts)
    assert [step for step, _ in report["loss_curve"]] == list(range(1, 61))
    losses = [loss for _, loss in report["loss_curve"]]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.2
    network, fresh = load_masked_lm(tmp_path / "out")
    assert not fresh
    assert network.cls.predictions.decoder.weight is network.get_input_embeddings().weight
    again = tmp_path / "again"
    pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "work", again)
    assert weights(again) == weights(tmp_path / "out")
    pre_fine_tune(tiny_base, texts, settings, TrainingSeeds.derive(2), tmp_path / "work", again)
    assert weights(again) != weights(tmp_path / "out")


@pytest.mark.parametrize("stop", [2, 7, 11])
def test_interrupted_run_reaches_the_same_bytes(tiny_base, texts, tmp_path, monkeypatch, stop):
    """Five steps an epoch, a checkpoint every three, a point of the curve every two."""
    monkeypatch.setattr(trainer, "CURVE_POINTS", 7)
    settings = MaskedLMSettings(**SETTINGS, checkpoint_every_steps=3)
    whole = pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "w1", tmp_path / "whole")
    assert [step for step, _ in whole["loss_curve"]] == [*range(2, 15, 2), 15]
    with monkeypatch.context() as patched:
        stop_after(patched, stop)
        with pytest.raises(StoppedError):
            pre_fine_tune(
                tiny_base,
                texts,
                settings,
                SEEDS,
                tmp_path / "w2",
                tmp_path / "cut",
            )
    assert (tmp_path / "w2" / trainer.CHECKPOINT_FILE).exists() == (stop > 3)
    cut = pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "w2", tmp_path / "cut")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert cut.pop("cost")["resumed"] == (stop > 3)
    whole.pop("cost")
    assert cut == whole
    assert not list((tmp_path / "w2").glob("*"))


@pytest.mark.slow
def test_killed_process_reaches_the_same_bytes(tiny_base, texts, tmp_path):
    settings = MaskedLMSettings(**SETTINGS, checkpoint_every_steps=3)
    pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "w1", tmp_path / "whole")
    script = f"""
import os, signal
from pathlib import Path
from gotd.training.language_model import pre_fine_tune
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.randomness import TrainingSeeds
from gotd.training.trainer import StepModule
def die(self, step):
    if step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
StepModule.after_update = die
settings = MaskedLMSettings(**{SETTINGS!r}, checkpoint_every_steps=3)
seeds = TrainingSeeds.derive(1)
pre_fine_tune({str(tiny_base)!r}, {texts!r}, settings, seeds, Path({str(tmp_path / "w2")!r}),
              Path({str(tmp_path / "cut")!r}))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut").exists()
    report = pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "w2", tmp_path / "cut")
    assert report["cost"]["resumed"]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_checkpoint_of_another_run_is_refused(tiny_base, texts, tmp_path, monkeypatch):
    settings = MaskedLMSettings(**SETTINGS, checkpoint_every_steps=3)
    with monkeypatch.context() as patched:
        stop_after(patched, 5)
        with pytest.raises(StoppedError):
            pre_fine_tune(
                tiny_base,
                texts,
                settings,
                SEEDS,
                tmp_path / "w",
                tmp_path / "out",
            )
    with pytest.raises(ValueError, match="other texts, seed or settings"):
        pre_fine_tune(
            tiny_base, texts, settings, TrainingSeeds.derive(2), tmp_path / "w", tmp_path / "out"
        )
    with pytest.raises(ValueError, match="other texts, seed or settings"):
        pre_fine_tune(
            tiny_base,
            texts[::-1],
            settings,
            SEEDS,
            tmp_path / "w",
            tmp_path / "out",
        )


def test_head_learns_alone_first(tiny_base, texts, tmp_path):
    """A sentence encoder has no language-modelling head; its layers stay until one is there."""
    bare = tmp_path / "bare"
    AutoModel.from_pretrained(tiny_base).save_pretrained(bare)
    load_tokenizer(tiny_base).save_pretrained(bare)
    settings = MaskedLMSettings(
        **SETTINGS | {"epochs": 0}, head_only_steps=40, head_learning_rate=0.02
    )
    report = pre_fine_tune(bare, texts, settings, SEEDS, tmp_path / "work", tmp_path / "out")
    assert report["fresh_head"]
    assert (report["steps"], report["head_only_steps"]) == (0, 40)
    before, after = (
        load_file(bare / "model.safetensors"),
        load_file(tmp_path / "out" / "model.safetensors"),
    )
    for key, value in before.items():
        assert torch.equal(value, after[f"bert.{key}"])
    losses = [loss for _, loss in report["loss_curve"]]
    assert np.mean(losses[-10:]) < np.mean(losses[:5]) - 0.05
    settings = MaskedLMSettings(**SETTINGS, head_only_steps=4)
    report = pre_fine_tune(bare, texts, settings, SEEDS, tmp_path / "work", tmp_path / "all")
    after = load_file(tmp_path / "all" / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert not torch.equal(before[name], after[f"bert.{name}"])
    assert len(report["loss_curve"]) == 4 + 15


def test_embeddings_have_their_own_rate_without_decay(tiny_base, texts):
    module = started(tiny_base, texts, embedding_learning_rate=0.03)
    network, groups = module.network, module.parameter_groups()
    words = network.get_input_embeddings().weight
    (own,) = [g for g in groups if any(p is words for p in g["params"])]
    assert (own["rate"], own["weight_decay"], len(own["params"])) == (0.03, 0.0, 1)
    counted = [id(p) for g in groups for p in g["params"]]
    assert len(counted) == len(set(counted)) == len(list(network.parameters()))
    for group in groups:
        assert group["weight_decay"] == 0 or all(p.ndim == 2 for p in group["params"])


def test_max_steps_ends_early_and_float_epochs_count(tiny_base, texts, tmp_path):
    for wanted, options in [(4, {"max_steps": 4}), (2, {"epochs": 0.4}), (1, {"epochs": 0.01})]:
        settings = MaskedLMSettings(**SETTINGS | options)
        report = pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "w", tmp_path / "o")
        assert report["steps"] == wanted


def test_bf16_and_recomputation_reach_about_the_same_loss(calm_base, texts, tmp_path):
    losses = []
    for options in [{}, {"precision": "bf16"}, {"gradient_checkpointing": True}]:
        settings = MaskedLMSettings(**SETTINGS | options)
        report = pre_fine_tune(calm_base, texts, settings, SEEDS, tmp_path / "w", tmp_path / "o")
        losses.append(report["loss_curve"][-1][1])
    assert losses[1] == pytest.approx(losses[0], abs=0.05)
    assert losses[1] != losses[0]
    assert losses[2] == pytest.approx(losses[0], abs=1e-4)


def test_divergence_stops_the_run(tiny_base, texts, tmp_path):
    settings = MaskedLMSettings(**SETTINGS | {"learning_rate": 1e30})
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "w", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask_probability": 0}, "mask_probability"),
        ({"precision": "fp8"}, "precision"),
        ({"global_batch_size": 0}, "global_batch_size"),
        ({"warmup_share": 1.0}, "warmup_share"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"max_steps": -1}, "max_steps"),
    ],
)
def test_bad_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MaskedLMSettings(**SETTINGS | wrong)


def test_more_tokens_than_positions_are_refused(tiny_base, texts, tmp_path):
    settings = MaskedLMSettings(**SETTINGS | {"max_length_tokens": 49})
    with pytest.raises(ValueError, match="only 48 positions"):
        pre_fine_tune(tiny_base, texts, settings, SEEDS, tmp_path / "w", tmp_path / "o")


def test_no_texts_are_refused(tiny_base, tmp_path):
    with pytest.raises(ValueError, match="no texts"):
        pre_fine_tune(tiny_base, [], MaskedLMSettings(**SETTINGS), 1, tmp_path, tmp_path / "o")
