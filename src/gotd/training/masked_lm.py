"""Masked language modelling on the selected texts.

The first stage of the paper's GLUE and domain experiments (GOT-D, section 2.1; settings in
Tables 8 and 10). Logits are computed at masked positions only. The loss is the same, without
the vocabulary-wide products at the 85 % of positions that do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn

from gotd.storage.seeds import derive_seed
from gotd.training.data import IGNORED, Batch, Part, own_parts, pad_rows, tokenise
from gotd.training.language_model import LanguageModelSettings
from gotd.training.lora import prepare_tuning
from gotd.training.losses import sum_token_losses
from gotd.training.memory import Training
from gotd.training.models import (
    load_masked_lm,
    load_tokenizer,
    masked_lm_head,
    read_pooler,
    save_model,
)
from gotd.training.optimisation import group_parameters, linear_schedule
from gotd.training.randomness import TrainingSeeds
from gotd.training.trainer import StepModule


def mask_tokens(
    tokens: np.ndarray,
    special: np.ndarray,
    mask_id: int,
    vocabulary_size: int,
    probability: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask tokens as BERT does: 80 % become the mask, 10 % another token, 10 % stay.

    Args:
        tokens: ``[total]`` token ids.
        special: ``[total]`` bool; true where nothing may be masked.
        mask_id: The mask's id.
        vocabulary_size: Random tokens are uniform over it.
        probability: Chance of each token to be predicted.
        random: Generator of the draws.

    Returns:
        ``[total]`` inputs, and labels: the token where predicted, else ``IGNORED``.

    Source: Devlin et al., BERT (2019), section 3.1.
    """
    predicted = (random.random(len(tokens)) < probability) & ~special
    draw = random.random(len(tokens))
    others = random.integers(vocabulary_size, size=len(tokens))
    inputs = np.where(predicted & (draw < 0.8), mask_id, tokens)
    inputs = np.where(predicted & (draw >= 0.8) & (draw < 0.9), others, inputs)
    return inputs, np.where(predicted, tokens, IGNORED)


class MaskedLM(StepModule):
    """Prediction of masked tokens, one text a row, with logits at the masked positions only."""

    loss_name = "masked_lm_loss"
    fresh_head = False
    """Whether the base came without a language-modelling head; set by `load`."""

    def __init__(
        self,
        folder: Path,
        texts: Sequence[str],
        settings: MaskedLMSettings,
        seeds: TrainingSeeds,
    ) -> None:
        tokenizer = load_tokenizer(folder)
        if tokenizer.mask_token_id is None:
            raise ValueError(f"the tokenizer of {folder} has no mask token; use a masked model")
        rows = tokenise(tokenizer, texts, None, settings.max_length_tokens)
        if rows.special.all():
            raise ValueError("the texts to train on hold no token that could be predicted")
        super().__init__(folder, tokenizer, rows, settings, seeds, rows.digest())

    def load(self) -> PeftModel | None:
        """Load the base; a head that it lacks is random, and trained beside adapters."""
        self.network, self.fresh_head = load_masked_lm(self.folder)
        adapted = prepare_tuning(self.network, self.settings)
        if adapted is not None and self.settings.head_only_steps:
            for weight in masked_lm_head(self.network).parameters():
                # The word embeddings are tied into the head.
                weight.requires_grad_(weight is not self.words)
        return adapted

    def save(self, out: Path) -> None:
        """Write the model folder, with the base's pooler if it is to be kept."""
        # Deviation D5: without its pooler an arm starts fine-tuning behind the vanilla arm.
        pooler = read_pooler(self.folder) if self.settings.keep_pooler else {}
        save_model(self.network, self.tokenizer, out, pooler)

    def schedule(self, steps: int) -> Sequence[int]:
        """Return the steps of the head alone, then all steps from the first rows again."""
        return [*range(self.settings.head_only_steps), *range(steps)]

    def collate(self, step: int, which: np.ndarray) -> Batch:
        """Return this device's share of ``step``, over the rows ``which``.

        All rows of a step are masked at once, then divided, so that the masks are the same
        for every number of devices.
        """
        positions = self.rows.positions(which)
        mask_id: Any = self.tokenizer.mask_token_id
        inputs, labels = mask_tokens(
            self.rows.tokens[positions],
            self.rows.special[positions],
            mask_id,
            len(self.tokenizer),
            self.settings.mask_probability,
            np.random.default_rng(derive_seed(self.seeds.masking, "mask", step)),
        )
        ends = np.concatenate([[0], np.cumsum(self.rows.lengths[which])])
        masked = replace(self.rows, tokens=inputs, offsets=ends)
        wanted = replace(masked, tokens=labels, pad_id=IGNORED)
        parts = [
            {**pad_rows(masked, part), "labels": pad_rows(wanted, part)["input_ids"]}
            for part in own_parts(len(which), self.settings.per_device_batch_size)
        ]
        return Batch(parts, terms=max(1, int((labels != IGNORED).sum())))

    @property
    def words(self) -> nn.Parameter:
        """Return the word embeddings, which are tied to the head's decoder."""
        return self.network.get_input_embeddings().weight

    def sum_losses(self, part: Part) -> Tensor:
        """Return the summed cross-entropy of the masked tokens, in nats."""
        labels = part["labels"]
        inputs = {key: value for key, value in part.items() if key != "labels"}
        # The encoder is not part of the graph while only the head is trained.
        with torch.set_grad_enabled(self.step >= self.settings.head_only_steps):
            hidden = self.network.base_model(**inputs).last_hidden_state
        return sum_token_losses(masked_lm_head(self.network), hidden, labels)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW's groups, one for the word embeddings if they have their own rate."""
        rate = self.settings.embedding_learning_rate
        own_rates = None if rate is None else {id(self.words): rate}
        return group_parameters(self.network, self.settings, own_rates)

    def rate(self, step: int, peak: float) -> float:
        """Return the rate: the head's own at first, then a schedule over the other steps."""
        head_only = self.settings.head_only_steps
        if step < head_only:
            return self.settings.head_learning_rate
        share = linear_schedule(
            step - head_only, self.total_steps - head_only, self.settings.warmup_share
        )
        return peak * share

    def before_update(self, step: int) -> None:
        """Freeze the decoder, tied to the word embeddings, while only the head is trained."""
        if step < self.settings.head_only_steps:
            self.words.grad = None

    def report(self) -> dict[str, Any]:
        """Return the steps of the head alone, and whether it was random at first."""
        return {"head_only_steps": self.settings.head_only_steps, "fresh_head": self.fresh_head}


@dataclass(frozen=True, kw_only=True)
class MaskedLMSettings(LanguageModelSettings):
    """Settings of the pre-fine-tuning stage.

    Args:
        embedding_learning_rate: Peak rate of the word embeddings, which are then not
            decayed; ``None``: as the others. Ten times the rate of the others lets a tiny
            model learn facts in a minute.
        mask_probability: Share of the tokens to predict.
        head_only_steps: Steps before the others in which only the language-modelling
            head is trained, for bases without one (sentence encoders).
        head_learning_rate: Constant rate of those steps.
        keep_pooler: Save the base's pooler for fine-tuning, so that all arms start
            equal. False is the published way: every pre-fine-tuned arm gets a fresh
            pooler while the vanilla arm keeps its own.
    """

    key_name: ClassVar[str] = "MaskedLMSettings"

    published: ClassVar[dict[str, Any]] = {"keep_pooler": False}
    """Values of the published code where they differ (Deviation D5)."""
    module: ClassVar[Any] = MaskedLM

    embedding_learning_rate: float | None = None
    mask_probability: float = 0.15
    head_only_steps: int = 0
    head_learning_rate: float = 2e-3
    keep_pooler: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_probability < 1:
            raise ValueError(f"mask_probability must lie in (0, 1), not {self.mask_probability}")
        if self.head_only_steps < 0 or self.head_learning_rate < 0:
            raise ValueError("head_only_steps and head_learning_rate must not be negative")

    def training(self, rows: int | None = None) -> Training:
        """Return what the memory depends on: only masked tokens get logits."""
        return replace(super().training(rows), predicted=self.mask_probability)
