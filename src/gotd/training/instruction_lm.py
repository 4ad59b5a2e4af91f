"""Instruction tuning: a causal model learns the responses, not the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gotd.storage.shapes import Shape
from gotd.storage.work import Work
from gotd.training.causal_lm import CausalLM, CausalLMSettings
from gotd.training.causal_models import load_causal_tokenizer
from gotd.training.data import IGNORED, Batch, Part, TokenRows
from gotd.training.language_model import LanguageModelSettings
from gotd.training.losses import sum_token_losses
from gotd.training.prompts import PromptFormat, encode_pairs
from gotd.training.randomness import TrainingSeeds
from gotd.training.trainer import StepModule

Pair = tuple[str, str]
"""A prompt and its response."""


class InstructionLM(CausalLM):
    """Next-token prediction on the tokens of responses; one row for each pair."""

    loss_name = "response_loss"

    def __init__(
        self,
        folder: Path,
        texts: Sequence[Pair],
        settings: InstructionLMSettings,
        seeds: TrainingSeeds,
    ) -> None:
        if len(texts) == 0:
            raise ValueError("there are no prompts and responses to train on; the list is empty")
        tokenizer = load_causal_tokenizer(folder)
        prompts, responses = zip(*texts, strict=True)
        pairs = encode_pairs(tokenizer, prompts, responses, settings.prompt_format)
        lengths = np.array([len(row) for row, _ in pairs], dtype=np.int64)
        flat = np.concatenate([np.array(row, dtype=np.int32) for row, _ in pairs])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        pad_id: Any = tokenizer.pad_token_id
        most = settings.prompt_format.max_length_tokens
        rows = TokenRows(flat, np.zeros(len(flat), dtype=bool), offsets, pad_id, most)
        begins = np.array([begin for _, begin in pairs], dtype=np.int64)
        self.learnt = learnt = lengths - begins
        digest = blake2b(learnt.tobytes(), digest_size=16).hexdigest()
        # Not of `CausalLM`, which packs texts into blocks.
        StepModule.__init__(self, folder, tokenizer, rows, settings, seeds, rows.digest(), digest)

    def collate(self, step: int, which: np.ndarray) -> Batch:
        """Return this device's share of ``step``; every token of a response is a term."""
        terms = max(1, int(self.learnt[which].sum()))
        return replace(StepModule.collate(self, step, which), terms=terms)

    def pad(self, which: np.ndarray) -> Part:
        """Pad rows; the labels of prompts and padding are ignored."""
        part = super().pad(which)
        places = np.arange(part["input_ids"].shape[1])
        ends = self.rows.lengths[which][:, None]
        response = (places >= ends - self.learnt[which][:, None]) & (places < ends)
        labels = part["input_ids"].masked_fill(~torch.from_numpy(response), IGNORED)
        return {**part, "labels": labels}

    def sum_losses(self, part: Part) -> Tensor:
        """Return the summed cross-entropy of the tokens of responses, in nats."""
        inputs = {name: tensor for name, tensor in part.items() if name != "labels"}
        hidden = self.network.base_model(**inputs, use_cache=False).last_hidden_state
        head = self.network.get_output_embeddings()
        return sum_token_losses(head, hidden[:, :-1], part["labels"][:, 1:])

    def report(self) -> dict[str, Any]:
        """Return the tokens of responses in one pass."""
        return {"response_tokens": int(self.learnt.sum())}


@dataclass(frozen=True, kw_only=True)
class InstructionLMSettings(CausalLMSettings):
    """Settings of instruction tuning; texts are pairs of a prompt and its response.

    ``max_length_tokens`` is the most tokens of a pair; ``separate_texts`` has no effect.

    Args:
        chat_template: Write pairs by the chat template of the tokenizer.
        separator: Text between prompt and response without a chat template.
    """

    key_name: ClassVar[str] = "InstructionLMSettings"

    published: ClassVar[dict[str, Any]] = {}
    module: ClassVar[Any] = InstructionLM
    reads_pairs: ClassVar[bool] = True

    chat_template: bool = False
    separator: str = "\n\n"

    @property
    def prompt_format(self) -> PromptFormat:
        """Return how pairs become tokens."""
        return PromptFormat(self.chat_template, self.separator, self.max_length_tokens)

    @property
    def of_texts(self) -> CausalLMSettings:
        """Return the same settings for causal language modelling of whole texts."""
        names = [field.name for field in fields(CausalLMSettings)]
        return CausalLMSettings(**{name: getattr(self, name) for name in names})

    def work(self, shape: Shape, rows: float, tokens: float) -> Work:
        """Return the work of training on rows, which are not packed."""
        return LanguageModelSettings.work(self, shape, rows, tokens)
