"""An adapter holds all that was trained, so base and adapter are the merged model (K3)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForMaskedLM

from gotd.training.language_model import pre_fine_tune
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.models import ModelSpec, build_model
from gotd.training.randomness import TrainingSeeds

WORDS = ["the", "a", "dog", "cat", "barks", "sleeps", "runs", "fast", "slow", "red"]


@pytest.mark.parametrize("head_only_steps", [0, 5])
def test_the_adapter_has_the_head_that_was_trained(tmp_path: Path, head_only_steps: int):
    """B13: the logits of both differed by 0.6."""
    base = tmp_path / "base"
    sizes = {"hidden_size": 16, "heads": 2, "feed_forward_size": 32, "max_length_tokens": 16}
    build_model(ModelSpec(**sizes), WORDS, 0, base)
    settings = MaskedLMSettings(
        epochs=1,
        global_batch_size=8,
        per_device_batch_size=8,
        max_length_tokens=16,
        learning_rate=5e-3,
        tuning="lora",
        head_only_steps=head_only_steps,
    )
    texts = [" ".join(WORDS[i % 10 :] + WORDS[: i % 10]) for i in range(24)]
    out = tmp_path / "out"
    pre_fine_tune(base, texts, settings, TrainingSeeds.derive(1), tmp_path / "work", out)
    merged = AutoModelForMaskedLM.from_pretrained(out).eval()
    plain = AutoModelForMaskedLM.from_pretrained(base).eval()
    adapted = PeftModel.from_pretrained(plain, str(out / "adapter")).eval()
    row = torch.tensor([[2, 5, 6, 4, 7, 3]])
    with torch.no_grad():
        difference = (merged(row).logits - adapted(row).logits).abs().max()
    assert difference < 1e-5
