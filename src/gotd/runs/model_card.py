"""Write the model card of a trained model: its base, its data, how to load it.

The card is a README.md with the metadata that the Hugging Face Hub reads. Facts that are not
known are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from gotd.reporting.render import escape_markdown
from gotd.training.lora import ADAPTER_FOLDER

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


@dataclass(frozen=True)
class CardFacts:
    """Contents of a card.

    Args:
        title: Name of the model.
        base: The model that training started from, in words.
        base_hub: Its name on the Hub; ``None`` for one that was built here.
        base_revision: The Hub commit, where one was pinned.
        selection: Lines of the data section, by name: arm, budget, keys, candidates.
        settings: Training settings by name; empty for a model that was not trained.
        licences: What is known of the licences of the data, one line each.
        metrics: Numbers measured of this model, by name.
        measured_on: What they were measured on, in words.
        key: Key of the artifact.
        version: Version of this package.
    """

    title: str
    base: str
    base_hub: str | None
    base_revision: str | None
    selection: Mapping[str, Any]
    settings: Mapping[str, Any]
    licences: Sequence[str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured_on: str = ""
    key: str = ""
    version: str = ""


def write_cards(folder: Path, facts: CardFacts, name: str) -> None:
    """Write the card of a model folder, and that of its adapter where there is one.

    The adapter's settings get the Hub name of its base, so that PEFT can load the base.

    Args:
        folder: A Hugging Face model folder.
        facts: Contents of the card.
        name: Name by which the folder is loaded: a Hub name, or a path.
    """
    architectures = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    masked = any("MaskedLM" in kind for kind in architectures.get("architectures", ()))
    adapter = folder / ADAPTER_FOLDER
    text = model_card(facts, name, masked, adapter.is_dir())
    (folder / "README.md").write_text(text, encoding="utf-8")
    if not adapter.is_dir():
        return
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = facts.base_hub
    config["revision"] = facts.base_revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    text = (
        f"---\n{_metadata(facts, masked, library='peft')}\n---\n\n# Adapter of {facts.title}\n\n"
        "The low-rank additions alone; the folder above contains the model with the additions "
        "merged, and a card that describes the training data.\n"
    )
    (adapter / "README.md").write_text(text, encoding="utf-8")


def model_card(facts: CardFacts, name: str, masked: bool, adapted: bool) -> str:
    """Return the text of a card.

    Args:
        facts: Contents of the card.
        name: Name by which the model is loaded.
        masked: Whether it is a masked language model; a causal one otherwise.
        adapted: Whether the folder also contains the additions of LoRA alone.
    """
    card = ModelCard.from_template(
        _metadata(facts, masked, library="transformers"),
        template_path=str(TEMPLATE),
        facts=facts,
        name=name,
        kind=f"AutoModelFor{'Masked' if masked else 'Causal'}LM",
        adapter=ADAPTER_FOLDER if adapted else None,
        cell=_cell,
    )
    return str(card)


def _metadata(facts: CardFacts, masked: bool, library: str) -> ModelCardData:
    """Return the metadata that the Hub reads."""
    known: dict[str, Any] = {}
    if facts.base_hub is not None:
        known["base_model"] = facts.base_hub
        known["base_model_relation"] = "adapter" if library == "peft" else "finetune"
    return ModelCardData(
        library_name=library,
        pipeline_tag="fill-mask" if masked else "text-generation",
        tags=["gotd", "data-selection"],
        **known,
    )


def _cell(value: Any) -> str:
    """Return a value for a table's cell; names of domains are text of others."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape_markdown(text)
