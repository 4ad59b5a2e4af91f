"""Labelled tasks, and their rows in one form for every source.

The normalised form is what training and evaluation read: ``id`` (``cola/train/123``),
``text``, ``text_pair`` (null for single texts), ``label`` (class index or score, float64)
and ``domain`` (null where the truth is not known).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.config.schemas import TaskLimits
from gotd.data.base import Source
from gotd.data.columns import origin, strings
from gotd.data.sampling import at_most, subsample
from gotd.data.sizes import expected_rows
from gotd.data.tasks.labels import Mapped, find_mapping, map_labels
from gotd.storage.checks import check_choice
from gotd.storage.keys import added_later, identity, key_fields, source_identity
from gotd.storage.printing import listed


@dataclass(frozen=True)
class LabelledTask:
    """A classification or regression task on one text or a pair.

    Args:
        name: Name by which the source knows it.
        text_columns: One or two columns of the raw rows that hold the texts.
        label_kind: ``class`` (label is an index) or ``regression`` (label is a score).
        classes: Number of classes; 1 for regression.
        metrics: Names from `gotd.evaluation.metrics` to record.
        headline: The one of ``metrics`` that is in the tables.
        reported_splits: Split to evaluate on, by the name it gets in the record; the
            first is the one whose headline counts. GLUE's test labels are not public,
            so these are validation splits, as in the paper's code.
        train_split: Split with the labels to fine-tune on.
        label_range: Lowest and highest score of a regression; ``None`` for classes.
        choice_split: Split to choose the epoch on; ``None`` where the data set has none to
            spare, as in GLUE, and rows of train are held out instead.
    """

    key_name: ClassVar[str] = "Task"
    rows_kind: ClassVar[str] = "task"

    name: str
    text_columns: tuple[str, ...]
    label_kind: Literal["class", "regression"]
    classes: int
    metrics: tuple[str, ...]
    headline: str
    reported_splits: dict[str, str]
    train_split: str = "train"
    label_range: tuple[float, float] | None = None
    choice_split: str | None = added_later(None)

    def __post_init__(self) -> None:
        # Hydra passes lists; frozen values must not change behind a key.
        object.__setattr__(self, "text_columns", tuple(self.text_columns))
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "reported_splits", dict(self.reported_splits))
        if self.label_range is not None:
            low, high = self.label_range
            object.__setattr__(self, "label_range", (float(low), float(high)))
        if len(self.text_columns) not in (1, 2):
            raise ValueError(f"task {self.name}: text_columns must name 1 or 2 columns")
        check_choice(self, "label_kind", ("class", "regression"), f"task {self.name}: ")
        if self.headline not in self.metrics:
            raise ValueError(f"task {self.name}: headline {self.headline!r} is not in metrics")
        if not self.reported_splits:
            raise ValueError(f"task {self.name}: reported_splits is empty; name one split")
        if self.choice_split in (self.train_split, *self.reported_splits.values()):
            raise ValueError(
                f"task {self.name}: choice_split {self.choice_split!r} is trained on or reported; "
                "name a split of its own, or null to hold rows out of train"
            )
        if self.label_kind == "regression":
            if self.classes != 1 or self.label_range is None:
                raise ValueError(f"task {self.name}: regression needs classes: 1 and a label_range")
        elif self.classes < 2 or self.label_range is not None:
            raise ValueError(f"task {self.name}: classes must be 2 or more, without label_range")

    @property
    def labels(self) -> tuple[float, float]:
        """Return the lowest and the highest label that a row may have."""
        return (0.0, self.classes - 1.0) if self.label_range is None else self.label_range

    @property
    def table_names(self) -> tuple[str, ...]:
        """Return the names of the tables that `tables` always returns."""
        return ("train", *(f"reported-{name}" for name in self.reported_splits))

    def tables(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, pa.Table]:
        """Return the labelled rows, the rows to choose a model on, and the reported splits.

        Under ``clean`` the epoch is chosen on a split that the task has for that, else on
        rows held out of train. Under ``published`` nothing is held out.

        Raises:
            FileNotFoundError: If the source lacks a split.
            ValueError: As `load` and `hold_out`.
        """
        published, mapped = protocol == "published", self.label_mapping(source)
        train = load(source, self, self.train_split, mapped)
        reported = {
            f"reported-{name}": at_most(
                load(source, self, split, mapped), limits.reported_rows, "reported"
            )
            for name, split in self.reported_splits.items()
        }
        others = dict(reported)
        if published and self.choice_split is not None:
            # Deviation D19: it chooses the epoch of a domain task on the rows it reports.
            others["validation"] = next(iter(reported.values()))
        elif self.choice_split is not None:
            rows = load(source, self, self.choice_split, mapped)
            others["validation"] = at_most(rows, limits.validation_rows, "choice")
        elif not published:
            # Deviation D9: the published code holds nothing out and takes the last epoch.
            train, others["validation"] = hold_out(train, limits.validation_rows or 0, seed)
        if limits.labels is not None:
            how = "first" if published else limits.labels_chosen  # Deviation D6
            train = limit_labels(train, limits.labels, how, seed)
        return {"train": train, **others}

    def label_mapping(self, source: Source) -> Mapped | None:
        """Return the class of each label of the train split; ``None``: they are classes already.

        Raises:
            FileNotFoundError: If the source lacks the split.
            ValueError: As `gotd.data.tasks.labels.find_mapping`.
        """
        if self.label_kind != "class":
            return None
        raw = source.split(self.name, self.train_split)
        if "label" not in raw.column_names:
            return None  # `load` names the columns that there are
        where = origin(raw, f"{source.name} {self.name}/{self.train_split}")
        return find_mapping(raw["label"], self.classes, where)

    def held_out_texts(self, rows: Path) -> pa.Table:
        """Read the texts of the first reported split, pairs joined by a space."""
        split = next(iter(self.reported_splits))
        table = pq.read_table(rows / f"reported-{split}.parquet")
        pairs = pc.fill_null(table["text_pair"], "")
        texts = pc.utf8_trim(pc.binary_join_element_wise(table["text"], pairs, " "), " ")
        return pa.table({"id": table["id"], "text": texts, "part": table["domain"]})

    def count_rows(self, source: Source, limits: TaskLimits, protocol: str) -> tuple[int, int]:
        """Return the expected rows of ``train``, and those that are reported."""
        train = expected_rows(source, f"{self.name}/{self.train_split}")
        if self.choice_split is None and protocol != "published":
            train = max(1, train - (limits.validation_rows or 0))
        reported = self._count_reported(source, limits.reported_rows)
        return min(train, limits.labels or train), reported

    def _count_reported(self, source: Source, most: int | None) -> int:
        splits = self.reported_splits.values()
        return sum(expected_rows(source, f"{self.name}/{split}", most) for split in splits)

    def key_fields(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, Any]:
        """Return what `tables` depends on.

        Raises:
            ValueError: If rows are to be held out of train, but not how many.
        """
        if self.choice_split is None and limits.validation_rows is None:
            raise ValueError(
                f"limits.validation_rows must be a number: task {self.name} has no split of its "
                "own to choose the epoch on, so rows of train are held out"
            )
        return {**self._rows_key(source, limits, protocol), "seed": seed}

    def _rows_key(self, source: Source, limits: TaskLimits, protocol: str) -> dict[str, Any]:
        return {
            "source": source_identity(source, "tasks", self.name),
            "task": identity(self),
            "limits": key_fields(limits),
            "protocol": protocol,
        }


def load(source: Source, task: LabelledTask, split: str, mapped: Mapped | None = None) -> pa.Table:
    """Load a split in the normalised form.

    Ids are ``<task>/<split>/<idx>``. Without an ``idx`` column it is the row number from 0,
    and ids then depend on the file's order.

    Args:
        source: Where the rows come from.
        task: The task.
        split: The split.
        mapped: Class by label, from `LabelledTask.label_mapping`; ``None``: labels are classes.

    Returns:
        Columns ``id``, ``text``, ``text_pair``, ``label`` (float64), ``domain``.

    Raises:
        FileNotFoundError: If the source has no such split.
        ValueError: If a column is missing, a text or label is missing or not what it
            should be, or an ``idx`` occurs twice; names file, row and field.
    """
    raw = source.split(task.name, split)
    where = f"{source.name} {task.name}/{split}"
    texts = [strings(raw, column, where) for column in task.text_columns]
    empty = pa.nulls(raw.num_rows, pa.string())
    return pa.table(
        {
            "id": _ids(raw, task, split, where),
            "text": texts[0],
            "text_pair": texts[1] if len(texts) == 2 else empty,
            "label": _labels(raw, task, where, mapped),
            "domain": raw["domain"].cast(pa.string()) if "domain" in raw.column_names else empty,
        }
    )


def _ids(raw: pa.Table, task: LabelledTask, split: str, where: str) -> pa.Array:
    if "idx" not in raw.column_names:
        return pa.array([f"{task.name}/{split}/{row}" for row in range(raw.num_rows)])
    index = raw["idx"]
    distinct = len(index.unique())
    if index.null_count or distinct < raw.num_rows:
        raise ValueError(
            f"{origin(raw, where)}: 'idx' has {distinct} distinct values and {index.null_count} "
            f"nulls in {raw.num_rows} rows; number the rows or drop the column"
        )
    return pa.array([f"{task.name}/{split}/{value}" for value in index.to_pylist()])


def _labels(
    raw: pa.Table, task: LabelledTask, where: str, mapped: Mapped | None = None
) -> np.ndarray:
    where = origin(raw, where)
    low, high = task.labels
    wanted = f"a {'whole number' if task.label_kind == 'class' else 'score'} {low:g} to {high:g}"
    if "label" not in raw.column_names:
        raise ValueError(
            f"{where} has no column 'label'; it has {listed(raw.column_names, 'label')}: "
            f"give every row {wanted}"
        )
    column = raw["label"]
    kind = column.type
    if mapped is not None:
        return map_labels(column, mapped, where)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"{where}: column 'label' holds {kind}; give every row {wanted}")
    values = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    bad = ~((values >= low) & (values <= high))  # NaN compares false, so it is bad too
    if task.label_kind == "class":
        bad |= values != np.floor(values)
    if bad.any():
        row = int(np.argmax(bad))
        hint = " (a label of -1 marks a split whose labels are hidden)" if values[row] == -1 else ""
        raise ValueError(
            f"{where} row {row + 1}: label {values[row]:g} of task {task.name} is not {wanted} "
            f"({int(bad.sum())} such rows){hint}; repair or drop the row"
        )
    return values


def hold_out(train: pa.Table, rows: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Split labelled rows into those to train on and those to choose a model on.

    The latter are the rows with the smallest hashes of (seed, id). They are not
    stratified: class shares are unbiased and off by sampling noise alone (about
    ``sqrt(p(1-p)/n)``), while under stratification one row's label would decide about
    another row.

    Args:
        train: Normalised rows.
        rows: How many to hold out.
        seed: Seed of this split.

    Returns:
        ``(train, validation)``, each in the order of ``train``.

    Raises:
        ValueError: If either part would be empty.
    """
    if not 0 < rows < train.num_rows:
        raise ValueError(
            f"cannot hold out {rows} of {train.num_rows} rows: train and validation "
            "need at least one row each; ask for fewer (or more) validation rows"
        )
    held = subsample(train, rows, seed, role="validation")
    return train.filter(pa.array(~held)), train.filter(pa.array(held))


def limit_labels(train: pa.Table, n: int, how: str, seed: int) -> pa.Table:
    """Limit the labelled rows.

    Args:
        train: Normalised rows.
        n: Rows to keep; all if there are fewer (the paper's "max 5K labels").
        how: ``random`` by a hash of (seed, id); ``first`` takes the first rows, which is
            not a random sample where the file is sorted.
        seed: Seed of ``random``; a smaller ``n`` keeps a part of the rows of a larger one.

    Returns:
        The rows that are kept, in the order of ``train``.

    Source: GOT-D §3.3 and App. C.6.
    """
    # Deviation D6: the published code keeps the first rows, `select(range(n))`.
    return train.slice(0, n) if how == "first" else at_most(train, n, "labels", seed)
