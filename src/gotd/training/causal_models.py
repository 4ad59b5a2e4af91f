"""Build and load causal language models: GPT-2 and GPT-Neo, of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gotd.training.models import (
    SIZES,
    attention,
    check_shape,
    copy_model,
    missing_only,
    save_model,
)
from gotd.training.randomness import seed_for
from gotd.training.tokenizers import byte_level_bpe, causal_tokenizer, causal_word_level

ARCHITECTURES = ("gpt2", "gpt_neo")
EAGER_ONLY = ("gpt_neo",)
"""Architectures without a faster attention."""
TOKENIZERS = ("word_level", "byte_level_bpe")
WEIGHTS = {"float32": torch.float32, "bf16": torch.bfloat16}
"""In which type weights are kept, by the name that settings give it."""


@dataclass(frozen=True)
class CausalSpec:
    """Say which causal language model all arms start from.

    Either ``pretrained`` names one, or one is built from the other fields: ``null`` for a
    published model makes one of its shape whose weights are random, as the architecture
    initialises them, to measure what it takes where its weights cannot be had.

    Args:
        pretrained: A Hub name (``openai-community/gpt2``) or a folder; ``None`` builds one.
        revision: The Hub commit.
        architecture: ``gpt2``, or ``gpt_neo`` (every second layer sees a window only).
        tokenizer: ``word_level`` (one token per word of a given vocabulary) or
            ``byte_level_bpe`` (trained on given texts).
        vocabulary_size: Rows of the word embeddings for ``byte_level_bpe``; a vocabulary
            that the texts do not fill leaves some without a token.
        layers: Transformer layers; even for ``gpt_neo``.
        hidden_size: Width of the hidden states.
        heads: Attention heads; divides ``hidden_size``.
        feed_forward_size: Width inside the feed-forward layers.
        dropout: Dropout of embeddings, hidden states and attention.
        max_length_tokens: Positions the model knows.
        window_tokens: Width of GPT-Neo's local attention.
        weights: Type of the weights of a model that is built: ``float32`` or ``bf16``.
    """

    key_name: ClassVar[str] = "CausalSpec"

    pretrained: str | None = None
    revision: str | None = None
    architecture: str = "gpt2"
    tokenizer: str = "byte_level_bpe"
    vocabulary_size: int = 8192
    layers: int = 2
    hidden_size: int = 128
    heads: int = 4
    feed_forward_size: int = 512
    dropout: float = 0.1
    max_length_tokens: int = 128
    window_tokens: int = 256
    weights: str = "float32"

    def __post_init__(self) -> None:
        choices = {"architecture": ARCHITECTURES, "tokenizer": TOKENIZERS, "weights": (*WEIGHTS,)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"model {name} must be one of {known}, not {getattr(self, name)!r}"
                )
        check_shape(self, (*SIZES, "window_tokens"))
        if self.architecture == "gpt_neo" and self.layers % 2:
            raise ValueError(f"a gpt_neo has pairs of layers, not {self.layers}")


def build_causal_model(
    spec: CausalSpec, texts_or_vocabulary: Sequence[str], seed: int, out: Path
) -> None:
    """Write the folder of a causal base model.

    A pretrained model is copied as it is. The weights of one that is built are a
    function of ``spec``, the vocabulary and ``seed``; its head is tied to the word
    embeddings.

    Args:
        spec: What to build.
        texts_or_vocabulary: The words (``word_level``) or the texts to train the
            tokenizer on (``byte_level_bpe``); not read for a pretrained model.
        seed: Seed of the initial weights.
        out: Folder to write, made if needed.

    Raises:
        FileNotFoundError: If the pretrained model cannot be found.
        ValueError: If words or texts are missing, or a word is not one token.
    """
    out.mkdir(parents=True, exist_ok=True)
    if spec.pretrained is not None:
        copy_model(spec.pretrained, spec.revision, out)
        return
    if not texts_or_vocabulary:
        raise ValueError("a model built from configuration needs words or texts; the list is empty")
    if spec.tokenizer == "word_level":
        tokenizer, least = causal_word_level(texts_or_vocabulary), 0
    else:
        tokenizer = byte_level_bpe(texts_or_vocabulary, spec.vocabulary_size)
        least = spec.vocabulary_size
    fast = causal_tokenizer(tokenizer, spec.max_length_tokens)
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "weights"))
        end: Any = fast.eos_token_id
        config = _configuration(spec, max(len(fast), least), end)
        kind = GPT2LMHeadModel if spec.architecture == "gpt2" else GPTNeoForCausalLM
        network = kind._from_config(config, dtype=WEIGHTS[spec.weights])
    save_model(network, fast, out)


def _configuration(spec: CausalSpec, vocabulary: int, end: int) -> PreTrainedConfig:
    if spec.architecture == "gpt2":
        return GPT2Config(
            vocab_size=vocabulary,
            n_positions=spec.max_length_tokens,
            n_embd=spec.hidden_size,
            n_layer=spec.layers,
            n_head=spec.heads,
            n_inner=spec.feed_forward_size,
            resid_pdrop=spec.dropout,
            embd_pdrop=spec.dropout,
            attn_pdrop=spec.dropout,
            bos_token_id=end,
            eos_token_id=end,
        )
    return GPTNeoConfig(
        vocab_size=vocabulary,
        max_position_embeddings=spec.max_length_tokens,
        hidden_size=spec.hidden_size,
        num_layers=spec.layers,
        num_heads=spec.heads,
        intermediate_size=spec.feed_forward_size,
        attention_types=[[["global", "local"], spec.layers // 2]],
        window_size=spec.window_tokens,
        resid_dropout=spec.dropout,
        embed_dropout=spec.dropout,
        attention_dropout=spec.dropout,
        bos_token_id=end,
        eos_token_id=end,
    )


def load_causal_lm(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a causal language model, from safetensors only.

    Args:
        folder: A model folder.
        dtype: Type of the weights in memory.

    Raises:
        ValueError: If a weight is absent.
    """
    kind = AutoConfig.from_pretrained(folder).model_type
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        output_loading_info=True,
        use_safetensors=True,
        dtype=dtype,
        attn_implementation="eager" if kind in EAGER_ONLY else attention(),
    )
    network, info = loaded
    missing_only(folder, info, ("lm_head.",) if network.config.tie_word_embeddings else ())
    return network


def load_causal_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a causal model; one without padding pads with its last token.

    Raises:
        ValueError: If it has no token that ends a text.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {folder} has no token that ends a text (eos_token)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
