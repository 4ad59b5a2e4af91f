"""Hand out the trained model of a cell: a Hugging Face folder with a card, pushed on request.

What is exported is the model that was measured: the one pre-fine-tuned on the selection,
or the base for the arm without one. Nothing is trained here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gotd.config.build import build
from gotd.pipeline.experiment import Cell, plan_cell
from gotd.runs.expand import expand
from gotd.storage.artifacts import MANIFEST, Step
from gotd.storage.environment import versions


def export(overrides: Sequence[str], out: Path, push: str | None = None) -> Path:
    """Copy a finished cell's model into a folder, with a card; push it where asked to.

    Args:
        overrides: Hydra overrides that name one cell.
        out: Folder to write; it must not exist.
        push: Name on the Hub to push to, made private if it is new; ``None`` keeps the
            model on this machine.

    Returns:
        ``out``.

    Raises:
        ValueError: If the overrides name several cells.
        FileNotFoundError: If the cell has no model yet.
        FileExistsError: If there is something at ``out``.
    """
    from gotd.runs.model_card import write_cards

    cells = expand(list(overrides))
    if len(cells) != 1:
        raise ValueError(
            f"these overrides name {len(cells)} cells; name one, for instance with "
            "selector=got_d seed=11 (gotd plan lists them)"
        )
    config, variant = cells[0]
    cell = plan_cell(config, variant)
    model = cell.record.inputs["model"]
    if not cell.store.is_done(model):
        raise FileNotFoundError(
            f"{cell.record.name} has no model in {cell.store.root} yet; run it first: "
            f"python experiments/{_experiment(overrides)}.py {' '.join(overrides)}"
        )
    if out.exists():
        raise FileExistsError(f"{out} exists; name a folder that does not")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a killed run
    unneeded = shutil.ignore_patterns(MANIFEST, "report.json")
    try:
        shutil.copytree(cell.store.get(model), part, ignore=unneeded)
        write_cards(part, _facts(config, cell, model), push or out.name)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if push is not None:
        _push(out, push)
    return out


def _experiment(overrides: Sequence[str]) -> str:
    """Name the experiment; its name and scale may be written as one."""
    named = [o.partition("=")[2] for o in overrides if o.startswith("experiment=")]
    return named[-1].partition("/")[0] if named else "glue"


def _push(folder: Path, name: str) -> None:
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(name, private=True, exist_ok=True)
    hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Model and card from gotd")


def _facts(config: DictConfig, cell: Cell, model: Step) -> Any:
    """Gather what the card says from the steps and the record."""
    from gotd.runs.model_card import CardFacts

    trained = model.kind == "pre_fine_tuned"
    base = model.inputs["base"] if trained else model
    pretrained = base.parameters["spec"]["pretrained"] or {}
    settings = model.parameters["settings"] if trained else {}
    name, arm = config.model.name, config.selector.arm
    return CardFacts(
        title=f"{name}, warmed up on what {arm} selected" if trained else f"{name}, not warmed up",
        base=_base(name, base, pretrained),
        base_hub=pretrained.get("hub"),
        base_revision=pretrained.get("revision"),
        selection=_selection(config, cell, model) if trained else {},
        settings={
            **{k: v for k, v in settings.items() if k not in ("class", "version")},
            **({"seed": config.seed} if trained else {}),
        },
        licences=_licences(build(config.source), bool(pretrained), trained),
        metrics=_measured(cell),
        measured_on=f"On the task {config.task.name} at the scale {config.scale_name}",
        key=model.key,
        version=versions()["gotd"],
    )


def _base(name: str, base: Step, pretrained: dict[str, Any]) -> str:
    """Say in words which model training started from."""
    if "hub" in pretrained:
        at = f" at revision {pretrained['revision']}" if pretrained["revision"] else ""
        return f"`{pretrained['hub']}`{at}"
    if "package" in pretrained:
        return f"MiniLM from the package {pretrained['package']} {pretrained['version']}"
    if "folder" in pretrained:
        return f"a model in a folder called {pretrained['folder']}"
    how = (
        "pre-trained here on the source's own text"
        if base.parameters["pretraining"]
        else ("with random weights, and no published ones stand behind its name")
    )
    return f"`{name}` built from its configuration, {how} (artifact `{base.key}`)"


def _selection(config: DictConfig, cell: Cell, model: Step) -> dict[str, Any]:
    """Say what the model read: how it was chosen, from what, and how much."""
    chosen = model.inputs["selection"]
    ranking = chosen.inputs["ranking"]
    method = dict(ranking.parameters["method"])
    facts = {
        "arm": config.selector.arm,
        "method": method.pop("class"),
        "target": config.task.name,
        "budget": chosen.parameters["budget"],
        "seed": ranking.parameters["seed"],
        "candidates": f"{chosen.inputs['candidates'].name}, "
        f"artifact {chosen.inputs['candidates'].key}",
        "selection artifact": chosen.key,
        "method's settings": method,
    }
    if cell.store.is_done(chosen):
        report = json.loads((cell.store.get(chosen) / "report.json").read_text(encoding="utf-8"))
        kept = ("rows", "distinct_rows", "domains")
        facts |= {name.replace("_", " "): report[name] for name in kept if name in report}
    return facts


def _measured(cell: Cell) -> dict[str, float]:
    """Give the record's numbers; none where the cell has not ended."""
    if not cell.is_done:
        return {}
    metrics = (cell.outcome() or {})["metrics"]
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and name != "headline"
    }


def _licences(source: Any, pretrained: bool, trained: bool) -> list[str]:
    """Say what is known of the terms of the base model and of the texts."""
    found = []
    if pretrained:
        found.append("Base model: its publisher's terms apply to what was made of it.")
    if not trained and pretrained:
        return found
    if source.name == "hub":
        from gotd.data.hub.corpora import CORPORA

        named = [CORPORA[domain] for domain in source.domains]
        return [*found, *(f"{corpus.dataset}: {corpus.licence}" for corpus in named)]
    if source.name == "microworld":
        return [*found, "Texts: generated by gotd, nobody's property."]
    return [*found, "Texts: from files on a machine, whose terms are not known here."]
