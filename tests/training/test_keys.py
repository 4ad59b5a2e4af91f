"""The parts of a cache key that settings of training and specifications of models make up."""

from typing import Any

import pytest

from gotd.storage.keys import identity
from gotd.training.causal_lm import CausalLMSettings
from gotd.training.causal_models import CausalSpec
from gotd.training.classifier import FineTuneSettings
from gotd.training.masked_lm import MaskedLMSettings
from gotd.training.models import ModelSpec
from gotd.training.scorer import ScorerSettings

SHARED = {
    "version": 1,
    "learning_rate": 0.001,
    "epochs": 1,
    "global_batch_size": 64,
    "max_length_tokens": 128,
    "weight_decay": 0.01,
    "warmup_share": 0.0,
    "betas": [0.9, 0.999],
    "adam_epsilon": 1e-08,
    "precision": "auto",
    "tuning": "full",
    "lora_rank": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
}
SHAPE = {
    "version": 1,
    "pretrained": None,
    "revision": None,
    "vocabulary_size": 8192,
    "hidden_size": 128,
    "heads": 4,
    "feed_forward_size": 512,
    "dropout": 0.1,
    "max_length_tokens": 128,
}
SETTINGS: list[tuple[Any, dict[str, Any]]] = [
    (
        MaskedLMSettings,
        {
            "class": "MaskedLMSettings",
            "embedding_learning_rate": None,
            "max_steps": None,
            "mask_probability": 0.15,
            "head_only_steps": 0,
            "head_learning_rate": 0.002,
            "keep_pooler": True,
        },
    ),
    (
        CausalLMSettings,
        {
            "class": "CausalLMSettings",
            "max_steps": None,
            "separate_texts": True,
            "weights": "float32",
        },
    ),
    (
        FineTuneSettings,
        {
            "class": "FineTuneSettings",
            "head": "pooler",
            "freeze_embeddings": False,
            "choose": "best_epoch",
            "dropout": 0.1,
        },
    ),
    (ScorerSettings, {"class": "ScorerSettings"}),
]


@pytest.mark.parametrize(("settings", "own"), SETTINGS)
def test_settings_keep_their_keys(settings, own):
    assert identity(settings(learning_rate=1e-3, epochs=1)) == SHARED | own


def test_specifications_keep_their_keys():
    assert identity(ModelSpec()) == SHAPE | {
        "class": "ModelSpec",
        "tokenizer": "word_level",
        "layers": 1,
    }
    assert identity(CausalSpec()) == SHAPE | {
        "class": "CausalSpec",
        "architecture": "gpt2",
        "tokenizer": "byte_level_bpe",
        "layers": 2,
        "window_tokens": 256,
        "weights": "float32",
    }
