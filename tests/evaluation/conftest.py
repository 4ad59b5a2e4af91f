"""Tiny GPTs with a byte-level vocabulary, and the plain way to score with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

POSITIONS = 64


@pytest.fixture(scope="session")
def gpt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gpt(tmp_path_factory.mktemp("gpt2"), "gpt2")


@pytest.fixture(scope="session")
def gpt_neo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gpt(tmp_path_factory.mktemp("gpt_neo"), "gpt_neo")


def make_gpt(folder: Path, kind: str) -> Path:
    """Save a GPT whose weights are wide enough apart that a wrong mask changes numbers."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoConfig,
        GPTNeoForCausalLM,
        PreTrainedTokenizerFast,
    )

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat . is the answer yes or no ?"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    shared: dict[str, Any] = {
        "vocab_size": len(fast),
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "gpt2":
            sizes = {"n_positions": POSITIONS, "n_embd": 32, "n_layer": 3, "n_head": 4}
            network: Any = GPT2LMHeadModel(GPT2Config(**shared, **sizes))
        else:
            network = GPTNeoForCausalLM(
                GPTNeoConfig(
                    **shared,
                    max_position_embeddings=POSITIONS,
                    hidden_size=32,
                    num_layers=2,
                    num_heads=4,
                    attention_types=[[["global", "local"], 1]],
                    window_size=8,  # shorter than the rows: local attention must count right
                    intermediate_size=64,
                )
            )
    network.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def plain_losses(network: Any, tokens: list[int]) -> np.ndarray:
    """Score one row alone through plain transformers: the losses of tokens 1 on."""
    import torch

    if len(tokens) == 1:
        return np.zeros(0)
    with torch.inference_mode():
        logits = network(torch.tensor([tokens[:-1]])).logits[0].float()
    wanted = torch.tensor(tokens[1:])
    return torch.nn.functional.cross_entropy(logits, wanted, reduction="none").numpy()
