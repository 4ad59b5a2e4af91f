"""A task and a pool from any files that their owner names, read as ``gotd select`` reads them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import FilteredPart, Part, read_all
from gotd.data.columns import Columns
from gotd.data.cutting import visible_ends
from gotd.data.hub.stream import HUB_RECORD
from gotd.data.inputs import File, InMemory, named_parts
from gotd.data.left_out.duplicates import normalised
from gotd.data.left_out.overlap import NGRAM_WORDS, WithoutOverlap
from gotd.data.readers import original_rows
from gotd.data.sampling import SPLIT_SEED, uniform_by_id
from gotd.data.sizes import CHARS_PER_TOKEN
from gotd.data.text_alone import read_texts
from gotd.storage.files import resolved
from gotd.storage.keys import key_fields
from gotd.storage.printing import listed

log = logging.getLogger(__name__)

Names = tuple[str, ...]
"""Files, folders, patterns, URLs or data sets on the Hub, as a user gives them."""


@dataclass(frozen=True)
class OwnFiles:
    """Labelled rows or a target, and candidates.

    A labelled task has the splits ``train`` and ``test``. A target without labels is split by a
    hash of the ids into ``target`` and ``held_out``. Candidates that share words with the rows
    of ``test`` or ``held_out`` are left out.

    Args:
        path: Names by role: ``candidates``, and ``train`` and ``test``, or ``target``. They are
            in no record.
        task: Name of the task.
        store: Folder of the artifacts, which holds copies of remote files.
        columns: The columns of the candidates.
        target_columns: The columns of the other rows.
        label: Column of the labels.
        held_out_share: Share of the target's rows that are only evaluated.
        pretraining_share: Share of the candidates that only pre-train a base model.
        keep_overlap: Keep candidates that share words with the evaluated rows.
        pool_rows: Candidates that there are, once they are counted; in no key.
        row_tokens: Their mean length in tokens, once it is known; in no key.
    """

    path: Mapping[str, Names]
    task: str
    store: str
    columns: Columns = field(default_factory=Columns)
    target_columns: Columns = field(default_factory=Columns)
    label: str = "label"
    held_out_share: float = 0.2
    pretraining_share: float = 0.0
    keep_overlap: bool = False
    pool_rows: int | None = None
    row_tokens: float | None = None

    name: ClassVar[str] = "files"
    generated: ClassVar[bool] = False
    candidate_options: ClassVar[frozenset[str]] = frozenset()

    @property
    def under_covered(self) -> list[str]:
        """Return no domain: which of them the files lack is not known."""
        return []

    @property
    def is_labelled(self) -> bool:
        """Return whether there are labelled rows, and no target without labels."""
        return "train" in self.path

    @property
    def text_tokens(self) -> float:
        """Return the mean length of the target's texts in tokens."""
        texts = self.split(self.task, "train" if self.is_labelled else "target")["text"]
        return max(1.0, pc.mean(pc.utf8_length(texts)).as_py() / CHARS_PER_TOKEN)

    def identity(self) -> dict[str, Any]:
        """Return the checksums of the files, and how their rows are read.

        Returns:
            ``candidates`` and ``tasks`` apart, as `gotd.data.folder.Folder.identity`.
        """
        splits = {
            role: [part.identity() for part in self._read(role)]
            for role in self.path
            if role != "candidates"
        }
        how = {"columns": key_fields(self.target_columns)}
        how |= {"label": self.label} if self.is_labelled else {"held_out": self.held_out_share}
        return {
            "name": self.name,
            "version": 1,
            "candidates": [part.identity() for part in self.candidates()],
            "pretraining": [part.identity() for part in self.pretraining()],
            "tasks": {self.task: {**splits, **how}},
        }

    def tasks(self) -> list[str]:
        """Return the only task."""
        return [self.task]

    def split(self, task: str, split: str) -> pa.Table:
        """Return the rows of a split.

        Returns:
            ``text`` and ``label`` of ``train`` and ``test``; ``id``, ``text`` and ``domain`` of
            ``target`` and ``held_out``. Rows without text are left out, and held-out rows with
            the text of a target row.

        Raises:
            FileNotFoundError: If there is no such split, or a file cannot be found.
            ValueError: If rows have no text or no label; names file and row.
        """
        role = "target" if split == "held_out" else split
        if task != self.task or role not in self.path or role == "candidates":
            raise FileNotFoundError(f"there is no split {split!r} of a task {task!r}")
        rows = self._rows(role)
        if self.is_labelled:
            return rows
        held = uniform_by_id(rows["id"], SPLIT_SEED, "held-out target") < self.held_out_share
        targets = rows.filter(pa.array(~held))
        if split == "target":
            return targets
        known = set(map(normalised, targets["text"].to_pylist()))
        new = [normalised(text) not in known for text in rows["text"].to_pylist()]
        return rows.filter(pa.array(held & np.array(new, bool)))

    def count(self, role: str) -> int | None:
        """Return the rows of a role (see `gotd.data.base.Source.count`)."""
        task, _, split = role.partition("/")
        if split:
            return self.split(task, split).num_rows
        if role == "candidates" or self.pool_rows is None:
            return self.pool_rows
        return round(self.pool_rows * self.pretraining_share / (1 - self.pretraining_share))

    def candidates(self) -> list[Part]:
        """Return the rows to select from, a part for each file."""
        return self._pool("candidates")

    def pretraining(self) -> list[Part]:
        """Return the candidates that only pre-train a base model; none if their share is 0."""
        return self._pool("pretraining") if self.pretraining_share else []

    def held_out(self) -> list[Part]:
        """Return no text: all of it may pre-train a base model."""
        return []

    def _read(self, role: str) -> list[Part]:
        columns = self.columns if role == "candidates" else self.target_columns
        return _named(tuple(self.path[role]), columns, self.store)

    def _rows(self, role: str) -> pa.Table:
        """Return all rows of a role; they are read once, unless the files change."""
        stamp = json.dumps([part.identity() for part in self._read(role)])
        label = self.label if self.is_labelled else None
        return _all_rows(tuple(self.path[role]), self.target_columns, self.store, label, stamp)

    def _pool(self, role: str) -> list[Part]:
        def keep(ids: pa.ChunkedArray) -> np.ndarray:
            if not self.pretraining_share:
                return np.ones(len(ids), bool)
            held = uniform_by_id(ids, SPLIT_SEED, "pretraining") < self.pretraining_share
            return held if role == "pretraining" else ~held

        rule = {"columns": key_fields(self.columns), "role": role, "share": self.pretraining_share}
        parts = [FilteredPart(part, keep, rule) for part in self._read("candidates")]
        if self.keep_overlap:
            return [*parts]
        split = "test" if self.is_labelled else "held_out"
        role = "test" if self.is_labelled else "target"
        evaluated = [part.identity() for part in self._read(role)]
        without = {"ngram_words": NGRAM_WORDS, "split": split, "of": evaluated}
        without |= {} if self.is_labelled else {"held_out": self.held_out_share}
        texts = InMemory(self._evaluated(split), split, Columns())
        return [WithoutOverlap(part, texts, without) for part in parts]

    def _evaluated(self, split: str) -> pa.Table:
        return self.split(self.task, split).select(["text"])


def task_name(names: Sequence[str]) -> str:
    """Return a name for a task by its first file; ``train`` is no name, so its folder's is used.

    Letters, digits, ``-`` and ``_`` stay.
    """
    path = Path(names[0])
    base = path.name.split(".")[0]
    if base in ("train", "training", "target", ""):
        base = resolved(path).parent.name or base
    return re.sub(r"[^A-Za-z0-9_-]+", "_", base).strip("_") or "task"


@cache
def _named(names: Names, columns: Columns, store: str) -> list[Part]:
    """Find the files once: what is found is reported each time."""
    return named_parts(names, columns, Path(store) / HUB_RECORD)


@cache
def _all_rows(
    names: Names, columns: Columns, store: str, label: str | None, stamp: str
) -> pa.Table:
    parts = _named(names, columns, store)
    return read_texts(parts, _texts if label is None else partial(_labelled, label=label))


def _texts(parts: Sequence[Part]) -> pa.Table:
    """Return ``id``, ``text`` and ``domain`` of the rows that have a text."""
    return _with_text(read_all(parts), ", ".join(part.label for part in parts))


def _with_text(rows: pa.Table, where: str) -> pa.Table:
    filled = pc.not_equal(visible_ends(rows["text"]), "")
    if blank := rows.num_rows - pc.sum(filled).as_py():
        log.warning("%s: %s rows without text are left out", where, f"{blank:,}")
    if blank == rows.num_rows:
        raise ValueError(f"{where}: no row has a text; name its column by --target-text-column")
    return rows.filter(filled)


def _labelled(parts: Sequence[Part], label: str) -> pa.Table:
    """Return ``text`` and ``label`` of the rows that have a text."""
    tables = []
    for part in parts:
        where = str(part.path) if isinstance(part, File) else part.label
        texts = pa.concat_tables(part.pieces())
        labels: list[Any] = []
        for table in original_rows(part):
            if label not in table.column_names:
                raise ValueError(
                    f"{where} has no column {label!r}; it has {listed(table.column_names, label)}: "
                    "name the column of the labels by --label-column"
                )
            labels += table[label].to_pylist()
        rows = pa.table({"text": texts["text"], "label": _values(labels, label, where)})
        tables.append(_with_text(rows, where))
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        kinds = " and ".join(sorted({str(table["label"].type) for table in tables}))
        raise ValueError(
            f"the column {label!r} holds {kinds} in different files; give all labels one kind"
        ) from error


def _values(labels: list[Any], label: str, where: str) -> pa.Array:
    """Return labels as integers where all of them are whole numbers, else as they are."""
    missing = [row for row, value in enumerate(labels, 1) if value is None or value == ""]
    if missing:
        raise ValueError(
            f"{where} row {missing[0]}: the column {label!r} is empty ({len(missing)} such rows); "
            "repair or drop the row"
        )
    if all(isinstance(value, str) for value in labels):
        labels = [value.strip() for value in labels]
        if all(re.fullmatch(r"-?\d{1,18}", value) for value in labels):
            labels = [int(value) for value in labels]
    elif any(isinstance(value, float) for value in labels):
        if not all(float(value).is_integer() for value in labels):
            raise ValueError(
                f"{where}: the column {label!r} holds numbers with decimals; gotd compare scores "
                "classes, so give names or whole numbers"
            )
        labels = [int(value) for value in labels]
    try:
        return pa.array(labels)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(
            f"{where}: the column {label!r} holds values of several kinds; give all labels one kind"
        ) from error
