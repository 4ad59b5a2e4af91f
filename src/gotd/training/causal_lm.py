"""Causal language modelling on the selected texts.

The first stage of the paper's detoxification and zero-shot experiments (§3.1, App. E):
GPT-2 and GPT-Neo learn to continue the selection, with all weights or low-rank additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gotd.storage.checks import check_choice
from gotd.storage.seeds import derive_seed
from gotd.storage.shapes import Shape
from gotd.storage.work import Work
from gotd.training.causal_models import WEIGHTS, load_causal_lm, load_causal_tokenizer
from gotd.training.data import IGNORED, TOKENISED_AT_ONCE, Batch, Part, TokenRows
from gotd.training.language_model import LanguageModelSettings
from gotd.training.lora import prepare_tuning
from gotd.training.losses import sum_token_losses
from gotd.training.memory import Training
from gotd.training.randomness import TrainingSeeds
from gotd.training.trainer import StepModule


def pack(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    block_tokens: int,
    separate: bool,
    seed: int,
) -> TokenRows:
    """Join texts in a random order and cut them into blocks of equal length.

    No token is lost: the last block contains the remaining tokens. A single remaining
    token is dropped, because it predicts nothing.

    Args:
        tokenizer: The model's tokenizer.
        texts: One row each.
        block_tokens: Tokens of a block.
        separate: Whether to put the end-of-text token after every text.
        seed: Seed of the order.

    Returns:
        Blocks as rows.

    Raises:
        ValueError: If there are no texts, or together they have fewer than two tokens.
    """
    if len(texts) == 0:
        raise ValueError("there are no texts to train on; the list is empty")
    # In the order of the ranking a block would hold texts that are alike.
    order = np.random.default_rng(derive_seed(seed, "pack")).permutation(len(texts))
    end: list[int] = [int(tokenizer.eos_token_id)] if separate else []  # type: ignore[arg-type]
    tokens = []
    for start in range(0, len(order), TOKENISED_AT_ONCE):
        block: list[Any] = [texts[i] for i in order[start : start + TOKENISED_AT_ONCE]]
        rows: Any = tokenizer(block, return_attention_mask=False, add_special_tokens=False)
        joined = (token for row in rows["input_ids"] for token in (*row, *end))
        tokens.append(np.fromiter(joined, dtype=np.int32))
    flat = np.concatenate(tokens)
    offsets = np.append(np.arange(0, len(flat), block_tokens), len(flat)).astype(np.int64)
    if offsets[-1] - offsets[-2] < 2:
        offsets = np.delete(offsets, -1)
        flat = flat[: offsets[-1]]
    if len(offsets) < 2:
        raise ValueError("the texts to train on hold fewer than two tokens together")
    pad_id: Any = tokenizer.pad_token_id
    return TokenRows(flat, np.zeros(len(flat), dtype=bool), offsets, pad_id, block_tokens)


class CausalLM(StepModule):
    """Next-token prediction on blocks of packed texts, with logits only where a token follows."""

    loss_name = "causal_lm_loss"

    def __init__(
        self,
        folder: Path,
        texts: Sequence[str],
        settings: CausalLMSettings,
        seeds: TrainingSeeds,
    ) -> None:
        tokenizer = load_causal_tokenizer(folder)
        length, separate = settings.max_length_tokens, settings.separate_texts
        rows = pack(tokenizer, texts, length, separate, seeds.order)
        super().__init__(folder, tokenizer, rows, settings, seeds, rows.digest())

    def load(self) -> PeftModel | None:
        """Load the base in the type that its weights are trained in."""
        self.network = load_causal_lm(self.folder, WEIGHTS[self.settings.weights])
        return prepare_tuning(self.network, self.settings)

    def collate(self, step: int, which: np.ndarray) -> Batch:
        """Return this device's share of ``step``; every token but a block's first is a term."""
        terms = max(1, int((self.rows.lengths[which] - 1).sum()))
        return replace(super().collate(step, which), terms=terms)

    def sum_losses(self, part: Part) -> Tensor:
        """Return the summed cross-entropy of the tokens that follow, in nats."""
        hidden = self.network.base_model(**part, use_cache=False).last_hidden_state
        labels = part["input_ids"].masked_fill(~part["attention_mask"].bool(), IGNORED)
        head = self.network.get_output_embeddings()
        return sum_token_losses(head, hidden[:, :-1], labels[:, 1:])

    def report(self) -> dict[str, Any]:
        """Return the number of blocks."""
        return {"blocks": len(self.rows)}


@dataclass(frozen=True, kw_only=True)
class CausalLMSettings(LanguageModelSettings):
    """Settings of causal pre-fine-tuning.

    ``max_length_tokens`` is the length of the blocks into which texts are packed.

    Args:
        separate_texts: Put the end-of-text token after each text. False is the published
            way: texts run into one another.
        weights: Type of the weights during training and in the result. ``bf16`` halves the
            memory of a model under ``lora``, whose additions stay float32. Under ``full`` it
            also rounds away updates below a two-hundredth of a weight.
    """

    key_name: ClassVar[str] = "CausalLMSettings"

    published: ClassVar[dict[str, Any]] = {"separate_texts": False}
    """Values of the published code where they differ (Deviation D18)."""
    strategies: ClassVar[tuple[str, ...]] = ("ddp", "fsdp")
    module: ClassVar[Any] = CausalLM

    separate_texts: bool = True
    weights: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length_tokens < 2:
            raise ValueError(f"max_length_tokens must be at least 2, not {self.max_length_tokens}")
        check_choice(self, "weights", (*WEIGHTS,))

    def training(self, rows: int | None = None) -> Training:
        """Return what the memory depends on: every token gets logits."""
        return replace(super().training(rows), predicted=1.0, weights=self.weights)

    def work(self, shape: Shape, rows: float, tokens: float) -> Work:
        """Return the work of training on full blocks, into which the texts are packed."""
        work = super().work(shape, rows * tokens / self.max_length_tokens, self.max_length_tokens)
        return replace(work, texts=rows)
