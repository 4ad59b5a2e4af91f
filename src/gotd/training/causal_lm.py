"""Pre-fine-tune a causal language model on the selected texts.

The first stage of the paper's detoxification and zero-shot experiments (§3.1, App. E):
GPT-2 and GPT-Neo learn to continue the selection, all weights or low-rank additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gotd.training.causal_models import WEIGHTS, load_causal_lm, load_causal_tokenizer
from gotd.training.data import (
    IGNORED,
    TOKENISED_AT_ONCE,
    Batch,
    BatchStream,
    Part,
    TokenRows,
    pad_rows,
    split_batch,
    steps_per_epoch,
)
from gotd.training.lora import add_adapters, merge_adapters
from gotd.training.models import check_length, resolve_folder, save_model
from gotd.training.randomness import isolated_randomness, seed_for, seed_generators
from gotd.training.settings import TrainingSettings, identity_of
from gotd.training.trainer import (
    StepModule,
    count_steps,
    forget_checkpoint,
    process_rank,
    train,
)


@dataclass(frozen=True, kw_only=True)
class CausalLMSettings(TrainingSettings):
    """Settings of causal pre-fine-tuning.

    ``max_length_tokens`` is the length of the blocks into which texts are packed.

    Args:
        max_steps: Ends the stage early; the schedule ends with it.
        separate_texts: Put the token that ends a text after each. False is the published
            way: texts run into one another.
        weights: Type of the weights while they are trained, and after. ``bf16`` halves the
            memory of a model under ``lora``, whose additions stay float32; under ``full`` it
            also rounds away updates below a two-hundredth of a weight.
    """

    key_name: ClassVar[str] = "CausalLMSettings"

    published: ClassVar[dict[str, Any]] = {"separate_texts": False}
    """What the published code does otherwise (Deviation D18)."""

    max_steps: int | None = None
    separate_texts: bool = True
    weights: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_length_tokens < 2:
            raise ValueError(f"max_length_tokens must be at least 2, not {self.max_length_tokens}")
        if self.max_steps is not None and self.max_steps < 0:
            raise ValueError(f"max_steps must not be negative, not {self.max_steps}")
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights must be one of {(*WEIGHTS,)}, not {self.weights!r}")


def pack(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    block_tokens: int,
    separate: bool,
    seed: int,
) -> TokenRows:
    """Join texts in a random order and cut them into blocks of equal length.

    No token is lost: the last block is what is left, unless that is a single token,
    which has nothing to predict.

    Args:
        tokenizer: The model's; its end-of-text token stands after every text.
        texts: One row each.
        block_tokens: Tokens of a block.
        separate: Whether to put in the end-of-text token.
        seed: Seed of the order.

    Returns:
        Blocks as rows.

    Raises:
        ValueError: If there are no texts, or together they have fewer than two tokens.
    """
    if len(texts) == 0:
        raise ValueError("there are no texts to train on; the list is empty")
    # The ranking's order would fill a block with the likes of one another.
    order = np.random.default_rng(seed_for(seed, "pack")).permutation(len(texts))
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
    return TokenRows(flat, None, np.zeros(len(flat), dtype=bool), offsets, pad_id)


@dataclass(frozen=True)
class BlockCollator:
    """Make the batch of a step: every token of a block but its first is predicted."""

    rows: TokenRows
    per_device_batch_size: int

    def __call__(self, step: int, which: np.ndarray) -> Batch:
        """Return this device's share of ``step``, over the blocks ``which``."""
        rank, devices = process_rank()
        parts = []
        for part in split_batch(len(which), self.per_device_batch_size, rank, devices):
            padded = pad_rows(self.rows, which[part])
            labels = padded["input_ids"].masked_fill(padded["attention_mask"] == 0, IGNORED)
            parts.append({**padded, "labels": labels})
        return Batch(parts, terms=max(1, int((self.rows.lengths[which] - 1).sum())))


class CausalLM(StepModule):
    """Next-token prediction, with logits where a token follows."""

    def sum_losses(self, part: Part) -> Tensor:
        """Return the summed cross-entropy of the tokens that follow, in nats."""
        hidden = self.network.base_model(
            input_ids=part["input_ids"], attention_mask=part["attention_mask"], use_cache=False
        ).last_hidden_state
        following = part["labels"][:, 1:]
        counted = following != IGNORED
        logits = self.network.get_output_embeddings()(hidden[:, :-1][counted])
        return nn.functional.cross_entropy(logits.float(), following[counted], reduction="sum")


def pre_fine_tune(
    model: Path | str,
    texts: Sequence[str],
    settings: CausalLMSettings,
    seed: int,
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Train a causal language model on ``texts`` and write the model folder ``out``.

    Called again with the same arguments after a kill, it goes on from the checkpoint
    in ``work`` and writes the same bytes.

    Args:
        model: Folder or Hub name of the base.
        texts: The selection, one row each; repeated rows count repeatedly.
        settings: See :class:`CausalLMSettings`.
        seed: Seed of order and dropout.
        work: Folder for the checkpoint of a long run.
        out: Folder for the model; with ``tuning="lora"`` the merged model, and the
            adapter in ``out/adapter``.

    Returns:
        JSON-able ``loss_curve`` ([[step, mean nats per token]]), ``steps``, ``tokens``,
        ``blocks`` and, not reproducible, ``cost``.

    Raises:
        ValueError: If there are no texts, or weights are missing.
        FileNotFoundError: If ``model`` is no model folder.
        FloatingPointError: If the loss is not finite.
    """
    folder = resolve_folder(model)
    tokenizer = load_causal_tokenizer(folder)
    rows = pack(tokenizer, texts, settings.max_length_tokens, settings.separate_texts, seed)
    with isolated_randomness():
        seed_generators(seed_for(seed, "fresh weights"))
        network = load_causal_lm(folder, WEIGHTS[settings.weights])
        check_length(network, settings.max_length_tokens)
        adapted = _adapt(network, settings)
        per_epoch = steps_per_epoch(len(rows), settings.global_batch_size)
        steps = count_steps(per_epoch, settings.epochs, settings.max_steps)
        collate = BlockCollator(rows, settings.per_device_batch_size)
        stream = BatchStream(rows.lengths, settings.global_batch_size, range(steps), seed, collate)
        identity = identity_of(settings, seed, rows.digest())
        module = CausalLM(network, settings, seed, identity)
        cost = train(module, stream, work)
        if module.gathered:  # the shards that were trained are no model by themselves
            network = load_causal_lm(folder, WEIGHTS[settings.weights])
            adapted = _adapt(network, settings)
            network.load_state_dict(module.gathered)
    if process_rank()[0] == 0:
        out.mkdir(parents=True, exist_ok=True)
        if adapted is not None:
            merge_adapters(adapted, out)
        save_model(network, tokenizer, out)
        forget_checkpoint(work)
    return {
        "loss_curve": module.curve,
        "steps": steps,
        "tokens": stream.tokens,
        "blocks": len(rows),
        "cost": asdict(cost),
    }


def _adapt(network: PreTrainedModel, settings: CausalLMSettings) -> PeftModel | None:
    """Add adapters and activation recomputation as asked; return the adapters' handle."""
    adapted = add_adapters(network, settings) if settings.tuning == "lora" else None
    if settings.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted
