"""Steps of the rows of a task: labelled rows and their splits, rated prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gotd.config.schemas import TaskLimits
from gotd.data.tasks.labelled import Task
from gotd.data.tasks.toxicity import ToxicityTask
from gotd.data.tasks.zero_shot import ZeroShotTask
from gotd.pipeline.steps.toxicity import toxicity_rows
from gotd.storage.artifacts import Step
from gotd.storage.keys import deciding, identity, source_identity


def task_rows(source: Any, task: Any, limits: TaskLimits, protocol: str, seed: int) -> Step:
    """Write the rows of a task: what a model is measured on, and the target's texts.

    Whatever the kind of task, ``train.parquet`` (``id``, ``text``, ``text_pair``,
    ``domain``) holds the texts that `target` is made of. The task's class decides the
    rest.

    Raises:
        TypeError: If no rows are known for the task.
    """
    if isinstance(task, ZeroShotTask):
        return _unlabelled_rows(source, task, limits, protocol)
    if isinstance(task, Task):
        return _labelled_rows(source, task, limits, protocol, seed)
    if isinstance(task, ToxicityTask):
        return toxicity_rows(source, task)
    raise TypeError(f"no rows are known for the task {type(task).__name__}")


def _labelled_rows(source: Any, task: Task, limits: TaskLimits, protocol: str, seed: int) -> Step:
    """Write the labelled rows, the held-out rows and the reported splits of a task.

    Under ``clean`` the rows for the model choice are a split that the task has for that,
    else held out of train, and the reported split is looked at once. Under ``published``
    nothing is held out.

    Raises:
        ValueError: If rows are to be held out, but not how many.
    """
    held_out = limits.validation_rows or 0
    if task.choice_split is None and limits.validation_rows is None:
        raise ValueError(
            f"limits.validation_rows must be a number: task {task.name} has no split of its own "
            "to choose the epoch on, so rows of train are held out"
        )

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        from gotd.data.tasks.labelled import at_most, hold_out, limit_labels, load

        train = load(source, task, task.train_split)
        reported = {
            name: at_most(load(source, task, split), limits.reported_rows, "reported")
            for name, split in task.reported_splits.items()
        }
        validation = None
        # Deviation D9: the published code holds nothing out and takes the last epoch.
        if task.choice_split is None and protocol == "clean":
            train, validation = hold_out(train, held_out, seed)
        elif task.choice_split is not None and protocol == "clean":
            rows = load(source, task, task.choice_split)
            validation = at_most(rows, limits.validation_rows, "choice")
        elif task.choice_split is not None:
            # Deviation D19: it chooses the epoch of a domain task on the rows it reports.
            validation = next(iter(reported.values()))
        if limits.labels is not None and limits.labels < train.num_rows:
            how = "first" if protocol == "published" else limits.labels_chosen  # Deviation D6
            train = limit_labels(train, limits.labels, how, seed)  # type: ignore[arg-type]
        pq.write_table(train, folder / "train.parquet")
        if validation is not None:
            pq.write_table(validation, folder / "validation.parquet")
        for name, table in reported.items():
            pq.write_table(table, folder / f"reported-{name}.parquet")

    return Step(
        kind="task",
        version=1,
        name=f"{source.name}-{task.name}",
        parameters={
            "source": source_identity(source, "tasks", task.name),
            "task": identity(task),
            "limits": deciding(limits),
            "protocol": protocol,
            "seed": seed,
        },
        build=build,
    )


def _unlabelled_rows(source: Any, task: ZeroShotTask, limits: TaskLimits, protocol: str) -> Step:
    """Write the texts to select for and the rows to answer, the same for all seeds."""

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        from gotd.data.tasks.zero_shot import evaluated, selected_for

        pq.write_table(selected_for(source, task, limits.target_rows), folder / "train.parquet")
        for name, split in task.reported_splits.items():
            pq.write_table(evaluated(source, task, split), folder / f"reported-{name}.parquet")

    return Step(
        kind="task",
        version=1,
        name=f"{source.name}-{task.name}",
        parameters={
            "source": source_identity(source, "tasks", task.name),
            "task": identity(task),
            "limits": deciding(limits),
            "protocol": protocol,
        },
        build=build,
    )
