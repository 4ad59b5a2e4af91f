"""Estimate what a step will take: from earlier runs, else from records, else by counting.

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

from gotd.planning.cost_model import CostModel
from gotd.storage.artifacts import MANIFEST, Step, Store

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
    """What building one step will cost, and what that rests on."""

    seconds: float
    memory_gib: float
    disk_gib: float
    basis: str


@dataclass(frozen=True)
class Past:
    """A step that was built before, and what it took."""

    step: Step
    seconds: float
    memory_gib: float
    disk_bytes: int


@dataclass(frozen=True)
class Need:
    """A step to build, and one of the cells that need it.

    Args:
        step: The step.
        axes: The cell's axes.
        scale: The cell's scale.
        share: Its share of the work of its kind in that cell (a cell embeds twice).
    """

    step: Step
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
    steps: dict[str, Step | None] = {}

    def step_of(key: str) -> Step | None:
        if key not in steps:
            manifest = by_key.get(key)
            inputs = (
                {role: step_of(k) for role, k in manifest["inputs"].items()} if manifest else {}
            )
            steps[key] = None if manifest is None else _stage(manifest, inputs)
        return steps[key]

    past = []
    for manifest in manifests:
        step, cost = step_of(manifest["key"]), manifest["cost"]
        if step is not None and not cost["resumed"]:
            size = sum(file["bytes"] for file in manifest["files"].values())
            past.append(Past(step, cost["elapsed_s"], cost["peak_memory_gib"], size))
    return past


def _stage(manifest: Mapping[str, Any], inputs: Mapping[str, Step | None]) -> Step | None:
    known = {role: step for role, step in inputs.items() if step is not None}
    if len(known) < len(inputs):
        return None
    kind, version, name = (manifest[field] for field in ("kind", "version", "name"))
    return Step(kind, version, name, manifest["parameters"], _refuse_to_build, known)


def _refuse_to_build(folder: Path, _: Mapping[str, Path]) -> None:
    raise NotImplementedError(f"{folder}: a step read from a manifest cannot be built")


def likeness(step: Step, model: CostModel) -> tuple[Any, ...]:
    """Say what two steps must share for one's time to tell the other's, size apart."""
    what: list[Any] = [step.kind]
    if step.kind == "ranking":
        what.append(step.parameters["method"]["class"])
    if step.kind == "embeddings":  # which weights a network has takes no time; its shape is below
        what += [step.parameters["model"] == "hashed", step.parameters["pooling"]]
    if step.kind in _NETWORK and step.parameters.get("model") != "hashed":
        what.append(model.shape(step))
    if step.kind == "base_model":
        what.append(step.parameters["pretraining"] is None)
    return tuple(what)


def from_past(step: Step, past: Sequence[Past], model: CostModel) -> Estimate | None:
    """Scale what earlier steps of the kind took by how much more work this one is.

    Args:
        step: The step to build.
        past: Earlier steps that are like it (`likeness`).
        model: Counts the work.

    Returns:
        Medians of time and disk and the most memory; ``None`` without earlier steps.
    """
    now = model.work(step)
    if not past or now is None:
        return None
    seconds, memory, disk = [], [], []
    for earlier in past:
        then = model.work(earlier.step)
        assert then is not None  # of the same kind as `step`
        more = model.memory_gib(now) / model.memory_gib(then)
        seconds.append(earlier.seconds * model.seconds(now) / model.seconds(then))
        memory.append(earlier.memory_gib * max(1.0, more))
        disk.append(earlier.disk_bytes * now.disk_bytes / max(1.0, then.disk_bytes))
    return Estimate(median(seconds), max(memory), median(disk) / 2**30, EARLIER)


def from_records(
    need: Need, records: Sequence[Mapping[str, Any]], model: CostModel
) -> Estimate | None:
    """Take the time of a step from records of the same scale.

    Only records of the same model (of the same arm, for a ranking) count; among them
    those that share most other axes. A record tells time and memory, but no disk.

    Returns:
        The median time, scaled by the budget where that decides; ``None`` if no record
        tells.
    """
    kind, work = need.step.kind, model.work(need.step)
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


def from_model(step: Step, model: CostModel) -> Estimate:
    """Estimate a step by arithmetic alone."""
    work = model.work(step)
    if work is None:
        return Estimate(0.0, 0.0, 0.0, UNKNOWN)
    return Estimate(model.seconds(work), model.memory_gib(work), work.disk_bytes / 2**30, MODEL)
