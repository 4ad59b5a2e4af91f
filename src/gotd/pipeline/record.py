"""The record of a cell: its metrics, its selection, its seeds, and what it cost.

The record is an artifact like any other: the same bytes whenever it is built again. Its
cost is a file beside it, because no two runs take the same time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from gotd.data.base import Source
from gotd.pipeline.steps.losses import LOSSES
from gotd.storage.artifacts import ArtifactError, Step, Store, write_json
from gotd.storage.environment import code, hardware, peak_memory_gib, versions
from gotd.storage.keys import RUN_ONLY
from gotd.storage.seeds import derive_seeds
from gotd.storage.work import Work

SCHEMA_VERSION = 1
RECORD, COST = "record.json", "cost.json"


def recorded_config(config: DictConfig) -> dict[str, Any]:
    """Return the configuration without the settings that change no number."""
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    settings["source"] = {k: v for k, v in settings["source"].items() if k != "path"}
    settings["selector"] = {k: v for k, v in settings["selector"].items() if k != "about"}
    return _recorded(settings)


def _recorded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _recorded(v) for k, v in value.items() if k not in RUN_ONLY}


def record_step(
    config: DictConfig,
    axes: Mapping[str, Any],
    task: Any,
    source: Source,
    rows: Step,
    evaluation: Any,
    measured: Mapping[str, Step],
    losses: Mapping[str, Step],
    selection: Step | None,
    model: Step,
) -> Step:
    """Return the last step of a cell, which turns what was measured into the record.

    Args:
        config: The cell's composed configuration.
        axes: Axes of the tables.
        task: The task, which states its metrics.
        source: Source of the rows; its identity is recorded.
        rows: The task's rows.
        evaluation: Turns what was measured into numbers.
        measured: The steps that hold what the model did, by role.
        losses: The steps of losses on the target's held-out texts, by metric.
        selection: The selection; ``None`` for the arm without one.
        model: The model that was measured.
    """

    parents = (*measured.values(), *losses.values(), model)

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        results = evaluation.results(inputs, task)
        curves, selected = dict(results.curves), None
        if selection is not None:
            trained = _read_report(inputs["model"])
            curves["pre_fine_tune_loss"] = trained["loss_curve"]
            selected = _selection(inputs["selection"], selection, source.generated)
            # Of all epochs; a report of an older version may lack them.
            selected |= {"trained_tokens": trained.get("tokens"), "updates": trained.get("steps")}
        own = {"cell": config.seed, "base_model": config.model.seed}
        record = {
            "status": "done",
            "metrics": results.metrics | _target_losses(inputs, losses),
            "n_eval": results.n_eval,
            "selection": selected,
            "curves": curves,
            "seeds": derive_seeds(config.seed) | own | {"rows": rows.parameters.get("seed")},
            "data": source.identity() | _label_mapping(task, source) | _models(parents),
            "parents": sorted({step.key for step in parents}),
        }
        # Here, because a sweep plans many cells and a whole configuration takes a while.
        write_json(folder / RECORD, _blank(config, axes) | record)

    name = "-".join(str(axes[part]) for part in ("task", "arm", "model", "budget", "seed"))
    inputs = {**measured, **losses, "model": model}
    if selection is not None:
        inputs["selection"] = selection
    parameters = {"experiment": config.experiment_name, "scale": config.scale_name}
    parameters |= {"axes": dict(axes), "evaluation": evaluation.key_fields()}
    return Step("record", 1, name, parameters, build, inputs, lambda: Work(disk_bytes=15_000))


def _read_report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def _label_mapping(task: Any, source: Source) -> dict[str, Any]:
    """Return the class of each label, where labels are no classes."""
    mapped = task.label_mapping(source) if hasattr(task, "label_mapping") else None
    return {"labels": {str(label): number for label, number in mapped.items()}} if mapped else {}


def _models(steps: Sequence[Step]) -> dict[str, Any]:
    """Return the commits of the models of the Hub that some steps depend on, by name."""
    found = hub_models(steps)
    return {"models": dict(sorted(found, key=str))} if found else {}


def hub_models(steps: Sequence[Step]) -> set[tuple[str, str | None]]:
    """Return name and commit of the models of the Hub that some steps depend on."""
    found: set[tuple[str, str | None]] = set()
    waiting: list[Any] = [step.parameters for last in steps for step in last.ancestors()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if value.keys() == {"hub", "revision"}:  # as of `model_identity`
                found.add((value["hub"], value["revision"]))
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return found


def _target_losses(folders: Mapping[str, Path], losses: Mapping[str, Step]) -> dict[str, Any]:
    """Read the mean losses on the target's held-out texts, by metric and part."""
    if not losses:
        return {}
    from gotd.evaluation.target_loss import mean_losses

    means: dict[str, Any] = {}
    for name in losses:
        means |= mean_losses(pq.read_table(folders[name] / LOSSES), name)
    return means


def _blank(config: DictConfig, axes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a cell of which only the settings are known."""
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": config.experiment_name,
        "scale": config.scale_name,
        "axes": dict(axes),
        "config": recorded_config(config),
        "versions": versions(),
        "status": "failed",
        "metrics": {},
        "n_eval": None,
        "selection": None,
        "curves": {},
        "seeds": {},
        "data": {},
        "parents": [],
        "error": None,
    }


def _selection(folder: Path, selection: Step, generated: bool) -> dict[str, Any]:
    report = _read_report(folder)
    if not generated:
        # A record may be published; the texts of others stay in the selection's own report.
        for row in report["first_rows"]:
            del row["excerpt"]
        for target in (report["targets"] or {}).get("largest", ()):
            del target["text"]
    return {"key": selection.key, **report}


def has_cost(store: Store, step: Step) -> bool:
    """Return whether the cost of a finished cell is written."""
    return (store.folder(step) / COST).exists()


def write_cost(store: Store, step: Step, elapsed_s: float | None) -> bool:
    """Write the cost of this run beside the record, unless it is there.

    Args:
        store: The store of artifacts.
        step: The step of the record.
        elapsed_s: Seconds of this run, without artifacts that existed before; ``None``: not
            known, since it was killed, so those of all steps.

    Returns:
        Whether it was written.
    """
    with store.locked(step):  # a sweep may hold a cell twice, and both may end at once
        path = store.folder(step) / COST
        if path.exists():
            return False
        write_json(path, _cost(store, step, elapsed_s))
    return True


def _cost(store: Store, step: Step, elapsed_s: float | None) -> dict[str, Any]:
    # A user may have deleted artifacts that a finished cell no longer needs.
    built = [ancestor for ancestor in step.ancestors() if store.is_done(ancestor)]
    manifests = [store.manifest(ancestor) for ancestor in built]
    seconds: dict[str, float] = {}
    for manifest in manifests:
        kind = manifest["kind"]
        seconds[kind] = round(seconds.get(kind, 0.0) + manifest["cost"]["elapsed_s"], 3)
    if elapsed_s is None:
        elapsed_s = sum(seconds.values())
    return {
        "started_at": manifests[-1]["cost"]["started_at"],
        "elapsed_s": round(elapsed_s, 3),
        "stages_s": seconds,
        "peak_memory_gib": max(manifest["cost"]["peak_memory_gib"] for manifest in manifests),
        "resumed": any(manifest["cost"]["resumed"] for manifest in manifests),
        "hardware": hardware(),
        "code": code(),
    }


def read_record(store: Store, step: Step) -> dict[str, Any]:
    """Read the record of a finished cell, with its key and its cost.

    A cell that was killed between its record and its cost has an empty ``cost`` until it is run
    again.

    Raises:
        ArtifactError: If the record is not what its manifest says.
    """
    folder = store.get(step)  # finished: this only verifies it
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    cost = folder / COST
    record["key"] = step.key
    try:
        record["cost"] = json.loads(cost.read_text(encoding="utf-8")) if cost.exists() else {}
    except ValueError as error:
        raise ArtifactError(
            f"{cost} is damaged; delete it: the record is valid without it"
        ) from error
    return record


def failed_record(
    config: DictConfig, axes: Mapping[str, Any], step: Step, error: Exception, elapsed_s: float
) -> dict[str, Any]:
    """Return the record of a cell that stopped with an error.

    The error is part of the record, so that a table shows the gap and its reason.
    """
    return {
        **_blank(config, axes),
        "key": step.key,
        "error": {"type": type(error).__name__, "message": str(error)},
        "cost": {
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "elapsed_s": round(elapsed_s, 3),
            "peak_memory_gib": peak_memory_gib(),
            "hardware": hardware(),
            "code": code(),
        },
    }
