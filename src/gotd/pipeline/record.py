"""Seal what a cell brought: its metrics, what was selected for it, and what it cost.

The record proper is an artifact like any other, the same bytes whenever it is made
again. What it cost stands beside it, because no two runs take the same time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gotd.pipeline.steps import RUN_ONLY
from gotd.storage.artifacts import ArtifactError, Step, Store, write_json
from gotd.storage.environment import code, hardware, peak_memory_gib, versions

SCHEMA_VERSION = 1
RECORD, COST = "record.json", "cost.json"
_NOT_RECORDED = ("store", "workers", "threads", "tracker")
_ROLES = ("selection", "pre_fine_tune")


def recorded_config(config: DictConfig) -> dict[str, Any]:
    """Give the configuration without what moves no number: paths, workers, trackers."""
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    kept = {str(name): value for name, value in settings.items() if name not in _NOT_RECORDED}
    kept["source"] = {k: v for k, v in kept["source"].items() if k != "path"}
    return _without_run_only(kept)


def _without_run_only(value: Any) -> Any:
    """Leave out batch sizes and the like, which stand in no key either."""
    if not isinstance(value, dict):
        return value
    return {k: _without_run_only(v) for k, v in value.items() if k not in RUN_ONLY}


def record_step(
    config: DictConfig,
    axes: Mapping[str, Any],
    task: Any,
    source: Any,
    rows: Step,
    evaluation: Any,
    measured: Mapping[str, Step],
    chosen: Step | None,
    model: Step,
) -> Step:
    """Give the last step of a cell: what a model did goes in, the record comes out.

    Args:
        config: The cell's composed configuration.
        axes: What the tables are made by.
        task: The task, which names its metrics.
        source: Where rows came from; its identity is recorded.
        rows: The task's rows; without a seed of their own a hash of their ids chose them.
        evaluation: Turns what was measured into numbers.
        measured: The steps that hold what the model did, by role.
        chosen: The selection; ``None`` for the arm without one.
        model: The model that was measured.
    """
    settings = recorded_config(config)

    def build(folder: Path, inputs: Mapping[str, Path]) -> None:
        results = evaluation.results(inputs, task)
        curves = dict(results.curves)
        if chosen is not None:
            warmed = json.loads((inputs["model"] / "report.json").read_text(encoding="utf-8"))
            curves["pre_fine_tune_loss"] = warmed["loss_curve"]
        record = {
            "schema_version": SCHEMA_VERSION,
            "experiment": config.experiment_name,
            "scale": config.scale_name,
            "status": "done",
            "axes": dict(axes),
            "metrics": results.metrics,
            "n_eval": results.n_eval,
            "selection": None
            if chosen is None
            else _selection(inputs["selection"], chosen, source.name == "microworld"),
            "curves": curves,
            "seeds": {
                **dict.fromkeys((*_ROLES, evaluation.seeded), config.seed),
                "rows": rows.parameters.get("seed", 0),
                "base_model": config.model.seed,
            },
            "config": settings,
            "versions": versions(),
            "data": source.identity(),
            "parents": sorted(step.key for step in (*measured.values(), model)),
            "error": None,
        }
        write_json(folder / RECORD, record)

    inputs = {**measured, "model": model}
    if chosen is not None:
        inputs["selection"] = chosen
    return Step(
        kind="record",
        version=1,
        name="-".join(str(axes[name]) for name in ("task", "arm", "model", "budget", "seed")),
        parameters={
            "experiment": config.experiment_name,
            "scale": config.scale_name,
            "axes": dict(axes),
            "evaluation": evaluation.key_fields(),
        },
        build=build,
        inputs=inputs,
    )


def _selection(folder: Path, chosen: Step, generated: bool) -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if not generated:
        # A record may be published; the texts of others stay in the selection's own report.
        for row in report["first_rows"]:
            del row["excerpt"]
    return {"key": chosen.key, **report}


def seal(store: Store, step: Step, elapsed_s: float) -> bool:
    """Write beside a record what this run of its cell cost, unless that stands there.

    Args:
        store: Where the record stands.
        step: The record's step.
        elapsed_s: Seconds this run spent on the cell, earlier artifacts not counted.

    Returns:
        Whether it was written.
    """
    with store.locked(step):  # the same cell may stand twice in a sweep, and end twice at once
        path = store.folder(step) / COST
        if path.exists():
            return False
        write_json(path, _cost(store, step, elapsed_s))
    return True


def _cost(store: Store, step: Step, elapsed_s: float) -> dict[str, Any]:
    # Someone may have made room by deleting what a finished cell no longer needs.
    there = [ancestor for ancestor in step.ancestors() if store.is_done(ancestor)]
    manifests = [store.manifest(ancestor) for ancestor in there]
    seconds: dict[str, float] = {}
    for manifest in manifests:
        kind = manifest["kind"]
        seconds[kind] = round(seconds.get(kind, 0.0) + manifest["cost"]["elapsed_s"], 3)
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
    """Read a finished cell's record, its key and its cost put in.

    A cell that was killed between its record and its cost has an empty ``cost``.

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
        raise ArtifactError(f"{cost} is damaged; delete it, the record stands without") from error
    return record


def failed_record(
    config: DictConfig, axes: Mapping[str, Any], step: Step, error: Exception, elapsed_s: float
) -> dict[str, Any]:
    """Make the record of a cell that stopped with an error.

    The error is part of the record, so that a table shows the hole and its reason.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "key": step.key,
        "experiment": config.experiment_name,
        "scale": config.scale_name,
        "status": "failed",
        "axes": dict(axes),
        "metrics": {},
        "n_eval": None,
        "selection": None,
        "curves": {},
        "seeds": {},
        "config": recorded_config(config),
        "versions": versions(),
        "data": {},
        "parents": [],
        "error": {"type": type(error).__name__, "message": str(error)},
        "cost": {
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "elapsed_s": round(elapsed_s, 3),
            "peak_memory_gib": peak_memory_gib(),
            "hardware": hardware(),
            "code": code(),
        },
    }
