"""Causal language models: GPT-2 and GPT-Neo, of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gotd.storage.shapes import Shape
from gotd.training.loading import load_any_tokenizer, load_config, load_network
from gotd.training.models import ModelSpec
from gotd.training.tokenizers import byte_level_bpe, causal_tokenizer, causal_word_level

EAGER_ONLY = ("gpt_neo",)
"""Architectures without a faster attention."""
WEIGHTS = {"float32": torch.float32, "bf16": torch.bfloat16}
"""Types of weights, by their names in settings."""


@dataclass(frozen=True)
class CausalSpec(ModelSpec):
    """Specification of the causal language model that all arms start from.

    ``pretrained=null`` for a published model builds one of its shape with random weights, to
    measure costs where its weights cannot be downloaded.

    Args:
        architecture: ``gpt2``, or ``gpt_neo`` (every second layer attends to a window only).
        tokenizer: ``word_level`` (one token per word of a given vocabulary) or
            ``byte_level_bpe`` (trained on given texts).
        vocabulary_size: Rows of the word embeddings for ``byte_level_bpe``; rows beyond the
            trained vocabulary have no token.
        layers: Transformer layers; even for ``gpt_neo``.
        window_tokens: Width of GPT-Neo's local attention.
        weights: Type of the weights of a model that is built: ``float32`` or ``bf16``.

    The other fields are those of `ModelSpec`.
    """

    key_name: ClassVar[str] = "CausalSpec"

    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "architecture": ("gpt2", "gpt_neo"),
        "tokenizer": ("word_level", "byte_level_bpe"),
        "weights": (*WEIGHTS,),
    }
    sizes: ClassVar[tuple[str, ...]] = (*ModelSpec.sizes, "window_tokens")

    architecture: str = "gpt2"
    tokenizer: str = "byte_level_bpe"
    layers: int = 2
    window_tokens: int = 256
    weights: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture == "gpt_neo" and self.layers % 2:
            raise ValueError(f"a gpt_neo has pairs of layers, not {self.layers}")

    def shape(self) -> Shape:
        """Return the sizes of the network."""
        return replace(super().shape(), family=self.architecture)

    def build_tokenizer(self, texts_or_vocabulary: Sequence[str]) -> PreTrainedTokenizerBase:
        """Build the tokenizer from a vocabulary, or train it on texts."""
        if self.tokenizer == "word_level":
            tokenizer = causal_word_level(texts_or_vocabulary)
        else:
            tokenizer = byte_level_bpe(texts_or_vocabulary, self.vocabulary_size)
        return causal_tokenizer(tokenizer, self.max_length_tokens)

    def build_network(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """Build the network, with weights from the global generator."""
        words = self.tokenizer == "word_level"
        end = tokenizer.eos_token_id
        shared: dict[str, Any] = {
            "vocab_size": max(len(tokenizer), 0 if words else self.vocabulary_size),
            "bos_token_id": end,
            "eos_token_id": end,
            "max_position_embeddings": self.max_length_tokens,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
        }
        if self.architecture == "gpt2":
            config = GPT2Config(
                **shared,
                n_inner=self.feed_forward_size,
                resid_pdrop=self.dropout,
                embd_pdrop=self.dropout,
                attn_pdrop=self.dropout,
            )
        else:
            config = GPTNeoConfig(
                **shared,
                intermediate_size=self.feed_forward_size,
                attention_types=[[["global", "local"], self.layers // 2]],
                window_size=self.window_tokens,
                resid_dropout=self.dropout,
                embed_dropout=self.dropout,
                attention_dropout=self.dropout,
            )
        return AutoModelForCausalLM.from_config(config, dtype=WEIGHTS[self.weights])


def load_causal_lm(
    model: Path | str, dtype: torch.dtype = torch.float32, training: bool = True
) -> PreTrainedModel:
    """Load a causal language model, from safetensors only.

    Args:
        model: A model folder or Hub name.
        dtype: Type of the weights in memory.
        training: Whether to choose the attention that is fastest with dropout.

    Raises:
        OSError: If there is no such model.
        ValueError: If a weight is absent.
    """
    config = load_config(model)
    options: dict[str, Any] = {"dtype": dtype}
    if not training:
        options["attn_implementation"] = None  # the library's own choice
    elif config.model_type in EAGER_ONLY:
        options["attn_implementation"] = "eager"
    tied = ("lm_head.",) if config.tie_word_embeddings else ()
    network, _ = load_network(AutoModelForCausalLM, model, tied, **options)
    return network


def load_causal_tokenizer(model: Path | str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a causal model; one without a padding token pads with its last token.

    Raises:
        ValueError: If it has no token that ends a text.
    """
    tokenizer = load_any_tokenizer(model)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {model} has no token that ends a text (eos_token)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def is_causal(model: Path | str) -> bool:
    """Return whether a model is a causal language model: it has no masked form."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return load_config(model).model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
