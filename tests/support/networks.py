"""Small networks of each architecture, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from gotd.storage.shapes import Shape

FAMILIES = ("bert", "gpt2", "gpt_neo")


def network(
    family: str, shape: Shape, dropout: float, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """Return a language model with random weights and eager attention.

    Args:
        family: ``bert``, ``gpt2`` or ``gpt_neo``.
        shape: Its sizes.
        dropout: Every chance of dropout.
        dtype: Type of its weights.
    """
    config: PreTrainedConfig
    kind: Any
    if family == "bert":
        config, kind = (
            BertConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.hidden,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                intermediate_size=shape.feed_forward,
                max_position_embeddings=shape.positions,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            ),
            BertForMaskedLM,
        )
    elif family == "gpt2":
        config, kind = (
            GPT2Config(
                vocab_size=shape.vocabulary,
                n_embd=shape.hidden,
                n_layer=shape.layers,
                n_head=shape.heads,
                n_inner=shape.feed_forward,
                n_positions=shape.positions,
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
                bos_token_id=0,
                eos_token_id=0,
            ),
            GPT2LMHeadModel,
        )
    else:
        config, kind = (
            GPTNeoConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.hidden,
                num_layers=shape.layers,
                num_heads=shape.heads,
                intermediate_size=shape.feed_forward,
                max_position_embeddings=shape.positions,
                attention_types=[[["global", "local"], shape.layers // 2]],
                resid_dropout=dropout,
                embed_dropout=dropout,
                attention_dropout=dropout,
                bos_token_id=0,
                eos_token_id=0,
            ),
            GPTNeoForCausalLM,
        )
    return kind._from_config(config, dtype=dtype, attn_implementation="eager")
