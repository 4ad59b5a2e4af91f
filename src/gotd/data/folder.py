"""Rows from files in a folder: your own data, or copies of the public tasks.

    <path>/glue/<task>/<split>.parquet      columns as in nyu-mll/glue
    <path>/domain/<task>/<split>.parquet    text, label
    <path>/zeroshot/<task>/<split>.parquet  question, label; passage or choices
    <path>/toxicity/<task>.parquet          rated prompts (split ``train``); see README
    <path>/toxicity/<task>/<split>.parquet  labelled comments: text, label
    <path>/candidates/*.parquet             text; id and domain if you have them

Every file may also be ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst`` or ``.csv``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gotd.data.base import FilteredPart, Part
from gotd.data.columns import Columns
from gotd.data.files import row_files, stem
from gotd.data.inputs import file_parts
from gotd.data.readers import column_names, read_table
from gotd.data.sampling import SPLIT_SEED, limited, uniform_by_id
from gotd.data.sizes import count_rows
from gotd.storage.files import known_checksum
from gotd.storage.printing import listed

TASK_GROUPS = ("glue", "domain", "zeroshot", "toxicity")
ONE_FILE_GROUPS = ("toxicity",)
"""Groups in which a task may be a single file, its split ``train``."""
LAYOUT = f"it holds candidates/, and tasks in {'/, '.join(TASK_GROUPS)}/"
UNREAD_SHARE = 0.1
"""Share of the pre-training passages that causal models never see, for perplexity."""
VERSION = 1
"""Raise it when the same files give other rows."""


@dataclass(frozen=True)
class Folder:
    """Tasks and candidates from files.

    Args:
        path: The folder; not part of the identity.
        candidate_files: Names or patterns (``biomedical-*``) of files in
            ``candidates/``, with or without suffix; empty: all.
        held_out_share: Share of the passages that only pre-trains base models, so that
            what the model has seen (D_P) is known exactly. Chosen by a hash of the id:
            the two parts are disjoint samples of one distribution, and adding files
            moves no row from one to the other.
        limit: Passages to use in all, over both parts; ``None``: all. Sampled by a hash
            of the id, so every domain shrinks in proportion (up to chance): the pool
            stays the same mixture.
    """

    path: str
    candidate_files: tuple[str, ...] = ()
    held_out_share: float = 0.15
    limit: int | None = None

    name: ClassVar[str] = "folder"
    generated: ClassVar[bool] = False
    candidate_options: ClassVar[frozenset[str]] = frozenset({"files", "limit"})
    under_covered: ClassVar[list[str]] = []
    """Which domains real data lacks is not known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidate_files", tuple(self.candidate_files))
        if not 0 <= self.held_out_share < 1:
            raise ValueError(f"held_out_share must be in [0, 1), not {self.held_out_share}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1 row or null, not {self.limit}")

    def identity(self) -> dict[str, Any]:
        """Return the checksum of every file, by its name inside the folder.

        Returns:
            ``candidates`` (files and parameters) and ``tasks`` (files by task) apart, so
            that a change to one task leaves what depends on the others valid.

        Raises:
            FileNotFoundError: If the folder or its candidates are not there.
            ValueError: If a file of candidates has no ``text``.
        """
        root = self._root()
        return {
            "name": self.name,
            "version": VERSION,
            "candidates": {
                "files": {f.name: _passages_identity(f) for f in self._candidate_paths()},
                "held_out_share": self.held_out_share,
                "limit": self.limit,
            },
            "tasks": {
                task: {file.relative_to(root).as_posix(): known_checksum(file) for file in files}
                for task, files in sorted(self._task_files().items())
            },
        }

    def tasks(self) -> list[str]:
        """List the tasks that have a file."""
        return sorted(self._task_files())

    def split(self, task: str, split: str) -> pa.Table:
        """Read one split of a task as it is in its file.

        Raises:
            FileNotFoundError: If there is no such task or split; lists what is there.
            ValueError: If the file cannot be read, or two files hold this split.
        """
        return read_table(self._split_file(task, split))

    def count(self, role: str) -> int | None:
        """Return the rows of a role (see `Source.count`), from the sizes of the files."""
        task, _, split = role.partition("/")
        try:
            if split:
                return count_rows(self._split_file(task, split))
            rows = sum(map(count_rows, self._candidate_paths()))
        except (OSError, ValueError):
            return None
        share = self.held_out_share if role == "pretraining" else 1 - self.held_out_share
        return round(min(rows, self.limit or rows) * share)

    def _split_file(self, task: str, split: str) -> Path:
        tasks = self._task_files()
        if task not in tasks:
            groups = ", ".join(str(self._root() / group) for group in TASK_GROUPS)
            raise FileNotFoundError(
                f"no task {task!r} in {self._root()}; there is: {_names(tasks, task)}. "
                f"Put its files into {task}/ in one of {groups}"
            )
        splits = tasks[task]
        files = [file for file, name in splits.items() if name == split]
        if not files:
            raise FileNotFoundError(
                f"task {task!r} has no split {split!r} in {next(iter(splits)).parent}; "
                f"there is: {_names(splits.values(), split)}"
            )
        if len(files) > 1:
            raise ValueError(
                f"{files[0].parent} holds the split {split!r} more than once "
                f"({', '.join(file.name for file in files)}); keep one"
            )
        return files[0]

    def candidates(self) -> list[Part]:
        """Return the passages to select from, those not held out, a part for each file."""
        return self._parts("candidates", lambda ids: ~self._pretrains(ids))

    def pretraining(self) -> list[Part]:
        """Return the passages held out for pre-training base models.

        Raises:
            ValueError: If ``held_out_share`` is 0.
        """
        return self._parts("pretraining", self._pretrains)

    def held_out(self) -> list[Part]:
        """Return the pre-training passages that no causal model is trained on.

        Raises:
            ValueError: If ``held_out_share`` is 0.
        """
        return self._parts("held out", lambda ids: self._pretrains(ids) & self._unread(ids))

    def _parts(self, role: str, keep: Callable[[pa.ChunkedArray], np.ndarray]) -> list[Part]:
        if self.held_out_share == 0 and role != "candidates":
            raise ValueError(
                "this source has no pre-training text: held_out_share is 0; "
                "set it above 0 or use a model that is already pre-trained"
            )
        paths = self._candidate_paths()
        for path in paths:
            _columns_of(path)
        parts = file_parts(paths, Columns())
        if self.limit is not None:
            parts = limited(parts, self.limit, SPLIT_SEED, role="limit")
        rule = {"role": role, "held_out_share": self.held_out_share}
        return [FilteredPart(part, keep, rule) for part in parts]

    def _pretrains(self, ids: pa.ChunkedArray) -> np.ndarray:
        return uniform_by_id(ids, SPLIT_SEED, role="pretraining") < self.held_out_share

    def _unread(self, ids: pa.ChunkedArray) -> np.ndarray:
        return uniform_by_id(ids, SPLIT_SEED, role="held out") < UNREAD_SHARE

    def _root(self) -> Path:
        if not self.path:
            raise FileNotFoundError(
                "the folder of rows and passages is not named: set DATA=… or source.path=… "
                f"({LAYOUT})"
            )
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(
                f"no folder {root}; give the one of rows and passages by DATA=… ({LAYOUT})"
            )
        return root

    def _task_files(self) -> dict[str, dict[Path, str]]:
        """Return files and splits of each task: a folder of files, or one file of its name."""
        tasks: dict[str, dict[Path, str]] = {}
        places: dict[str, Path] = {}
        for group in TASK_GROUPS:
            folder = self._root() / group
            named = [(place.name, place, row_files(place)) for place in sorted(folder.glob("*/"))]
            if group in ONE_FILE_GROUPS:
                named += [(stem(file), file, [file]) for file in row_files(folder)]
            for name, place, files in named:
                if name in tasks and files:
                    raise ValueError(
                        f"task {name!r} is in {places[name]} and in {place}; rename one of them"
                    )
                if files:
                    places[name] = place
                    tasks[name] = {f: "train" if f == place else stem(f) for f in files}
        return tasks

    def _candidate_paths(self) -> list[Path]:
        folder = self._root() / "candidates"
        files = row_files(folder)
        if not files:
            raise FileNotFoundError(
                f"no candidate files in {folder}; put .parquet, .jsonl or .csv files there"
            )
        if not self.candidate_files:
            return files
        selected: set[Path] = set()
        for pattern in self.candidate_files:
            matches = {f for f in files if f.match(pattern) or Path(stem(f)).match(pattern)}
            if not matches:
                raise FileNotFoundError(
                    f"no candidate file matches {pattern!r} in {folder}; "
                    f"there is: {_names((stem(f) for f in files), pattern)}"
                )
            selected |= matches
        return sorted(selected)


def _columns_of(path: Path) -> list[str]:
    """Return the columns of a file of passages, checked before any row is read."""
    return Columns().among(column_names(path), str(path))


def _passages_identity(path: Path) -> str | dict[str, str]:
    """Return a file's checksum; without ids, also how its rows are numbered."""
    if "id" in _columns_of(path):
        return known_checksum(path)
    return {"sha256": known_checksum(path), "ids": "<file>#<row>"}


def _names(names: Iterable[str], wanted: str) -> str:
    return listed(sorted(names), wanted) or "nothing"
