"""Several processes that share every step learn what one process learns."""

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gotd.config import build
from gotd.expansion import expand
from gotd.stages.identity import identity
from gotd.training.causal_lm import CausalLMSettings, pre_fine_tune
from gotd.training.causal_models import CausalSpec, build_causal_model
from gotd.training.classifier import FineTuneSettings
from gotd.training.devices import on_devices

WORDS = [f"w{i}" for i in range(60)]
TEXTS = [" ".join(f"w{(7 * i + j) % 60}" for j in range(3 + i % 9)) for i in range(30)]
SETTINGS: dict[str, Any] = {
    "learning_rate": 3e-3,
    "epochs": 2,
    "global_batch_size": 4,
    "per_device_batch_size": 1,
    "max_length_tokens": 24,
    "checkpoint_every_steps": 3,
    "tuning": "lora",
}


@pytest.mark.slow  # two processes that import everything
def test_two_processes_share_each_step_and_write_one_model(tmp_path):
    spec = CausalSpec(tokenizer="word_level", hidden_size=32, feed_forward_size=64, dropout=0.0)
    build_causal_model(spec, WORDS, 1, tmp_path / "base")
    reports = {}
    for devices in (1, 2):
        settings = CausalLMSettings(**SETTINGS, devices=devices)
        place = tmp_path / str(devices)
        arguments = (tmp_path / "base", TEXTS, settings, 1, place / "work", place / "out")
        reports[devices] = (
            pre_fine_tune(*arguments) if devices == 1 else on_devices(pre_fine_tune, *arguments)
        )
        assert not (place / "work" / "last.ckpt").exists()
    one, two = reports[1], reports[2]
    assert (two["steps"], two["tokens"]) == (one["steps"], one["tokens"])
    for (_, alone), (_, shared) in zip(one["loss_curve"], two["loss_curve"], strict=True):
        assert shared == pytest.approx(alone, rel=1e-4)
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        alone, shared = (load_file(tmp_path / n / "out" / name) for n in "12")
        for key, weight in alone.items():
            torch.testing.assert_close(shared[key], weight, atol=1e-4, rtol=1e-3)


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
