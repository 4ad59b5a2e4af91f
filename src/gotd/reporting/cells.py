"""Lay records out as blocks of arms, tasks and seeds, with every gap visible.

A block holds what belongs in one table: everything but task, arm and seed is the same in
it. Scores come out as arrays with NaN where a cell failed or never ran, so that nothing can
be averaged over a silently smaller set.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotd.reporting.records import Record, RecordError, canonical_order, natural_order
from gotd.reporting.statistics import Floats, Interval, t_interval
from gotd.selectors.registry import order_key

# The paper's tasks in its column order (Tables 4 and 2), by the start of an experiment's name.
SUITES = {
    "glue": ("cola", "mnli", "mrpc", "qqp", "rte", "sst2", "stsb", "qnli"),
    "domain": (
        *("rct", "chemprot", "acl_arc", "scierc"),
        *("hyperpartisan", "agnews", "helpfulness", "imdb"),
    ),
}
TASK_ORDER = (*SUITES["glue"], *SUITES["domain"])  # other tasks follow by name
VARIANT = "variant"  # overrides that are no axis of their own
WORLD_SOURCES = ("microworld",)  # sources in which a seed draws a new world

_UNBOUNDED = ("perplexity", "loss")
_LOWER_IS_BETTER = (*_UNBOUNDED, "toxicity", "error")


def lower_is_better(metric: str) -> bool:
    """Say whether a smaller value of the metric is the better one."""
    return any(word in metric for word in _LOWER_IS_BETTER)


def display_factor(metric: str) -> float:
    """Return 100 for accuracies and the like; 1 for toxicity, perplexities and losses."""
    return 1.0 if any(word in metric for word in _LOWER_IS_BETTER) else 100.0


def order_arms(arms: Iterable[str]) -> tuple[str, ...]:
    """Sort arms in the order that their files state, those without one by name."""
    return tuple(sorted(set(arms), key=order_key))


def order_tasks(tasks: Iterable[str]) -> tuple[str, ...]:
    """Sort tasks in the paper's column order, others after them by name."""

    def place(task: str) -> tuple[int, str]:
        return (TASK_ORDER.index(task) if task in TASK_ORDER else len(TASK_ORDER), task)

    return tuple(sorted(set(tasks), key=place))


@dataclass(frozen=True)
class Block:
    """Records that share everything but task, arm and seed.

    Args:
        experiment: Name of the experiment.
        scale: Name of the scale.
        axes: The shared axes, absent ones left out.
        cells: The record of each ``(task, row, seed)`` that ran, done or failed. A row is an
            arm, or an arm with the overrides that set it apart from its plain self.
        names: Arm and variant of each row.
    """

    experiment: str
    scale: str
    axes: dict[str, Any]
    cells: dict[tuple[str, str, int], Record]
    names: dict[str, tuple[str, str]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in table order."""
        return order_tasks(task for task, _, _ in self.cells)

    @property
    def arms(self) -> tuple[str, ...]:
        """Rows in table order: arms, each followed by its variants."""
        place = {arm: i for i, arm in enumerate(order_arms(a for a, _ in self.names.values()))}
        return tuple(
            sorted(
                self.names, key=lambda r: (place[self.names[r][0]], _by_number(self.names[r][1]))
            )
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that any arm ran with: what a complete row has."""
        return tuple(sorted({seed for _, _, seed in self.cells}))

    @property
    def seed_is_world(self) -> bool:
        """Whether a seed here draws a new generated world."""
        return self.axes.get("source") in WORLD_SOURCES

    @property
    def label(self) -> str:
        """The shared axes in words."""
        named = [f"{name} {value}" for name, value in self.axes.items()]
        return ", ".join([f"scale {self.scale}", *named])

    def of(self, arm: str, task: str | None = None) -> list[Record]:
        """Return the done records of an arm, of one task or all, in table order."""
        return [
            self.cells[key]
            for key in sorted(self.cells)
            if key[1] == arm and task in (None, key[0]) and self.cells[key]["status"] == "done"
        ]

    def failed(self) -> list[Record]:
        """Return the failed records in table order."""
        cells = (self.cells[key] for key in sorted(self.cells))
        return [record for record in cells if record["status"] == "failed"]

    def absent(self) -> dict[str, bool]:
        """Return the suite's tasks that no cell here has, and whether the source holds each."""
        suite = next((t for name, t in SUITES.items() if self.experiment.startswith(name)), ())
        held = [
            record["data"]["tasks"] for record in self.cells.values() if "tasks" in record["data"]
        ]
        return {
            task: not held or any(task in tasks for tasks in held)
            for task in suite
            if task not in self.tasks
        }

    def scores(self, arm: str, metric: str = "headline") -> Floats:
        """Return ``[n_task, n_seed]`` scores of an arm, NaN where there is none."""
        scores = np.full((len(self.tasks), len(self.seeds)), np.nan)
        for i, task in enumerate(self.tasks):
            for j, seed in enumerate(self.seeds):
                record = self.cells.get((task, arm, seed))
                value = None if record is None else record["metrics"].get(metric)
                if value is not None:
                    scores[i, j] = value
        return scores

    def metric_name(self, task: str) -> str:
        """Return what the headline of a task measures; empty when no cell is done.

        Raises:
            RecordError: If cells of one task report different metrics.
        """
        names = {
            record["metrics"]["headline_name"]
            for (of, _, _), record in self.cells.items()
            if of == task and record["status"] == "done"
        }
        if len(names) > 1:
            raise RecordError(
                f"experiment {self.experiment}: task {task} reports different headlines "
                f"({', '.join(sorted(names))}) in one table; run its cells again with one metric"
            )
        return names.pop() if names else ""

    @property
    def metric(self) -> str:
        """Headline of the first task that has one: the unit of an average over tasks."""
        return next(filter(None, map(self.metric_name, self.tasks)), "")

    @property
    def has_average(self) -> bool:
        """Whether an average over several tasks says something."""
        return self.comparable and len(self.tasks) > 1

    @property
    def comparable(self) -> bool:
        """Whether the tasks' scores have one unit and direction, so may be averaged."""
        kinds = {
            (lower_is_better(name), display_factor(name))
            for name in map(self.metric_name, self.tasks)
            if name
        }
        return len(kinds) == 1


def _by_number(variant: str) -> list[tuple[int, str]]:
    """Sort ``limits.labels=500`` before ``limits.labels=1000``."""
    parts = re.split(r"(\d+)", variant)
    return [(int(part) if part.isdigit() else 0, part) for part in parts]


def task_interval(block: Block, arm: str, task: str, metric: str = "headline") -> Interval:
    """Return mean and t-interval over seeds of one arm on one task."""
    return t_interval(block.scores(arm, metric)[block.tasks.index(task)])


def average_interval(block: Block, arm: str) -> Interval:
    """Return the average over all tasks with a t-interval over complete seeds.

    A seed that lacks any task is NaN after the mean over tasks and so left out.
    """
    return t_interval(block.scores(arm).mean(axis=0))


def blocks(records: Sequence[Record]) -> list[Block]:
    """Group records into blocks, in a fixed order.

    An axis that is null does not concern a record (a random choice has no embedder), so
    the record stands in every block that agrees on its other axes. The arm ``none`` selects
    nothing, therefore its budget counts as null.

    Raises:
        RecordError: If two records with different keys claim the same axes.
    """
    _refuse_conflicts(records)
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=canonical_order):
        groups[record["experiment"], record["scale"]].append(record)
    found = []
    for (experiment, scale), members in groups.items():
        shown: set[str] = set()
        # Rich axes first: a poorer set of axes needs its own block only if it is left over.
        for axes in sorted(_distinct(map(_shared_axes, members)), key=lambda a: -len(a)):
            if all(m["key"] in shown for m in members if _shared_axes(m) == axes):
                continue
            block = _block(experiment, scale, axes, members)
            shown |= {record["key"] for record in block.cells.values()}
            found.append(block)
    names = list(dict.fromkeys(name for block in found for name in block.axes))
    return sorted(
        found,
        key=lambda b: (b.experiment, b.scale, [natural_order(b.axes.get(n)) for n in names]),
    )


def _distinct(shared: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for axes in shared:
        if axes not in found:
            found.append(axes)
    return found


def _shared_axes(record: Record) -> dict[str, Any]:
    axes = record["axes"]
    free = {"task", "arm", "seed", VARIANT} | ({"budget"} if axes["arm"] == "none" else set())
    return {n: v for n, v in axes.items() if n not in free and v is not None}


def _fits(part: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    return all(name in whole and whole[name] == value for name, value in part.items())


def _block(experiment: str, scale: str, axes: dict[str, Any], members: Sequence[Record]) -> Block:
    """Fill a block; of each row only the records closest to its axes stand.

    Closeness is decided for a row as a whole: were it decided cell by cell, a setting that
    ran with fewer seeds would be filled up silently with cells of another.
    """
    fitting = [record for record in members if _fits(_shared_axes(record), axes)]
    variants = {record["axes"].get(VARIANT) or "" for record in fitting}
    common = variants.pop() if len(variants) == 1 else ""
    closest: dict[str, tuple[tuple[int, ...], list[Record]]] = {}
    names: dict[str, tuple[str, str]] = {}
    for record in fitting:
        arm, variant = record["axes"]["arm"], record["axes"].get(VARIANT) or ""
        row = arm if variant in ("", common) else f"{arm}, {variant}"
        names[row] = (arm, variant if row != arm else "")
        own = record["axes"]
        # The second entry settles ties between budgets of the arm without one.
        budget = own.get("budget")
        close = (
            sum(own.get(name) == value for name, value in axes.items()),
            -budget if isinstance(budget, int) else 0,
        )
        if row not in closest or close > closest[row][0]:
            closest[row] = (close, [record])
        elif close == closest[row][0]:
            closest[row][1].append(record)
    cells = {
        (record["axes"]["task"], row, record["axes"]["seed"]): record
        for row, (_, chosen) in closest.items()
        for record in chosen
    }
    if common:
        axes = {**axes, VARIANT: common}
    return Block(experiment, scale, axes, cells, names)


def _refuse_conflicts(records: Sequence[Record]) -> None:
    seen: dict[tuple[Any, ...], Record] = {}
    for record in sorted(records, key=canonical_order):
        place = canonical_order(record)[:-1]
        first = seen.setdefault(place, record)
        if first["key"] != record["key"]:
            axes = ", ".join(f"{k} {v}" for k, v in record["axes"].items())
            raise RecordError(
                f"experiment {record['experiment']}: records {first['key']} and {record['key']} "
                f"claim the same cell ({axes}) but {_difference(first, record)}; "
                "remove the outdated one from the records file or make the setting an axis"
            )


def _difference(first: Record, second: Record) -> str:
    names = sorted(set(first["config"]) | set(second["config"]))
    differing = [n for n in names if first["config"].get(n) != second["config"].get(n)]
    if not differing:
        return "their configs are equal (so code, data or parents differ)"
    return f"their configs differ in {', '.join(differing[:5])}"
