"""Export the trained model of a cell as a Hugging Face folder with a model card.

The model is the one that was measured: pre-fine-tuned on the selection, or the base model for
the arm without a selection. Nothing is trained here.
The card is a README.md with the metadata that the Hugging Face Hub reads. Facts that are not
known are left out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData
from omegaconf import DictConfig

from gotd.config.build import build
from gotd.pipeline.experiment import Cell, plan_cell
from gotd.pipeline.output import cannot_write
from gotd.pipeline.push import classified
from gotd.reporting.render import escape_markdown
from gotd.runs.expand import expand
from gotd.storage.artifacts import MANIFEST, Step
from gotd.storage.environment import versions
from gotd.storage.files import TEMPORARY, locked, remove_left_over, rename_durably
from gotd.storage.hub_requests import asked
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


def export(overrides: Sequence[str], out: Path, push: str | None = None) -> Path:
    """Export a finished cell's model to a folder with a card, and push it if asked.

    Args:
        overrides: Hydra overrides of one cell.
        out: Folder to write; it must not exist.
        push: Name on the Hub to push to, created as private if it is new; ``None`` does not
            push.

    Returns:
        ``out``.

    Raises:
        ValueError: If the overrides are those of several cells.
        FileNotFoundError: If the cell has no model yet.
        FileExistsError: If ``out`` exists.
        OSError: If it cannot be pushed; ``out`` is kept.
    """
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
            f"gotd run {' '.join(overrides)}"
        )
    stored = cell.store.get(model)
    with _filling(out) as part:
        ignored = shutil.ignore_patterns(MANIFEST, "report.json")
        shutil.copytree(stored, part, ignore=ignored)
        write_cards(part, _facts(config, cell, model), push or out.name)
    if push is not None:
        _push(push, out)
    return out


def _push(name: str, folder: Path) -> None:
    """Upload a folder, private if the name is new."""
    hub, message = HfApi(), "Model and card from gotd"
    create = partial(hub.create_repo, name, private=True, exist_ok=True)
    upload = partial(hub.upload_folder, repo_id=name, folder_path=folder, commit_message=message)
    kept = f"; the model is in {folder}: upload that folder, or delete it and run again"
    with classified(name, kept):
        asked(create, f"the model {name}")
        asked(upload, f"the model {name}")


@contextmanager
def _filling(out: Path) -> Iterator[Path]:
    """Yield the name of a folder that becomes ``out`` when the block succeeds.

    Raises:
        ValueError: If another run writes there.
        FileExistsError: If ``out`` exists.
        OSError: If it cannot be written or the disk is full.
    """
    # Names that nobody else has, since what is there is removed.
    part = out.with_name(f".{out.name}.gotd{TEMPORARY}")
    lock = out.with_name(f".{out.name}.gotd-lock")
    try:
        with locked(lock, wait=False), ExitStack() as stack:
            stack.callback(lock.unlink, missing_ok=True)
            if out.exists():
                raise FileExistsError(f"{out} exists; choose a new folder")
            remove_left_over(out.parent)
            stack.callback(shutil.rmtree, part, ignore_errors=True)
            shutil.rmtree(part, ignore_errors=True)  # of a killed run
            yield part
            rename_durably(part, out)
    except BlockingIOError as error:
        raise ValueError(
            f"another gotd export is writing {out}; wait until it is done, or choose another --out"
        ) from error
    except FileExistsError:
        raise
    except OSError as error:
        raise cannot_write(error, out) from error


def _facts(config: DictConfig, cell: Cell, model: Step) -> CardFacts:
    """Collect the content of the card from the steps and the record."""
    trained = model.kind == "pre_fine_tuned"
    base = model.inputs["base"] if trained else model
    pretrained = base.parameters["spec"]["pretrained"] or {}
    name, arm = config.model.name, config.selector.arm
    settings = {**model.parameters["settings"], "seed": config.seed} if trained else {}
    return CardFacts(
        title=f"{name}, warmed up on what {arm} selected" if trained else f"{name}, not warmed up",
        base=_base(name, base, pretrained),
        base_hub=pretrained.get("hub"),
        base_revision=pretrained.get("revision"),
        selection=_selection(config, cell) if trained else {},
        settings={k: v for k, v in settings.items() if k not in ("class", "version")},
        licences=_licences(build(config.source), bool(pretrained), trained),
        metrics=_metrics(cell),
        measured_on=f"On the task {config.task.name} at the scale {config.scale_name}",
        key=model.key,
        version=versions()["gotd"],
    )


def _base(name: str, base: Step, pretrained: dict[str, Any]) -> str:
    """Return a description of the model that training started from."""
    if "hub" in pretrained:
        at = f" at revision {pretrained['revision']}" if pretrained["revision"] else ""
        return f"`{pretrained['hub']}`{at}"
    if "package" in pretrained:
        return f"MiniLM from the package {pretrained['package']} {pretrained['version']}"
    if "folder" in pretrained:
        return f"a model in a folder called {pretrained['folder']}"
    how = "with random weights; it has no published weights"
    if base.parameters["pretraining"]:
        how = "pre-trained here on the source's own text"
    return f"`{name}` built from its configuration, {how} (artifact `{base.key}`)"


def _selection(config: DictConfig, cell: Cell) -> dict[str, Any]:
    """Return how the training rows were selected, from what, and how many."""
    selection = cell.record.inputs["selection"]
    ranking, candidates = selection.inputs["scored"], selection.inputs["candidates"]
    method = dict(ranking.parameters["method"])
    summary = {
        "arm": config.selector.arm,
        "method": method.pop("class"),
        "target": config.task.name,
        "budget": selection.parameters["budget"],
        "budget unit": selection.parameters.get("budget_unit", "rows"),
        "seed": ranking.parameters["seed"],
        "candidates": f"{candidates.name}, artifact {candidates.key}",
        "selection artifact": selection.key,
        "method's settings": method,
    }
    if cell.store.is_done(selection):
        report = json.loads((cell.store.get(selection) / "report.json").read_text("utf-8"))
        for name in ("rows", "distinct_rows", "domains"):
            if name in report:
                summary[name.replace("_", " ")] = report[name]
    return summary


def _metrics(cell: Cell) -> dict[str, float]:
    """Return the numbers of the record; none if the cell is not done."""
    metrics = (cell.outcome() or {})["metrics"] if cell.is_done else {}
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and name != "headline"
    }


def _licences(source: Any, pretrained: bool, trained: bool) -> list[str]:
    """Return what is known of the licences of the base model and the texts."""
    licences = []
    if pretrained:
        licences.append("Base model: the terms of its publisher apply.")
        if not trained:
            return licences
    if source.name == "hub":
        from gotd.data.hub.corpora import CORPORA

        corpora = [CORPORA[domain] for domain in source.domains]
        return [*licences, *(f"{corpus.dataset}: {corpus.licence}" for corpus in corpora)]
    if source.generated:
        return [*licences, "Texts: generated by gotd, without copyright."]
    return [*licences, "Texts: from local files; their licence is unknown."]


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
    relation = "adapter" if library == "peft" else "finetune"
    return ModelCardData(
        library_name=library,
        pipeline_tag="fill-mask" if masked else "text-generation",
        tags=["gotd", "data-selection"],
        base_model=facts.base_hub,
        base_model_relation=facts.base_hub and relation,
    )


def _cell(value: Any) -> str:
    """Return a value for a table's cell; names of domains are text of others."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return escape_markdown(text)
