"""The passages of a folder by domain, each domain divided into three roles.

A passage may be in pre-training text, in pools, or in targets and evaluation texts. Its role is
a hash of its id, so the roles are disjoint for all seeds, and adding files moves no passage
from one role to another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.columns import Columns
from gotd.data.files import stem
from gotd.data.inputs import File
from gotd.data.sampling import SPLIT_SEED, uniform_by_id
from gotd.storage.files import known_checksum

Role = Literal["pretraining", "pool", "target"]

ROLE_SHARES: dict[Role, float] = {"pretraining": 0.2, "pool": 0.6, "target": 0.2}
"""Share of the passages of each domain in each role, up to chance."""

Files = tuple[tuple[str, str], ...]
"""Path and checksum of each file of passages."""


@dataclass(frozen=True, eq=False)
class Passages:
    """Ids and lengths of the passages of one domain in one role.

    Args:
        domain: The domain.
        role: The role.
        ids: ``[n]`` strings, in the order of the files.
        chars: ``[n]`` int64, characters of each.
        files: The files that hold the domain.
    """

    domain: str
    role: Role
    ids: pa.Array
    chars: np.ndarray
    files: tuple[Path, ...]

    @property
    def total_chars(self) -> int:
        """Return the characters of all passages."""
        return int(self.chars.sum())

    @lru_cache(maxsize=256)  # noqa: B019 - they are in memory as long as the process
    def shuffled(self, seed: int) -> np.ndarray:
        """Return the positions of the passages in the order of a draw, int64 ``[n]``."""
        return np.argsort(uniform_by_id(self.ids, seed, f"mix {self.role}"), kind="stable")

    def first(self, seed: int, chars: int, skip: int = 0) -> pa.Array:
        """Return the ids of the first passages of a draw that have ``chars`` characters.

        Args:
            seed: Seed of the draw. Fewer characters give a part of the same draw.
            chars: Characters to reach; the passage that reaches them is the last one.
            skip: Passages at the beginning of the draw that are left out.
        """
        order = self.shuffled(seed)[skip:]
        reached = np.cumsum(self.chars[order])
        count = int(np.searchsorted(reached, chars)) + 1 if chars else 0
        return self.ids.take(pa.array(order[:count]))


@cache
def read_domains(files: Files) -> dict[str, dict[Role, Passages]]:
    """Read ids, domains and lengths of all passages, once per process.

    Args:
        files: The files. With another checksum they are read again.

    Returns:
        The passages by domain and role.

    Raises:
        ValueError: If a file cannot be read; names file and row.
    """
    columns: dict[str, list[tuple[Path, Any, np.ndarray]]] = {}
    for name, _ in files:
        for table in file_of(Path(name)).pieces():
            lengths = pc.utf8_length(table["text"])
            for domain in table["domain"].unique().to_pylist():
                rows = pc.equal(table["domain"], domain)
                ids, chars = (column.filter(rows) for column in (table["id"], lengths))
                held = ids.combine_chunks(), chars.to_numpy().astype(np.int64)
                columns.setdefault(domain, []).append((Path(name), *held))
    return {domain: _by_role(domain, pieces) for domain, pieces in sorted(columns.items())}


def _by_role(domain: str, pieces: Sequence[tuple[Path, Any, Any]]) -> dict[Role, Passages]:
    files = tuple(dict.fromkeys(path for path, _, _ in pieces))
    ids = pa.concat_arrays([ids for _, ids, _ in pieces])
    chars = np.concatenate([chars for _, _, chars in pieces])
    ends = np.cumsum(list(ROLE_SHARES.values()))[:-1]
    number = np.searchsorted(ends, uniform_by_id(ids, SPLIT_SEED, "role in a mix"))
    return {
        role: Passages(domain, role, ids.filter(pa.array(number == n)), chars[number == n], files)
        for n, role in enumerate(ROLE_SHARES)
    }


def file_of(path: Path) -> File:
    """Return a file of passages, as `gotd.data.folder.Folder` reads it."""
    return File(path, stem(path), Columns())


@dataclass(frozen=True, eq=False)
class DrawnPart:
    """The first passages of a draw from one domain, in the order of the files.

    Args:
        passages: The passages of the domain in one role.
        seed: Seed of the draw.
        chars: Characters to draw.
        content: What determines the rows: the identity.
        skip: Passages at the beginning of the draw that are left out.
    """

    passages: Passages
    seed: int
    chars: int
    content: dict[str, Any]
    skip: int = 0

    @property
    def label(self) -> str:
        """Return the domain."""
        return self.passages.domain

    @property
    def ids(self) -> pa.Array:
        """Return the ids of the passages, in the order of the draw."""
        return self.passages.first(self.seed, self.chars, self.skip)

    def identity(self) -> dict[str, Any]:
        """Return what determines the rows, with the files as they are now."""
        if "files" not in self.content:
            return self.content
        files = {path.name: known_checksum(path) for path in self.passages.files}
        return {**self.content, "files": files}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``."""
        return rows_of(self.passages.files, self.ids)


def rows_of(files: Sequence[Path], ids: pa.Array) -> Iterator[pa.Table]:
    """Yield the rows of some ids, in the order of the files."""
    for path in files:
        for table in file_of(path).pieces():
            yield table.filter(pc.is_in(table["id"], value_set=ids))
