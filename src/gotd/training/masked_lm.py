"""Pre-fine-tune: continue masked language modelling on the selected texts.

The paper's first stage (GOT-D, section 2.1; settings in Tables 8 and 10). Logits are
computed at masked positions only: the same loss, without the vocabulary-wide
products at the 85 % of positions whose loss is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from gotd.training.data import (
    IGNORED,
    Batch,
    BatchStream,
    Part,
    TokenRows,
    pad_rows,
    split_batch,
    steps_per_epoch,
    tokenise,
)
from gotd.training.lora import add_adapters, merge_adapters
from gotd.training.models import (
    check_length,
    load_masked_lm,
    load_tokenizer,
    masked_lm_head,
    read_pooler,
    resolve_folder,
    save_model,
)
from gotd.training.randomness import isolated_randomness, seed_for, seed_generators
from gotd.training.settings import TrainingSettings, identity_of
from gotd.training.trainer import (
    StepModule,
    count_steps,
    forget_checkpoint,
    group_parameters,
    linear_schedule,
    process_rank,
    train,
)


@dataclass(frozen=True, kw_only=True)
class MaskedLMSettings(TrainingSettings):
    """Settings of the pre-fine-tuning stage.

    Args:
        embedding_learning_rate: Peak rate of the word embeddings, which are then not
            decayed; ``None`` treats them like the rest. Ten times the others' rate is
            what lets a tiny model learn facts in a minute.
        max_steps: Ends the stage early; the schedule ends with it.
        mask_probability: Share of the tokens to predict.
        head_only_steps: Steps before the others in which only the language-modelling
            head learns, for bases that come without one (sentence encoders).
        head_learning_rate: Constant rate of those steps.
        keep_pooler: Hand the base's pooler on to fine-tuning, so that all arms start
            equal. False is the published way: every pre-fine-tuned arm gets a fresh
            pooler while the vanilla arm keeps its own.
    """

    key_name: ClassVar[str] = "MaskedLMSettings"

    published: ClassVar[dict[str, Any]] = {"keep_pooler": False}
    """What the published code does otherwise (Deviation D5)."""

    embedding_learning_rate: float | None = None
    max_steps: int | None = None
    mask_probability: float = 0.15
    head_only_steps: int = 0
    head_learning_rate: float = 2e-3
    keep_pooler: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strategy != "ddp":
            raise ValueError(f"strategy={self.strategy} is for causal models; use ddp")
        if not 0 < self.mask_probability < 1:
            raise ValueError(f"mask_probability must lie in (0, 1), not {self.mask_probability}")
        if self.head_only_steps < 0 or self.head_learning_rate < 0:
            raise ValueError("head_only_steps and head_learning_rate must not be negative")
        if self.max_steps is not None and self.max_steps < 0:
            raise ValueError(f"max_steps must not be negative, not {self.max_steps}")


def mask_tokens(
    tokens: np.ndarray,
    special: np.ndarray,
    mask_id: int,
    vocabulary_size: int,
    probability: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Hide tokens the BERT way: 80 % become the mask, 10 % another token, 10 % stay.

    Args:
        tokens: ``[total]`` token ids.
        special: ``[total]`` bool; true where nothing may be hidden.
        mask_id: The mask's id.
        vocabulary_size: Random tokens are uniform over it.
        probability: Chance of each token to be predicted.
        random: Source of chance.

    Returns:
        ``[total]`` inputs, and labels: the token where predicted, else ``IGNORED``.

    Source: Devlin et al., BERT (2019), section 3.1.
    """
    chosen = (random.random(len(tokens)) < probability) & ~special
    fate = random.random(len(tokens))
    others = random.integers(vocabulary_size, size=len(tokens))
    inputs = np.where(chosen & (fate < 0.8), mask_id, tokens)
    inputs = np.where(chosen & (fate >= 0.8) & (fate < 0.9), others, inputs)
    return inputs, np.where(chosen, tokens, IGNORED)


@dataclass(frozen=True)
class MaskingCollator:
    """Make the batch of a step: mask all its rows at once, then cut it into parts.

    Masking before cutting keeps the masks the same for every number of devices.
    """

    rows: TokenRows
    mask_id: int
    vocabulary_size: int
    settings: MaskedLMSettings
    seed: int

    def __call__(self, step: int, which: np.ndarray) -> Batch:
        """Return this device's share of ``step``, over the rows ``which``."""
        places = self.rows.positions(which)
        inputs, labels = mask_tokens(
            self.rows.tokens[places],
            self.rows.special[places],
            self.mask_id,
            self.vocabulary_size,
            self.settings.mask_probability,
            np.random.default_rng(seed_for(self.seed, "mask", step)),
        )
        ends = np.concatenate([[0], np.cumsum(self.rows.lengths[which])])
        parts = []
        rank, devices = process_rank()
        for part in split_batch(len(which), self.settings.per_device_batch_size, rank, devices):
            inside = slice(ends[part[0]], ends[part[-1] + 1]) if len(part) else slice(0, 0)
            padded = pad_rows(self.rows, which[part], inputs[inside])
            target = torch.full_like(padded["input_ids"], IGNORED)
            target[padded["attention_mask"].bool()] = torch.from_numpy(labels[inside]).long()
            parts.append({**padded, "labels": target})
        return Batch(parts, terms=max(1, int((labels != IGNORED).sum())))


class MaskedLM(StepModule):
    """Masked language modelling with logits at the masked positions only."""

    def __init__(
        self, network: PreTrainedModel, settings: MaskedLMSettings, seed: int, identity: str
    ) -> None:
        super().__init__(network, settings, seed, identity)
        self.stage = settings

    @property
    def words(self) -> nn.Parameter:
        """The word embeddings, tied to the head's decoder."""
        return self.network.get_input_embeddings().weight

    def sum_losses(self, part: Part) -> Tensor:
        """Return the summed cross-entropy of the masked tokens, in nats."""
        labels = part["labels"]
        inputs = {key: value for key, value in part.items() if key != "labels"}
        # The encoder is not part of the graph while only the head learns.
        with torch.set_grad_enabled(self.step >= self.stage.head_only_steps):
            hidden = self.network.base_model(**inputs).last_hidden_state
        masked = labels != IGNORED
        logits = masked_lm_head(self.network)(hidden[masked])
        return nn.functional.cross_entropy(logits.float(), labels[masked], reduction="sum")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW's groups, the word embeddings apart where they have their own rate."""
        rate = self.stage.embedding_learning_rate
        apart = None if rate is None else {id(self.words): rate}
        return group_parameters(self.network, self.settings, apart)

    def rate(self, step: int, peak: float) -> float:
        """Return the rate: the head's own at first, then a schedule over the other steps."""
        head_only = self.stage.head_only_steps
        if step < head_only:
            return self.stage.head_learning_rate
        share = linear_schedule(
            step - head_only, self.total_steps - head_only, self.settings.warmup_share
        )
        return peak * share

    def before_update(self, step: int) -> None:
        """Keep the decoder, tied to the word embeddings, still while only the head learns."""
        if step < self.stage.head_only_steps:
            self.words.grad = None


def pre_fine_tune(
    model: Path | str,
    texts: Sequence[str],
    settings: MaskedLMSettings,
    seed: int,
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Continue masked language modelling on ``texts`` and write the model folder ``out``.

    Called again with the same arguments after a kill, it goes on from the checkpoint
    in ``work`` and writes the same bytes.

    Args:
        model: Folder or Hub name of the base.
        texts: The selection, one row each; repeated rows count repeatedly.
        settings: See :class:`MaskedLMSettings`.
        seed: Seed of order, masks, dropout and fresh weights.
        work: Folder for the checkpoint of a long run.
        out: Folder for the model; with ``tuning="lora"`` the merged model, and the
            adapter in ``out/adapter``.

    Returns:
        JSON-able ``loss_curve`` ([[step, mean nats per masked token]]), ``steps``,
        ``head_only_steps``, ``tokens``, ``fresh_head`` and, not reproducible, ``cost``.

    Raises:
        ValueError: If there are no texts, or weights other than the head are missing.
        FileNotFoundError: If ``model`` is no model folder.
        FloatingPointError: If the loss is not finite.
    """
    folder = resolve_folder(model)
    tokenizer = load_tokenizer(folder)
    mask_id: Any = tokenizer.mask_token_id
    if mask_id is None:
        raise ValueError(f"the tokenizer of {folder} has no mask token; use a masked model")
    rows = tokenise(tokenizer, texts, None, settings.max_length_tokens)
    with isolated_randomness():
        seed_generators(seed_for(seed, "fresh weights"))
        network, fresh_head = load_masked_lm(folder)
        check_length(network, settings.max_length_tokens)
        adapted = _adapt(network, settings)
        per_epoch = steps_per_epoch(len(rows), settings.global_batch_size)
        steps = count_steps(per_epoch, settings.epochs, settings.max_steps)
        order = [*range(settings.head_only_steps), *range(steps)]
        collate = MaskingCollator(rows, mask_id, len(tokenizer), settings, seed)
        stream = BatchStream(rows.lengths, settings.global_batch_size, order, seed, collate)
        module = MaskedLM(network, settings, seed, identity_of(settings, seed, rows.digest()))
        cost = train(module, stream, work)
    if process_rank()[0] == 0:
        out.mkdir(parents=True, exist_ok=True)
        if adapted is not None:
            merge_adapters(adapted, out)
        # Deviation D5: without its pooler an arm starts fine-tuning behind the vanilla arm.
        pooler = read_pooler(folder) if settings.keep_pooler else None
        save_model(network, tokenizer, out, pooler)
        forget_checkpoint(work)
    return {
        "loss_curve": module.curve,
        "steps": steps,
        "head_only_steps": settings.head_only_steps,
        "tokens": stream.tokens,
        "fresh_head": fresh_head,
        "cost": asdict(cost),
    }


def _adapt(network: PreTrainedModel, settings: MaskedLMSettings) -> PeftModel | None:
    """Add adapters and activation recomputation as asked; return the adapters' handle.

    A head that has to be learnt first stays trainable beside adapters, but not the
    word embeddings that are tied into it.
    """
    adapted = None
    if settings.tuning == "lora":
        adapted = add_adapters(network, settings)
        words = network.get_input_embeddings().weight
        for parameter in masked_lm_head(network).parameters():
            if settings.head_only_steps and parameter is not words:
                parameter.requires_grad_(True)
    if settings.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted
