"""What a sweep would run, what is done, and what the rest will cost.

Nothing runs and nothing is fetched. Each step states its work; the plan adds it up.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gotd.config.build import build
from gotd.data.base import Part
from gotd.pipeline.experiment import Cell, plan_cell
from gotd.planning.estimates import Estimate, Likeness, Machine, Past, estimate
from gotd.runs.expand import (
    Configured,
    compose_shared,
    composing,
    expand,
    incomplete,
    part_held,
)
from gotd.storage.artifacts import Step


@dataclass(frozen=True)
class UnreachedSource:
    """A source whose rows are not at hand, known by its configuration alone.

    Its keys are not the real ones, so it is good for counting and for nothing else.
    """

    source: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def identity(self) -> dict[str, Any]:
        """Return the fields of the configuration."""
        return {"name": self.source.name, **dataclasses.asdict(self.source), "path": None}

    def candidates(self) -> list[Part]:
        """Return no parts: which files there are is not known."""
        return []

    def tasks(self) -> Sequence[str]:
        """Return a list that holds every task."""
        return _AnyTask()


class _AnyTask(list[str]):
    def __contains__(self, _: object) -> bool:
        return True


def lay_out(
    overrides: Sequence[str], announce: Callable[[str], None] | None = None
) -> tuple[list[Cell], str | None, list[str]]:
    """Plan every cell of a command line, with or without the rows of its source.

    Args:
        overrides: Hydra overrides, with ``experiment=…``.
        announce: Called with what is missing, before the cells are planned.

    Returns:
        The cells; what is missing, ``None`` if the source can be read; the tasks that it does
        not have.

    Raises:
        ValueError: If an override does not compose or a value is invalid.
    """
    configs = expand(overrides)
    try:
        return _lay_out(configs, announce)
    except OmegaConfBaseException as error:
        raise incomplete(error) from error


def _lay_out(
    configs: Sequence[Configured], announce: Callable[[str], None] | None
) -> tuple[list[Cell], str | None, list[str]]:
    try:
        held, skipped = part_held(configs)
        return [plan_cell(config, name) for config, name in held], None, skipped
    except FileNotFoundError as error:  # SourceUnavailable is one
        missing = str(error)
        if build(configs[0][0].source).name == "folder":
            names = dict.fromkeys(c.task.get("rated", c.task.name) for c, _ in configs)
            missing += f"; this sweep reads candidates/ and the tasks {', '.join(names)}"
    if announce is not None:
        announce(missing)
    return [plan_cell(_without_rows(config), name) for config, name in configs], missing, []


def _without_rows(config: DictConfig) -> DictConfig:
    target = f"{__name__}.{UnreachedSource.__name__}"
    with open_dict(config):
        config.source = OmegaConf.create({"_target_": target, "source": config.source})
    return config


@dataclass(frozen=True)
class Concurrency:
    """How the cells of a sweep share a machine.

    Args:
        processes: Cells that run at once.
        threads: Threads of each; ``None``: torch's own number.
    """

    processes: int = 1
    threads: int | None = None


def concurrency(overrides: Sequence[str]) -> Concurrency:
    """Return how the launcher of a command line, which composes, runs its cells here."""
    with composing():
        config = compose_shared(overrides)
    processes = config.hydra.launcher.get("n_jobs", 1)
    if processes < 0:  # -1: one for each core, -2: one less
        processes = max(1, (os.cpu_count() or 1) + 1 + processes)
    return Concurrency(processes, config.threads)


@dataclass(frozen=True)
class Line:
    """Steps of one kind: estimates of those to build, and how many are built and will be read."""

    kind: str
    estimates: Sequence[Estimate]
    built: int


def plan_steps(
    cells: Sequence[Cell], past: Mapping[Likeness, Sequence[Past]], machine: Machine
) -> list[Line]:
    """Count the steps that unfinished cells need, each key once, and estimate them.

    Args:
        cells: The cells of a sweep.
        past: What the store's artifacts took.
        machine: Rates of this machine.

    Returns:
        One line per kind, in the order in which they are built.
    """
    needed: dict[str, Step] = {}
    built: dict[str, str] = {}
    waiting = [(cell.store, cell.record) for cell in cells if not cell.is_done]
    while waiting:
        store, step = waiting.pop()
        if store.is_done(step):  # its inputs are not built again
            built[step.key] = step.kind
        elif step.key not in needed:
            needed[step.key] = step
            waiting += [(store, read) for read in step.inputs.values()]
    estimates: dict[str, list[Estimate]] = defaultdict(list)
    for step in needed.values():
        estimates[step.kind].append(estimate(step, past, machine))
    counts = Counter(built.values())
    depth: dict[str, int] = defaultdict(int)  # so that each kind follows those it reads
    for step in (step for cell in cells for step in cell.record.ancestors()):
        read = (depth[needed.kind] for needed in step.inputs.values())
        depth[step.kind] = max(depth[step.kind], 1 + max(read, default=0))
    kinds = sorted({*estimates, *counts}, key=lambda kind: (depth[kind], kind))
    return [Line(kind, estimates[kind], counts[kind]) for kind in kinds]


def wall_seconds(lines: Sequence[Line], cells: int, processes: int, machine: Machine) -> float:
    """Return how long a sweep takes if so many cells run at once.

    Steps of one kind are divided among the processes; a base model that all cells need is
    built by one of them, while the others wait.

    Args:
        lines: What is to build.
        cells: Cells to run.
        processes: Cells that run at once.
        machine: Rates of this machine.
    """
    seconds = machine.seconds_to_start + cells * machine.seconds_per_cell / processes
    for line in lines:
        if line.estimates:
            rounds = math.ceil(len(line.estimates) / processes)
            seconds += rounds * mean(estimate.seconds for estimate in line.estimates)
    return seconds


def state(cell: Cell) -> str:
    """Return ``done``, ``failed`` (and tried again by the next run) or ``pending``."""
    if cell.is_done:
        return "done"
    return "failed" if cell.failure_path.exists() else "pending"
