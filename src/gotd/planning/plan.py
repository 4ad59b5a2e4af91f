"""Say what a sweep would run, what is done, and what the rest will cost.

Nothing runs and nothing is fetched. An estimate rests on the best of three things: on
earlier artifacts of the same kind in this store, else on committed records of the same
scale, else on `CostModel` alone; each line of the plan says which.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from gotd.config.build import build
from gotd.config.discovery import conf_folder
from gotd.pipeline.experiment import Cell, plan_cell
from gotd.planning.cost_model import CostModel
from gotd.planning.estimates import (
    Estimate,
    Need,
    Past,
    from_model,
    from_past,
    from_records,
    likeness,
)
from gotd.runs.expand import expand, part_held
from gotd.storage.artifacts import Step

KINDS = (
    "task",
    "candidates",
    "target",
    "base_model",
    "encoder",
    "embeddings",
    "screened",
    "ranking",
    "selection",
    "pre_fine_tuned",
    "predictions",
    "answers",
    "toxicity_rows",
    "scorer",
    "pool_scores",
    "generations",
    "scores",
    "perplexity",
)
"""Kinds of steps in the order they are built; others, the record among them, follow."""


@dataclass(frozen=True)
class UnreachedSource:
    """Stand in for a source that cannot say what its rows are: known by its fields alone.

    Its keys are not the real ones, so it is good for counting and for nothing else.
    """

    name: str
    fields: dict[str, Any]

    @property
    def under_covered(self) -> list[str]:
        """Nothing is known about the rows: empty."""
        return []

    def identity(self) -> dict[str, Any]:
        """Give the fields of the configuration."""
        return {"name": self.name, **self.fields}


def lay_out(overrides: Sequence[str]) -> tuple[list[Cell], str | None, list[str]]:
    """Lay out every cell that a command line means, with or without its source.

    Returns:
        The cells; what is missing, ``None`` if the source answered; the tasks that it does
        not hold.

    Raises:
        ValueError: If an override does not compose or a value is refused.
    """
    configs = expand(overrides)
    try:
        held, skipped = part_held(configs)
        return [plan_cell(config, name) for config, name in held], None, skipped
    except FileNotFoundError as error:  # SourceUnavailable is one
        missing = str(error)
        if build(configs[0][0].source).name == "folder":
            names = dict.fromkeys(c.task.get("rated", c.task.name) for c, _ in configs)
            missing += f"; this sweep reads candidates/ and the tasks {', '.join(names)}"
    return [plan_cell(_without_source(config), name) for config, name in configs], missing, []


def _without_source(config: DictConfig) -> DictConfig:
    source = build(config.source)
    fields = {k: v for k, v in dataclasses.asdict(source).items() if k != "path"}
    stand_in = {
        "_target_": f"{__name__}.{UnreachedSource.__name__}",
        "name": source.name,
        "fields": json.loads(json.dumps(fields)),
    }
    with open_dict(config):
        config.source = OmegaConf.create(stand_in)
    return config


@dataclass(frozen=True)
class Line:
    """Steps of one kind: how many there are, and what those to build will cost."""

    kind: str
    to_build: int
    kept: int
    """Those that are there already and will be read."""
    seconds: float
    memory_gib: float
    disk_gib: float
    bases: Mapping[str, int]
    """How many of the estimates rest on what."""


def plan_steps(
    cells: Sequence[Cell],
    past: Sequence[Past],
    records: Sequence[Mapping[str, Any]],
    model: CostModel,
) -> list[Line]:
    """Count the steps that unfinished cells need, each key once, and estimate them.

    Args:
        cells: The cells of a sweep.
        past: What the store's artifacts took.
        records: Committed records.
        model: Counts the work.

    Returns:
        One line per kind, in the order they are built.
    """
    needs, kept = _needs([cell for cell in cells if not cell.is_done], model)
    # Parameters of an older version may have other names, so those artifacts tell nothing.
    versions = {(s.kind, s.version) for cell in cells for s in cell.record.ancestors()}
    alike: dict[tuple[Any, ...], list[Past]] = defaultdict(list)
    for earlier in past:
        if versions.issuperset((s.kind, s.version) for s in earlier.step.ancestors()):
            alike[likeness(earlier.step, model)].append(earlier)
    estimates: dict[str, list[Estimate]] = defaultdict(list)
    for need in needs:
        estimates[need.step.kind].append(
            from_past(need.step, alike[likeness(need.step, model)], model)
            or from_records(need, records, model)
            or from_model(need.step, model)
        )
    places = {kind: place for place, kind in enumerate(KINDS)}
    return [
        _line(kind, estimates[kind], kept[kind])
        for kind in sorted({*estimates, *kept}, key=lambda k: (places.get(k, len(places)), k))
    ]


def _needs(cells: Sequence[Cell], model: CostModel) -> tuple[list[Need], Counter[str]]:
    """List the steps that cells lack, each key once, and count those they have by kind.

    What a finished step rests on is not looked at: the store does not build it again.
    """
    needs: dict[str, Need] = {}
    kept: dict[str, str] = {}
    for cell in cells:
        ancestors = cell.record.ancestors()
        waiting = [cell.record]
        while waiting:
            step = waiting.pop()
            if step.key in needs or step.key in kept:
                continue
            if cell.store.is_done(step):
                kept[step.key] = step.kind
                continue
            share = _share(step, ancestors, model)
            scale = cell.record.parameters["scale"]
            needs[step.key] = Need(step, cell.axes, scale, share)
            waiting += step.inputs.values()
    return list(needs.values()), Counter(kept.values())


def _share(step: Step, ancestors: Sequence[Step], model: CostModel) -> float:
    """Give a step's share of the work of its kind in a cell."""
    kin = [model.work(other) for other in ancestors if other.kind == step.kind]
    own = model.work(step)
    total = sum(model.seconds(work) for work in kin if work is not None)
    return 1.0 if own is None else model.seconds(own) / total


def _line(kind: str, estimates: Sequence[Estimate], kept: int) -> Line:
    return Line(
        kind=kind,
        to_build=len(estimates),
        kept=kept,
        seconds=sum(e.seconds for e in estimates),
        memory_gib=max((e.memory_gib for e in estimates), default=0.0),
        disk_gib=sum(e.disk_gib for e in estimates),
        bases=Counter(e.basis for e in estimates),
    )


def state(cell: Cell) -> str:
    """Give ``done``, ``failed`` (and tried again by the next run) or ``pending``."""
    if cell.is_done:
        return "done"
    return "failed" if cell.failure_path.exists() else "pending"


def read_records() -> list[dict[str, Any]]:
    """Read the committed records; none where gotd was installed without a checkout."""
    from gotd.reporting.records import read_jsonl

    files = sorted((conf_folder().parent / "results" / "records").glob("*.jsonl"))
    return [record for file in files for record in read_jsonl(file)]
