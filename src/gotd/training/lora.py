"""Train low-rank additions instead of the weights themselves (LoRA, by PEFT)."""

from __future__ import annotations

import json
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
    folder = out / ADAPTER_FOLDER
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    _forget_this_machine(folder)
    adapted.merge_and_unload()  # pyright: ignore[reportCallIssue] -- forwarded by PEFT


def _forget_this_machine(folder: Path) -> None:
    """Take out of an adapter's folder what differs between machines: paths, the order of a set.

    PEFT names the base by where it lay here, in the settings and in a card of its own
    making; `gotd.runs.model_card` writes one that knows which model it was.
    """
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
