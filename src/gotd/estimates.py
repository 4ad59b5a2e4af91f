"""Estimate what a stage will take: from earlier runs, else from records, else by counting.

Earlier runs are the manifests of artifacts in the same store; records are those that
are committed. Both are scaled by `CostModel`, which alone decides where there is neither.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from gotd.artifacts import MANIFEST, Stage, Store
from gotd.cost_model import CostModel

EARLIER, RECORDS, MODEL, UNKNOWN = "earlier runs", "records", "cost model", "nothing known"
"""What an estimate rests on, best first."""

_NETWORK = frozenset(
    {
        *("base_model", "encoder", "embeddings", "pre_fine_tuned", "predictions", "answers"),
        *("scorer", "pool_scores", "generations", "scores", "perplexity"),
    }
)


@dataclass(frozen=True)
class Estimate:
    """What building one stage will cost, and what that rests on."""

    seconds: float
    memory_gib: float
    disk_gib: float
    basis: str


@dataclass(frozen=True)
class Past:
    """A stage that was built before, and what it took."""

    stage: Stage
    seconds: float
    memory_gib: float
    disk_bytes: int


@dataclass(frozen=True)
class Need:
    """A stage to build, and one of the cells that need it.

    Args:
        stage: The stage.
        axes: The cell's axes.
        scale: The cell's scale.
        share: Its share of the work of its kind in that cell (a cell embeds twice).
    """

    stage: Stage
    axes: Mapping[str, Any]
    scale: str
    share: float = 1.0


def read_past(store: Store) -> list[Past]:
    """Read what every artifact of a store took.

    Left out are those that were resumed, whose time is that of their last part, and
    those whose inputs are gone, of which one cannot tell how large they were.
    """
    manifests = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(store.root.glob(f"*/*/{MANIFEST}"))
        if not path.parent.name.endswith(".part")
    ]
    # What `gotd select --out` wrote below the store has a manifest of another kind.
    manifests = [manifest for manifest in manifests if "key" in manifest]
    by_key = {manifest["key"]: manifest for manifest in manifests}
    stages: dict[str, Stage | None] = {}

    def stage_of(key: str) -> Stage | None:
        if key not in stages:
            manifest = by_key.get(key)
            inputs = (
                {role: stage_of(k) for role, k in manifest["inputs"].items()} if manifest else {}
            )
            stages[key] = None if manifest is None else _stage(manifest, inputs)
        return stages[key]

    past = []
    for manifest in manifests:
        stage, cost = stage_of(manifest["key"]), manifest["cost"]
        if stage is not None and not cost["resumed"]:
            size = sum(file["bytes"] for file in manifest["files"].values())
            past.append(Past(stage, cost["elapsed_s"], cost["peak_memory_gib"], size))
    return past


def _stage(manifest: Mapping[str, Any], inputs: Mapping[str, Stage | None]) -> Stage | None:
    known = {role: stage for role, stage in inputs.items() if stage is not None}
    if len(known) < len(inputs):
        return None
    kind, version, name = (manifest[field] for field in ("kind", "version", "name"))
    return Stage(kind, version, name, manifest["parameters"], _refuse_to_build, known)


def _refuse_to_build(folder: Path, _: Mapping[str, Path]) -> None:
    raise NotImplementedError(f"{folder}: a stage read from a manifest cannot be built")


def likeness(stage: Stage, model: CostModel) -> tuple[Any, ...]:
    """Say what two stages must share for one's time to tell the other's, size apart."""
    what: list[Any] = [stage.kind]
    if stage.kind == "ranking":
        what.append(stage.parameters["method"]["class"])
    if stage.kind == "embeddings":  # which weights a network has takes no time; its shape is below
        what += [stage.parameters["model"] == "hashed", stage.parameters["pooling"]]
    if stage.kind in _NETWORK and stage.parameters.get("model") != "hashed":
        what.append(model.shape(stage))
    if stage.kind == "base_model":
        what.append(stage.parameters["pretraining"] is None)
    return tuple(what)


def from_past(stage: Stage, past: Sequence[Past], model: CostModel) -> Estimate | None:
    """Scale what earlier stages of the kind took by how much more work this one is.

    Args:
        stage: The stage to build.
        past: Earlier stages that are like it (`likeness`).
        model: Counts the work.

    Returns:
        Medians of time and disk and the most memory; ``None`` without earlier stages.
    """
    now = model.work(stage)
    if not past or now is None:
        return None
    seconds, memory, disk = [], [], []
    for earlier in past:
        then = model.work(earlier.stage)
        assert then is not None  # of the same kind as `stage`
        more = model.memory_gib(now) / model.memory_gib(then)
        seconds.append(earlier.seconds * model.seconds(now) / model.seconds(then))
        memory.append(earlier.memory_gib * max(1.0, more))
        disk.append(earlier.disk_bytes * now.disk_bytes / max(1.0, then.disk_bytes))
    return Estimate(median(seconds), max(memory), median(disk) / 2**30, EARLIER)


def from_records(
    need: Need, records: Sequence[Mapping[str, Any]], model: CostModel
) -> Estimate | None:
    """Take the time of a stage from records of the same scale.

    Only records of the same model (of the same arm, for a ranking) count; among them
    those that share most other axes. A record tells time and memory, but no disk.

    Returns:
        The median time, scaled by the budget where that decides; ``None`` if no record
        tells.
    """
    kind, work = need.stage.kind, model.work(need.stage)
    decides = ("arm",) if kind == "ranking" else ("model",) if kind in _NETWORK else ()
    alike: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        axes, cost = record["axes"], record["cost"]
        same = [axes.get(name) == need.axes[name] for name in decides]
        if record["scale"] == need.scale and kind in cost.get("stages_s", {}) and all(same):
            shared = sum(axes.get(name) == need.axes.get(name) for name in ("task", "arm", "model"))
            alike[shared].append(record)
    if not alike or work is None:
        return None
    best = alike[max(alike)]
    seconds = []
    for record in best:
        wanted, budget = need.axes["budget"], record["axes"].get("budget")
        grows = kind in ("selection", "pre_fine_tuned") and wanted and budget
        more = wanted / budget if grows else 1.0
        seconds.append(record["cost"]["stages_s"][kind] * need.share * more)
    memory = max(record["cost"].get("peak_memory_gib", 0.0) for record in best)
    disk = work.disk_bytes / 2**30
    return Estimate(median(seconds), memory, disk, RECORDS)


def from_model(stage: Stage, model: CostModel) -> Estimate:
    """Estimate a stage by arithmetic alone."""
    work = model.work(stage)
    if work is None:
        return Estimate(0.0, 0.0, 0.0, UNKNOWN)
    return Estimate(model.seconds(work), model.memory_gib(work), work.disk_bytes / 2**30, MODEL)
