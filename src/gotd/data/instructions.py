"""Instruction rows: prompts with responses, to select from and to be evaluated on.

    <path>/instruction/pool/*.parquet            id, prompt, response; source if you have it
    <path>/instruction/targets/<task>/examples   id, prompt, response; what selection may see
    <path>/instruction/targets/<task>/test       also task, choices, label, answer, references
    <path>/candidates/*.parquet                  passages that pre-train a small base model

Every file may also be ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst`` or ``.csv``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import Part
from gotd.data.columns import Columns
from gotd.data.cutting import visible_ends
from gotd.data.files import row_files, stem
from gotd.data.folder import Folder
from gotd.data.inputs import file_parts
from gotd.data.readers import column_names, read_table
from gotd.data.sampling import SPLIT_SEED, limited, subsample
from gotd.data.sizes import count_rows
from gotd.storage.checks import check_at_least
from gotd.storage.files import known_checksum
from gotd.storage.printing import listed

SEPARATOR = "\n\n"
"""Between prompt and response in the text that selectors read."""
PROMPT_COLUMNS = ("id", "prompt", "response")
VERSION = 1
"""Raise it when the same files give other rows."""


class InstructionSource(Protocol):
    """A source whose candidates are prompts with responses."""

    def instructions(self) -> pa.Table:
        """Return the columns `PROMPT_COLUMNS` of all candidates, in the order of their parts."""
        ...


def text_of(rows: pa.Table) -> pa.ChunkedArray:
    """Return the text that selectors read of each row: its prompt and its response."""
    kind = pa.large_string()
    columns = [rows[name].cast(kind) for name in ("prompt", "response")]
    return pc.binary_join_element_wise(*columns, pa.scalar(SEPARATOR, kind))


def read_instructions(rows: pa.Table, where: str) -> pa.Table:
    """Validate rows of prompts and responses, and return their columns as strings.

    Args:
        rows: As in a file.
        where: Name of the file, for messages.

    Returns:
        `PROMPT_COLUMNS`.

    Raises:
        ValueError: If a column is missing or a value is null or blank; names file, row, field.
    """
    for name in PROMPT_COLUMNS:
        if name not in rows.column_names:
            raise ValueError(
                f"{where} has no column {name!r}; it has {listed(rows.column_names, name)}: rows "
                "of instructions have id, prompt and response"
            )
        if not (pa.types.is_string(rows[name].type) or pa.types.is_large_string(rows[name].type)):
            raise ValueError(f"{where}: column {name!r} holds {rows[name].type}, not strings")
        visible = pc.not_equal(visible_ends(rows[name]), "")
        bad = pc.invert(pc.fill_null(visible, False))
        if pc.any(bad).as_py():
            row = pc.index(bad, True).as_py() + 1
            raise ValueError(f"{where} row {row}: field {name!r} is empty; fill it or drop the row")
    kinds = (pa.string(), pa.large_string(), pa.large_string())
    columns = [rows[name].cast(kind) for name, kind in zip(PROMPT_COLUMNS, kinds, strict=True)]
    return pa.table(columns, names=list(PROMPT_COLUMNS))


@dataclass(frozen=True)
class InstructionFolder:
    """A pool of instruction rows and targets from files; passages pre-train a small base.

    Args:
        path: The folder; not part of the identity.
        pool_limit: Rows of the pool, by a hash of their ids; ``None``: all.
        passages: Passages for pre-training, as ``candidates.limit`` of `Folder`.
    """

    name: ClassVar[str] = "instructions"
    generated: ClassVar[bool] = False
    candidate_options: ClassVar[frozenset[str]] = frozenset()
    under_covered: ClassVar[list[str]] = []
    """Which tasks the pool lacks is not known."""

    path: str
    pool_limit: int | None = None
    passages: int | None = None

    def __post_init__(self) -> None:
        check_at_least(self, 1, "pool_limit", "passages", prefix="source ")

    @property
    def _folder(self) -> Folder:
        """Return the folder as a source of passages."""
        return Folder(self.path, limit=self.passages)

    @property
    def _root(self) -> Path:
        where = "the folder of rows, with instruction/pool and instruction/targets"
        if not self.path:
            raise FileNotFoundError(f"{where} is not named: set DATA=… or source.path=…")
        root = Path(self.path).expanduser() / "instruction"
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {root}; give {where} by DATA=…")
        return root

    @cached_property
    def _files(self) -> list[Path]:
        found = [file for file in row_files(self._root / "pool") if file.suffix != ".json"]
        if not found:
            raise FileNotFoundError(
                f"no rows in {self._root / 'pool'}; put .parquet, .jsonl or .csv files there"
            )
        return found

    @cached_property
    def _targets(self) -> dict[str, dict[str, Path]]:
        folders = sorted((self._root / "targets").glob("*/"))
        return {folder.name: {stem(f): f for f in row_files(folder)} for folder in folders}

    def identity(self) -> dict[str, Any]:
        """Return the checksum of every file: of the pool, the passages, and each target.

        Raises:
            FileNotFoundError: If there is no pool.
        """
        pool = {file.name: known_checksum(file) for file in self._files}
        return {
            "name": self.name,
            "version": VERSION,
            "candidates": {"files": pool, "limit": self.pool_limit},
            "pretraining": self._folder.identity()["candidates"],
            "tasks": {
                task: {split: known_checksum(file) for split, file in sorted(files.items())}
                for task, files in self._targets.items()
            },
        }

    def tasks(self) -> list[str]:
        """List the targets."""
        return sorted(self._targets)

    def count(self, role: str) -> int | None:
        """Return the rows of a role (see `Source.count`), from the sizes of the files."""
        task, _, split = role.partition("/")
        try:
            if split:
                return count_rows(self._targets[task][split])
            if role == "candidates":
                rows = sum(map(count_rows, self._files))
                return min(rows, self.pool_limit or rows)
        except (OSError, KeyError):
            return None
        return self._folder.count(role)

    def split(self, task: str, split: str) -> pa.Table:
        """Read the ``examples`` or the ``test`` rows of a target as they are in the file.

        Raises:
            FileNotFoundError: If there is no such target or split; lists what is there.
        """
        files = self._targets.get(task, {})
        if split not in files:
            there = listed(sorted(files or self._targets), split if files else task) or "nothing"
            raise FileNotFoundError(
                f"no {split!r} of target {task!r} in {self._root / 'targets'}; there is: {there}"
            )
        return read_table(files[split])

    def candidates(self) -> Sequence[Part]:
        """Return the rows of the pool, a part for each file."""
        for file in self._files:
            names = column_names(file)
            missing = [name for name in PROMPT_COLUMNS if name not in names]
            if missing:
                raise ValueError(
                    f"{file} has no column {missing[0]!r}; it has {listed(names, missing[0])}"
                )
        parts = file_parts(self._files, Columns(template=f"{{prompt}}{SEPARATOR}{{response}}"))
        if self.pool_limit is None:
            return parts
        return limited(parts, self.pool_limit, SPLIT_SEED, role="instructions")

    def instructions(self) -> pa.Table:
        """Return prompts and responses of the pool; see `InstructionSource`.

        Raises:
            ValueError: As `read_instructions`.
        """
        tables = [read_instructions(read_table(file), str(file)) for file in self._files]
        rows = pa.concat_tables(tables)
        if self.pool_limit is None or self.pool_limit >= rows.num_rows:
            return rows
        kept = subsample(rows, self.pool_limit, SPLIT_SEED, "instructions")
        return rows.filter(pa.array(kept))

    def pretraining(self) -> Sequence[Part]:
        """Return the passages that pre-train a base model."""
        return self._folder.pretraining()

    def held_out(self) -> Sequence[Part]:
        """Return the passages that no model is trained on."""
        return self._folder.held_out()
