"""Train low-rank additions instead of the weights themselves (LoRA, by PEFT)."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from gotd.training.models import check_length, recompute_activations
from gotd.training.settings import TrainingSettings

ADAPTER_FOLDER = "adapter"
"""Where the adapter lies inside a model folder whose weights it is merged into."""

WEIGHTS = "adapter_model.safetensors"
"""PEFT's name of the file of an adapter's weights."""

UNKNOWN_TO_PEFT = {"distilbert": ["q_lin", "v_lin"]}
"""Adapted weights of architectures for which PEFT has no default."""


def add_adapters(network: PreTrainedModel, settings: TrainingSettings) -> PeftModel:
    """Freeze ``network`` and add trainable low-rank matrices to it, in place.

    Each adapted weight becomes ``W + (lora_alpha / lora_rank) * B A``. B starts at zero, so
    the outputs do not change at first. PEFT selects the weights to adapt (query and value
    projections for BERT).

    Returns:
        The handle that :func:`merge_adapters` needs; train ``network`` itself.

    Source: Hu et al., LoRA (2022), section 4.1.
    """
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=UNKNOWN_TO_PEFT.get(network.config.model_type),
        # PEFT sets it, too, with a warning.
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in network.modules()),
    )
    with warnings.catch_warnings():
        # PEFT reads a property that transformers has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(network, config)


def prepare_tuning(network: PreTrainedModel, settings: TrainingSettings) -> PeftModel | None:
    """Add the adapters and the recomputation that ``settings`` ask for.

    Returns:
        The adapters' handle, if there are any.

    Raises:
        ValueError: If the rows are longer than the network reads.
    """
    check_length(network, settings.max_length_tokens)
    adapted = add_adapters(network, settings) if settings.tuning == "lora" else None
    if settings.gradient_checkpointing:
        recompute_activations(network)
    return adapted


def merge_adapters(adapted: PeftModel, out: Path) -> None:
    """Write the adapter under ``out``, then add it into the network's own weights, in place."""
    # "auto" would ask the Hub whether the vocabulary grew; it never does here.
    folder = out / ADAPTER_FOLDER
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    _remove_local_details(folder)
    network = adapted.get_base_model()
    assert isinstance(network, PreTrainedModel)
    _add_trained_modules(network, folder)
    adapted.merge_and_unload()  # pyright: ignore[reportCallIssue] -- forwarded by PEFT


def _add_trained_modules(network: PreTrainedModel, folder: Path) -> None:
    """Add to an adapter's folder the modules that were trained beside it, such as a head."""
    names = {
        name.partition(".")[0]
        for name, weight in network.named_parameters()
        if weight.requires_grad and "lora_" not in name
    }
    if not names:
        return
    weights = load_file(folder / WEIGHTS)
    for name in sorted(names):
        for key, weight in network.get_submodule(name).state_dict().items():
            # A copy, since tied weights share their memory.
            weights[f"base_model.model.{name}.{key}"] = weight.detach().cpu().clone()
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"modules_to_save": sorted(names)}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _remove_local_details(folder: Path) -> None:
    """Remove what differs between machines from an adapter's folder: paths, the order of a set.

    PEFT writes the local path of the base into the settings and into a card;
    `gotd.runs.export` writes a card with the name of the base.
    """
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
