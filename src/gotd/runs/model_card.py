"""Write the model card of a trained model: what it came from, what it read, how to load it.

The card is a README.md with the metadata block that the Hugging Face Hub reads. What is
not known stays out of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gotd.reporting.render import escape_markdown
from gotd.training.lora import ADAPTER_FOLDER


@dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Args:
        title: What the model is called.
        base: The model that training started from, in words.
        base_hub: Its name on the Hub; ``None`` for one that was built here.
        base_revision: The Hub commit, where one was pinned.
        selection: Lines of the data section, by name: arm, budget, keys, candidates.
        settings: Training settings by name; empty for a model that was not trained on.
        licences: What is known of the licences of what it read, one line each.
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

    The adapter's settings are told its base where that stands on the Hub, so that PEFT
    finds it by itself.

    Args:
        folder: A Hugging Face model folder.
        facts: What to say.
        name: Under which the folder is loaded: a Hub name, or where it stands.
    """
    architectures = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    masked = any("MaskedLM" in kind for kind in architectures.get("architectures", ()))
    adapter = folder / ADAPTER_FOLDER
    adapted = adapter.is_dir()
    text = model_card(facts, name, masked, adapted)
    (folder / "README.md").write_text(text, encoding="utf-8")
    if not adapted:
        return
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = facts.base_hub
    config["revision"] = facts.base_revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    metadata = _metadata(facts, masked, library="peft")
    lines = [
        *metadata,
        f"# Adapter of {facts.title}",
        "",
        "The low-rank additions alone; the folder above holds the model with them merged in, and "
        "the card that says what they learnt from.",
    ]
    (adapter / "README.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def model_card(facts: CardFacts, name: str, masked: bool, adapted: bool) -> str:
    """Give the text of a card.

    Args:
        facts: What to say.
        name: Under which the model is loaded.
        masked: Whether it is a masked language model; a causal one otherwise.
        adapted: Whether the additions of LoRA lie beside the merged weights.
    """
    lines = [*_metadata(facts, masked, library="transformers"), f"# {facts.title}", ""]
    lines += [f"Started from {facts.base}.", "", "## Data", ""]
    if facts.selection:
        lines += _table("selection", facts.selection)
    else:
        lines.append("Nothing was selected for it: it is the model that every arm starts from.")
    lines += ["", "Licences:", "", *(f"- {line}" for line in facts.licences)]
    if facts.settings:
        lines += ["", "## Training", "", *_table("setting", facts.settings)]
    if facts.metrics:
        rounded = {what: f"{value:.6g}" for what, value in facts.metrics.items()}
        lines += ["", "## Measured", "", f"{facts.measured_on}.", "", *_table("measure", rounded)]
    lines += ["", "## Load", "", *_how_to_load(facts, name, masked, adapted)]
    lines += ["", f"Made by gotd {facts.version}; artifact `{facts.key}`.", ""]
    return "\n".join(lines)


def _metadata(facts: CardFacts, masked: bool, library: str) -> list[str]:
    """Give the block that the Hub reads; JSON is YAML."""
    known: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "fill-mask" if masked else "text-generation",
        "tags": ["gotd", "data-selection"],
    }
    if facts.base_hub is not None:
        known["base_model"] = facts.base_hub
        known["base_model_relation"] = "adapter" if library == "peft" else "finetune"
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in known.items()), "---", ""]


def _table(head: str, rows: Mapping[str, Any]) -> list[str]:
    cells = [f"| {escape_markdown(name)} | {_plain(value)} |" for name, value in rows.items()]
    return [f"| {head} | |", "| --- | --- |", *cells]


def _plain(value: Any) -> str:
    """Write a value for a cell; names of domains are other people's text."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape_markdown(text)


def _how_to_load(facts: CardFacts, name: str, masked: bool, adapted: bool) -> list[str]:
    kind = f"AutoModelFor{'Masked' if masked else 'Causal'}LM"
    lines = [
        "```python",
        f"from transformers import AutoTokenizer, {kind}",
        "",
        f"model = {kind}.from_pretrained({name!r})",
        f"tokenizer = AutoTokenizer.from_pretrained({name!r})",
    ]
    if adapted:
        base = facts.base_hub or "base"
        here = "" if facts.base_hub else " (`gotd export … selector=none --out base` writes it)"
        at = f", revision={facts.base_revision!r}" if facts.base_revision else ""
        lines += [
            "",
            f"# or the adapter on its base{here}",
            "from peft import PeftModel",
            "",
            f"base = {kind}.from_pretrained({base!r}{at})",
            f"model = PeftModel.from_pretrained(base, {name!r}, subfolder={ADAPTER_FOLDER!r})",
        ]
    return [*lines, "```"]
