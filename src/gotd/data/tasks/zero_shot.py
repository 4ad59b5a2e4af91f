"""Zero-shot tasks: rows to answer, the prompts for them, texts to select for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.config.schemas import TaskLimits
from gotd.data.base import Source
from gotd.data.columns import origin
from gotd.data.sampling import SPLIT_SEED, at_most, uniform_by_id
from gotd.data.sizes import expected_rows
from gotd.data.tasks.labelled import LabelledTask, load
from gotd.storage.checks import check_at_least


@dataclass(frozen=True)
class ZeroShotTask(LabelledTask):
    """A task that is answered without training.

    No label is ever seen before the answers are scored. A task whose ``train_split`` is
    also reported has no texts of its own to select for: its rows are split, by a hash of
    their passages, into those that are answered and those that are only read. Rows without
    a second text are split by a hash of their ids.

    Args:
        context: What a choice follows (`gotd.evaluation.zero_shot.Prompt`).
        continuation: The rest of the instance.
        choices: Choices by label; empty where each row has its own in ``choices``.
        evaluated_rows: Most rows of a reported split to answer, the same for all seeds
            and arms; ``None``: all.
    """

    key_name: ClassVar[str] = "ZeroShotTask"

    context: str = "{text}"
    continuation: str = " {choice}"
    choices: tuple[str, ...] = ()
    evaluated_rows: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        super().__post_init__()
        if self.label_kind != "class":
            raise ValueError(f"task {self.name}: a choice is a class, not {self.label_kind!r}")
        if self.choices and len(self.choices) != self.classes:
            raise ValueError(
                f"task {self.name}: {len(self.choices)} choices for {self.classes} classes"
            )
        check_at_least(self, 1, "evaluated_rows", prefix=f"task {self.name}: ")

    def tables(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, pa.Table]:
        """Return the texts to select for and the rows to answer, the same for all seeds."""
        reported = {
            f"reported-{name}": evaluated(source, self, split)
            for name, split in self.reported_splits.items()
        }
        return {"train": selected_for(source, self, limits.target_rows), **reported}

    def count_rows(self, source: Source, limits: TaskLimits, protocol: str) -> tuple[int, int]:
        """Return the expected rows to select for, and those to answer."""
        train = expected_rows(source, f"{self.name}/{self.train_split}", limits.target_rows)
        return train, self._count_reported(source, self.evaluated_rows)

    def key_fields(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, Any]:
        """Return what `tables` depends on: not on the seed."""
        # 2: rows of a split that is divided are divided by passage, not by id.
        version = {"version": 2} if self.divides_reported else {}
        return {**self._rows_key(source, limits, protocol), **version}

    @property
    def divides_reported(self) -> bool:
        """Whether the texts to select for are rows of a reported split that are not answered."""
        return self.train_split in self.reported_splits.values()


def evaluated(source: Source, task: ZeroShotTask, split: str) -> pa.Table:
    """Load the rows of a reported split that are answered.

    Returns:
        As `gotd.data.tasks.labelled.load`, and the column ``choices`` where the task has none.

    Raises:
        FileNotFoundError: If the source has no such split.
        ValueError: As `load`, or if a row's choices are missing or its label is none of
            them; names file and row.
    """
    rows = load(source, task, split)
    if not task.choices:
        rows = rows.append_column("choices", _choices(source, task, split, rows))
    if split == task.train_split:
        rows = rows.filter(pc.is_in(_passages(rows), value_set=_answered(task, rows)))
    return at_most(rows, task.evaluated_rows, "evaluated")


def selected_for(source: Source, task: ZeroShotTask, limit: int | None) -> pa.Table:
    """Load the texts to select for, without their labels.

    Args:
        source: Where they come from.
        task: The task.
        limit: Most texts, chosen by a hash of their ids; ``None``: all.

    Returns:
        ``id``, ``text``, ``text_pair`` and ``domain``.

    Raises:
        ValueError: If all rows are answered, so that none is left to select for.
    """
    rows = load(source, task, task.train_split).drop_columns(["label"])
    if task.divides_reported:
        # Deviation D27: the folder's BoolQ is its validation split alone.
        answered = pc.is_in(_passages(rows), value_set=_answered(task, rows))
        rows = rows.filter(pc.invert(answered))
        if rows.num_rows == 0:
            raise ValueError(
                f"task {task.name}: all rows of {task.train_split!r} are answered, so none is left "
                "to select for; lower task.evaluated_rows"
            )
    return at_most(rows, limit, "target")


def _passages(rows: pa.Table) -> pa.ChunkedArray:
    """Return what must not be on both sides of a divided split: the passage, or the id."""
    return pc.coalesce(rows["text_pair"], rows["id"])


def _answered(task: ZeroShotTask, rows: pa.Table) -> pa.Array:
    """Return the passages whose questions are answered, as many as hold the rows to answer."""
    counts = pc.value_counts(_passages(rows).combine_chunks())
    passages, sizes = counts.field("values"), counts.field("counts").to_numpy()
    order = np.argsort(uniform_by_id(passages, SPLIT_SEED, "evaluated"), kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    limit = rows.num_rows if task.evaluated_rows is None else task.evaluated_rows
    return passages.take(pa.array(order[before < limit]))


def _choices(source: Source, task: ZeroShotTask, split: str, rows: pa.Table) -> pa.ChunkedArray:
    raw = source.split(task.name, split)
    where = origin(raw, f"{source.name} {task.name}/{split}")
    if "choices" not in raw.column_names:
        raise ValueError(f"{where} has no column 'choices' and the task names none; add either")
    given = raw["choices"]
    if not (pa.types.is_list(given.type) and pa.types.is_string(given.type.value_type)):
        raise ValueError(f"{where}: column 'choices' holds {given.type}, not lists of strings")
    for row, (options, label) in enumerate(
        zip(given.to_pylist(), rows["label"].to_pylist(), strict=True), start=1
    ):
        if options is None or not all(options) or label >= len(options):
            raise ValueError(
                f"{where} row {row}: the label {label:g} is none of the choices, or one is empty; "
                "repair or drop the row"
            )
    return given
