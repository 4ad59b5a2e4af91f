"""Records grouped into blocks of arms, tasks and seeds, with every gap visible.

A block is the content of one table: everything but task, arm and seed is the same in it.
Scores are arrays with NaN where a cell failed or never ran, so that nothing is averaged
over a silently smaller set.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gotd.evaluation.metrics import Metric, metric
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
BASE = "base"  # those of them that change the base model
WORLD_SOURCES = (
    "microworld",
    "microworld_instructions",
)  # sources in which a seed draws a new world


def order_arms(arms: Iterable[str]) -> tuple[str, ...]:
    """Sort arms in the order that their files state, those without one by name."""
    return tuple(sorted(set(arms), key=order_key))


def order_tasks(tasks: Iterable[str]) -> tuple[str, ...]:
    """Sort tasks in the paper's column order, others after them by name."""
    ranks = {task: rank for rank, task in enumerate(TASK_ORDER)}
    return tuple(sorted(set(tasks), key=lambda task: (ranks.get(task, len(ranks)), task)))


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

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks in table order."""
        return order_tasks(task for task, _, _ in self.cells)

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """Return the rows in table order: arms, each followed by its variants."""
        order = order_arms(arm for arm, _ in self.names.values())
        ranks = {row: (order.index(a), _by_number(v)) for row, (a, v) in self.names.items()}
        return tuple(sorted(ranks, key=ranks.__getitem__))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Return every seed that any arm ran with: those of a complete row."""
        return tuple(sorted({seed for _, _, seed in self.cells}))

    @property
    def seed_is_world(self) -> bool:
        """Whether a seed here draws a new generated world."""
        return self.axes.get("source") in WORLD_SOURCES

    @property
    def label(self) -> str:
        """Return the shared axes in words."""
        named = [f"{name} {value}" for name, value in self.axes.items()]
        return ", ".join([f"scale {self.scale}", *named])

    def of(self, arm: str, task: str | None = None) -> list[Record]:
        """Return the done records of an arm, of one task or all, in table order."""
        return [
            record
            for (of, row, _), record in sorted(self.cells.items())
            if row == arm and task in (None, of) and record["status"] == "done"
        ]

    def selections(self, arm: str, task: str | None = None) -> list[dict[str, Any]]:
        """Return the selection reports of an arm's done records, in table order."""
        return [s for record in self.of(arm, task) if (s := record["selection"]) is not None]

    def failed(self) -> list[Record]:
        """Return the failed records in table order."""
        return [r for _, r in sorted(self.cells.items()) if r["status"] == "failed"]

    def absent(self) -> dict[str, bool]:
        """Return the suite's tasks that no cell here has, and whether the source holds each."""
        suite = next((t for name, t in SUITES.items() if self.experiment.startswith(name)), ())
        held = [r["data"]["tasks"] for r in self.cells.values() if "tasks" in r["data"]]
        return {
            task: not held or any(task in tasks for tasks in held)
            for task in suite
            if task not in self.tasks
        }

    def scores(self, arm: str, metric: str = "headline") -> Floats:
        """Return ``[n_task, n_seed]`` scores of an arm, NaN where there is none."""
        rows = [[self.cells.get((task, arm, seed)) for seed in self.seeds] for task in self.tasks]
        scores = [[record and record["metrics"].get(metric) for record in row] for row in rows]
        return np.array(scores, dtype=np.float64)  # None becomes NaN

    def metric_of(self, task: str) -> Metric:
        """Return the headline metric of a task; its name is empty when no cell is done.

        A record may state the direction of a metric that is not installed here.

        Raises:
            RecordError: If cells of one task report different metrics.
        """
        metrics = {
            (m["headline_name"], m.get("headline_higher_is_better"))
            for (of, _, _), record in self.cells.items()
            if of == task and record["status"] == "done" and (m := record["metrics"])
        }
        if len(metrics) > 1:
            names = ", ".join(sorted(name for name, _ in metrics))
            raise RecordError(
                f"experiment {self.experiment}: task {task} reports different headlines "
                f"({names}) in one table; run its cells again with one metric"
            )
        name, higher = metrics.pop() if metrics else ("", None)
        return metric(name) if higher is None else replace(metric(name), higher_is_better=higher)

    @property
    def metric(self) -> Metric:
        """Return the headline metric of the first task that has one."""
        metrics = [self.metric_of(task) for task in self.tasks]
        return next((m for m in metrics if m.name), metrics[0])

    @property
    def has_average(self) -> bool:
        """Whether an average over several tasks is meaningful."""
        return self.comparable and len(self.tasks) > 1

    @property
    def comparable(self) -> bool:
        """Whether the tasks' scores have one unit and direction, so may be averaged."""
        metrics = map(self.metric_of, self.tasks)
        return len({m.scale for m in metrics if m.name}) == 1


def _by_number(variant: str) -> list[tuple[int, str]]:
    """Return a sort key that puts ``limits.labels=500`` before ``limits.labels=1000``."""
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
    the record is in every block that agrees on its other axes. The arm ``none`` selects
    nothing, therefore its budget counts as null.

    Raises:
        RecordError: If two records with different keys claim the same axes.
    """
    _validate_axes(records)
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=canonical_order):
        groups[record["experiment"], record["scale"]].append(record)
    result = []
    for (experiment, scale), members in groups.items():
        shown: set[str] = set()
        distinct = {str(axes): axes for axes in map(shared_axes, members)}.values()
        # Rich axes first: a poorer set of axes needs its own block only if it is left over.
        for axes in sorted(distinct, key=len, reverse=True):
            if all(m["key"] in shown for m in members if shared_axes(m) == axes):
                continue
            block = _block(experiment, scale, axes, members)
            shown |= {record["key"] for record in block.cells.values()}
            result.append(block)
    names = list(dict.fromkeys(name for block in result for name in block.axes))
    return sorted(
        result,
        key=lambda b: (b.experiment, b.scale, [natural_order(b.axes.get(n)) for n in names]),
    )


def shared_axes(record: Record) -> dict[str, Any]:
    """Return the axes that set a record's block apart, those that do not concern it left out."""
    axes = record["axes"]
    free = {"task", "arm", "seed", VARIANT} | ({"budget"} if axes["arm"] == "none" else set())
    base, _ = split_variant(record)
    shared = {n: v for n, v in axes.items() if n not in free and v is not None}
    return shared | ({BASE: base} if base else {})


def split_variant(record: Record) -> tuple[str, str]:
    """Return the overrides that change the base model, and the others.

    Arms are only comparable with the same base, so each base has its own block.
    """
    overrides = (record["axes"].get(VARIANT) or "").split(" ")
    of_base = [override for override in overrides if override.startswith("model.")]
    return " ".join(of_base), " ".join(o for o in overrides if o not in of_base)


def _block(experiment: str, scale: str, axes: dict[str, Any], members: Sequence[Record]) -> Block:
    """Build a block; each row has only the records closest to its axes.

    Closeness is decided for a row at once: were it decided cell by cell, the gaps of a setting
    that ran with fewer seeds would be filled silently with cells of another.
    """
    fitting = [
        record
        for record in members
        if shared_axes(record).items() <= axes.items()
        and split_variant(record)[0] == axes.get(BASE, "")
    ]
    variants = {split_variant(record)[1] for record in fitting}
    common = variants.pop() if len(variants) == 1 else ""
    rows: dict[str, dict[tuple[int, int], list[Record]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, tuple[str, str]] = {}
    for record in fitting:
        own = record["axes"]
        arm, variant = own["arm"], split_variant(record)[1]
        row = arm if variant in ("", common) else f"{arm}, {variant}"
        names[row] = (arm, variant if row != arm else "")
        agreeing = sum(own.get(name) == value for name, value in axes.items())
        # The budget settles ties between those of the arm without one.
        rows[row][agreeing, -(own.get("budget") or 0)].append(record)
    cells = {
        (record["axes"]["task"], row, record["axes"]["seed"]): record
        for row, by_closeness in rows.items()
        for record in by_closeness[max(by_closeness)]
    }
    if common:
        axes = {**axes, VARIANT: common}
    return Block(experiment, scale, axes, cells, names)


def _validate_axes(records: Sequence[Record]) -> None:
    """Raise where two records claim one cell."""
    seen: dict[tuple[Any, ...], Record] = {}
    for record in sorted(records, key=canonical_order):
        first = seen.setdefault(canonical_order(record)[:-1], record)
        if first["key"] != record["key"]:
            axes = ", ".join(f"{k} {v}" for k, v in record["axes"].items())
            raise RecordError(
                f"experiment {record['experiment']}: records {first['key']} and {record['key']} "
                f"claim the same cell ({axes}) but {_difference(first, record)}; "
                "remove the outdated one from the records file or make the setting an axis"
            )


def _difference(first: Record, second: Record) -> str:
    one, other = first["config"], second["config"]
    differing = [n for n in sorted({**one, **other}) if one.get(n) != other.get(n)]
    if not differing:
        return "their configs are equal (so code, data or parents differ)"
    return f"their configs differ in {', '.join(differing[:5])}"
