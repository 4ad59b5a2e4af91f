"""Train low-rank additions instead of the weights themselves (LoRA, by PEFT)."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from gotd.training.settings import TrainingSettings

ADAPTER_FOLDER = "adapter"
"""Where the adapter lies inside a model folder whose weights it is merged into."""

UNKNOWN_TO_PEFT = {"distilbert": ["q_lin", "v_lin"]}
"""What is adapted in architectures that PEFT has no choice of its own for."""


def add_adapters(network: PreTrainedModel, settings: TrainingSettings) -> PeftModel:
    """Freeze ``network`` and add trainable low-rank matrices to it, in place.

    Each adapted weight becomes ``W + (lora_alpha / lora_rank) * B A`` with B zero at
    the start, so the network computes what it did before. PEFT knows which weights
    to adapt (query and value projections for BERT).

    Returns:
        The handle that :func:`merge_adapters` needs; train ``network`` itself.

    Source: Hu et al., LoRA (2022), section 4.1.
    """
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=UNKNOWN_TO_PEFT.get(network.config.model_type),
    )
    return get_peft_model(network, config)


def merge_adapters(adapted: PeftModel, out: Path) -> None:
    """Write the adapter under ``out``, then add it into the network's own weights, in place."""
    # "auto" would ask the Hub whether the vocabulary grew; it never does here.
    adapted.save_pretrained(str(out / ADAPTER_FOLDER), save_embedding_layers=False)
    adapted.merge_and_unload()  # pyright: ignore[reportCallIssue] -- forwarded by PEFT
