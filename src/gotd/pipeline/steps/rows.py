"""Step of the rows of a task: what a model is evaluated on, and the target's texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gotd.config.schemas import TaskLimits
from gotd.data.base import Source, Task
from gotd.data.sizes import CHARS_PER_TOKEN, task_tokens
from gotd.storage.artifacts import Step
from gotd.storage.work import Work


def task_rows(source: Source, task: Task, limits: TaskLimits, protocol: str, seed: int) -> Step:
    """Write the tables of a task (`gotd.data.base.Task.tables`), a Parquet file each.

    Raises:
        ValueError: If the limits do not fit the task.
    """

    def build(folder: Path, _: Mapping[str, Path]) -> None:
        for name, table in task.tables(source, limits, protocol, seed).items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")

    def work() -> Work:
        train, evaluated = task.count_rows(source, limits, protocol)
        tokens = task_tokens(source, task.name)
        texts = train + evaluated
        size = 0.5 * texts * tokens * CHARS_PER_TOKEN  # compressed
        return Work(texts, disk_bytes=size, rows=train, evaluated=evaluated, tokens=tokens)

    def parameters() -> Mapping[str, Any]:
        return task.key_fields(source, limits, protocol, seed)

    name = f"{source.name}-{task.name}"
    return Step(task.rows_kind, 1, name, parameters(), build, work=work, again=parameters)
