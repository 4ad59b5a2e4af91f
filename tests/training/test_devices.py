"""Several processes that share every step learn what one process learns."""

import os
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing.spawn import ProcessExitedException

from gotd.config.build import build
from gotd.runs.expand import expand
from gotd.storage.keys import identity
from gotd.training.causal_lm import CausalLMSettings
from gotd.training.causal_models import CausalSpec
from gotd.training.classifier import FineTuneSettings
from gotd.training.devices import on_devices
from gotd.training.language_model import pre_fine_tune
from gotd.training.models import build_model
from gotd.training.randomness import TrainingSeeds
from gotd.training.tracking import current_logger
from gotd.training.trainer import StepModule

SEEDS = TrainingSeeds.derive(1)
WORDS = [f"w{i}" for i in range(60)]
TEXTS = [" ".join(f"w{(7 * i + j) % 60}" for j in range(3 + i % 9)) for i in range(30)]
SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "epochs": 2,
    "global_batch_size": 3,  # one process runs out of rows in every step
    "per_device_batch_size": 1,
    "max_length_tokens": 24,
    "checkpoint_every_steps": 3,
    "weight_decay": 0.1,
}


def killed(*arguments):
    """Train as `pre_fine_tune` does, and die after the fourth step."""

    def die(module, step):
        if step == 4:
            os._exit(9)

    StepModule.after_update = die
    return pre_fine_tune(*arguments)


def weights(folder):
    found = {"model": load_file(folder / "model.safetensors")}
    if (folder / "adapter").exists():
        found["adapter"] = load_file(folder / "adapter" / "adapter_model.safetensors")
    return found


@pytest.mark.slow  # processes that import everything
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_processes_that_share_each_step_write_the_model_of_one(tmp_path, tuning):
    spec = CausalSpec(tokenizer="word_level", hidden_size=32, feed_forward_size=64, dropout=0.0)
    build_model(spec, WORDS, 1, tmp_path / "base")
    reports = {}

    def run(name, train=pre_fine_tune, **how):
        settings = CausalLMSettings(**SETTINGS, tuning=tuning, **how)
        seeds = SEEDS
        work, out = tmp_path / name / "work", tmp_path / name / "out"
        arguments = (tmp_path / "base", TEXTS, settings, seeds, work, out)
        if train is killed:
            on_devices(settings.devices, work, killed, *arguments)
        reports[name] = train(*arguments)
        assert not (work / "last.ckpt").exists()

    run("alone")
    points: list[Any] = []
    token = current_logger.set(lambda *point: points.append(point))
    run("ddp", devices=2)
    current_logger.reset(token)
    # The first process sends its losses to this one.
    curve = [[step, values["causal_lm_loss"]] for step, values in points]
    assert curve == reports["ddp"]["loss_curve"]
    run("fsdp", devices=2, strategy="fsdp", gradient_checkpointing=True)
    with pytest.raises(ProcessExitedException):
        run("killed", killed, devices=2, strategy="fsdp")
    assert (tmp_path / "killed" / "work" / "last.ckpt").exists()
    run("killed", devices=2, strategy="fsdp")
    assert reports["killed"]["cost"]["resumed"]
    alone = reports.pop("alone")
    wanted = weights(tmp_path / "alone" / "out")
    assert sorted(wanted) == (["adapter", "model"] if tuning == "lora" else ["model"])
    for name, report in reports.items():
        assert (report["steps"], report["tokens"]) == (alone["steps"], alone["tokens"])
        for (_, one), (_, shared) in zip(alone["loss_curve"], report["loss_curve"], strict=True):
            assert shared == pytest.approx(one, rel=1e-4)
        found = weights(tmp_path / name / "out")
        for part, tensors in wanted.items():
            torch.testing.assert_close(found[part], tensors, atol=1e-4, rtol=1e-3)


def test_devices_and_sharding_are_one_override_each_and_in_no_key():
    ((config, _),) = expand(
        [
            "experiment=zeroshot",
            "scale=paper",
            "selector=got_d",
            "budget=5000",
            "seed=1",
            "pre_fine_tune.strategy=fsdp",
            "pre_fine_tune.devices=8",
        ]
    )
    settings = build(config.pre_fine_tune)
    assert (settings.strategy, settings.devices) == ("fsdp", 8)
    ((alone, _),) = expand(
        ["experiment=zeroshot", "scale=paper", "selector=got_d", "budget=5000", "seed=1"]
    )
    assert identity(settings) == identity(build(alone.pre_fine_tune))
    with pytest.raises(ValueError, match="on one device, not 2"):
        FineTuneSettings(learning_rate=1.0, epochs=1, devices=2)
    with pytest.raises(ValueError, match="devices must be at least 1"):
        CausalLMSettings(learning_rate=1.0, epochs=1, devices=0)
