"""The protocols of sources, their parts, and tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.config.schemas import TaskLimits
from gotd.data.columns import BadName

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("domain", pa.string())])
"""Columns of the tables that parts yield."""
ROWS_PER_PIECE = 8192
BYTES_PER_PIECE = 64 * 2**20
"""A piece ends at so many rows or bytes of text, whichever comes first."""


class SourceUnavailable(FileNotFoundError):  # noqa: N818 - a state, not a mistake
    """Rows are neither on this machine nor can they be fetched."""


class Part(Protocol):
    """A file, a split of a Hub data set, a table, or a selection of their rows."""

    @property
    def label(self) -> str:
        """Return the name of the part, unique among the parts of one pool."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what determines the rows: a checksum, or a data set and its revision.

        JSON-able, and free of paths.
        """
        ...

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables with columns as in `SCHEMA`, in order, a few thousand rows each."""
        ...


@dataclass(frozen=True)
class FilteredPart:
    """Some rows of a part, chosen by their ids.

    Args:
        part: The part.
        keep: Maps ids ``[n]`` to a bool mask ``[n]``.
        rule: What `keep` depends on, for the identity; JSON-able.
    """

    part: Part
    keep: Callable[[pa.ChunkedArray], np.ndarray]
    rule: dict[str, Any]

    @property
    def label(self) -> str:
        """Return the name of the part that is filtered."""
        return self.part.label

    def identity(self) -> dict[str, Any]:
        """Return the identity of the part, with the rule."""
        return {**self.part.identity(), "rows": self.rule}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables with columns as in `SCHEMA`, in the part's order."""
        for table in self.part.pieces():
            yield table.filter(pa.array(self.keep(table["id"])))


def check_unchanged(part: Part, identity: dict[str, Any]) -> None:
    """Raise `ValueError` if a source is no longer what it was when the pool was written."""
    if part.identity() != identity:
        raise ValueError(
            f"{part.label} has changed since it was read; run the same command again, and leave "
            "the candidates alone until it is done"
        )


@dataclass(frozen=True)
class PinnedPart:
    """A part whose rows are given out only while it is what its identity says.

    Args:
        part: The part.
        stated: Its identity when the key was computed.
    """

    part: Part
    stated: dict[str, Any]

    @property
    def label(self) -> str:
        """Return the name of the part."""
        return self.part.label

    def identity(self) -> dict[str, Any]:
        """Return the identity that was stated."""
        return self.stated

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the pieces of the part; each is checked before it is given out.

        Raises:
            ValueError: If the part has changed.
        """
        for table in self.part.pieces():
            check_unchanged(self.part, self.stated)
            yield table


@dataclass(frozen=True)
class GeneratedPart:
    """A table that is made when it is read.

    Args:
        label: Name of the part.
        content: What determines the table: the identity.
        make: Returns the table, with columns as in `SCHEMA`.
    """

    label: str
    content: dict[str, Any]
    make: Callable[[], pa.Table]

    def identity(self) -> dict[str, Any]:
        """Return what determines the table."""
        return self.content

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the table in slices."""
        table = self.make().select(SCHEMA.names).cast(SCHEMA)
        for start in range(0, table.num_rows, ROWS_PER_PIECE):
            yield table.slice(start, ROWS_PER_PIECE)


class Source(Protocol):
    """Tasks with labels, candidates to select from, and what both depend on.

    Every source returns plain tables, so the rest of the program does not depend on whether
    rows were generated, read from files or fetched. A source is deterministic: equal
    `identity` means equal bytes.
    """

    name: ClassVar[str]
    """Short name for records: ``microworld``, ``folder``, ``mix`` or ``hub``."""
    generated: ClassVar[bool]
    """Whether the texts are generated: they may then be published in records."""
    candidate_options: ClassVar[frozenset[str]]
    """The fields of conf/candidates that this source reads: ``files``, ``limit``."""

    @property
    def under_covered(self) -> list[str]:
        """Return the domains of which the pool has too little, where that is known."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that changes the bytes: checksums, revisions, parameters.

        JSON-able, and free of paths and of anything about this machine.
        """
        ...

    def tasks(self) -> list[str]:
        """List the tasks that `split` knows, sorted."""
        ...

    def count(self, role: str) -> int | None:
        """Return how many rows it has of ``candidates``, ``pretraining`` or ``<task>/<split>``.

        A source with texts of single domains also counts those of one domain for ``target``
        and ``evaluation`` (`gotd.data.tasks.halves.DomainTexts`).
        An estimate will do. ``None`` if that is not known without reading or fetching rows;
        nothing is raised.
        """
        ...

    def split(self, task: str, split: str) -> pa.Table:
        """Return one split of a task, raw: the columns of ``nyu-mll/glue``.

        A column ``domain`` (string) is added where the truth is known.

        Raises:
            FileNotFoundError: If there is no such task or split; lists what there is.
        """
        ...

    def candidates(self) -> Sequence[Part]:
        """Return the documents to select from, as parts; ids are unique over all parts."""
        ...

    def pretraining(self) -> Sequence[Part]:
        """Return the documents a base model is pre-trained on, disjoint from `candidates`.

        They are the paper's D_P, and known exactly here.

        Raises:
            ValueError: If this source has none, because its base models come pre-trained.
        """
        ...

    def held_out(self) -> Sequence[Part]:
        """Return text of the pool's kind that no model is trained on, for perplexity."""
        ...


class Task(Protocol):
    """Rows that a model is evaluated on, and texts for which training data is selected.

    A new kind of task is one class with these attributes. An evaluation states what else it
    reads of a task, such as the metrics of `gotd.data.tasks.labelled.LabelledTask`.
    """

    key_name: ClassVar[str]
    """Name of the class in cache keys."""
    rows_kind: ClassVar[str]
    """Kind of the step that writes `tables`."""

    @property
    def name(self) -> str:
        """Return the name in records, by which the source knows the task."""
        ...

    @property
    def table_names(self) -> tuple[str, ...]:
        """Return the names of the tables that `tables` always returns."""
        ...

    def tables(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, pa.Table]:
        """Return the tables of the task, by name.

        ``train`` (columns ``id``, ``text``, ``text_pair``, ``domain``) holds the texts to
        select for; ``negative``, the texts to move away from, has the same columns. Other
        names are known to the evaluations: ``validation``, ``reported-<split>``,
        ``prompts``, ``held_out``.

        Args:
            source: Where the rows come from.
            limits: How many rows to take.
            protocol: ``clean`` or ``published``.
            seed: Seed of the role ``data``.

        Raises:
            FileNotFoundError: If the source lacks the task or a split.
            ValueError: If rows are not as the task needs them; names file, row and field.
        """
        ...

    def held_out_texts(self, rows: Path) -> pa.Table:
        """Read texts of the target's kind that are in no training data.

        Args:
            rows: Folder with a Parquet file for each of `tables`.

        Returns:
            ``id``, ``text`` and ``part`` (string, null where the parts are not known).
        """
        ...

    def count_rows(self, source: Source, limits: TaskLimits, protocol: str) -> tuple[int, int]:
        """Return the expected rows of ``train``, and those that a model is evaluated on."""
        ...

    def key_fields(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, Any]:
        """Return what `tables` depends on, for the cache key; JSON-able.

        Raises:
            ValueError: If the limits do not fit the task; raised before anything runs.
        """
        ...


def read_all(parts: Sequence[Part]) -> pa.Table:
    """Read all rows of some parts into memory.

    Returns:
        Columns as in `SCHEMA`.

    Raises:
        ValueError: If a part cannot be read, or an id occurs twice; names file and row.
    """
    pieces = [piece.cast(SCHEMA) for part in parts for piece in part.pieces()]
    table = pa.concat_tables(pieces) if pieces else SCHEMA.empty_table()
    counts = pc.value_counts(table["id"])
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        raise repeated_id(parts, repeated[0]["values"].as_py())
    return table


def repeated_id(parts: Sequence[Part], name: str) -> BadName:
    """Return the error for an id that occurs twice; reads the parts again to name the rows."""
    rows = []
    for part in parts:
        unfiltered = part
        while isinstance(unfiltered, FilteredPart | PinnedPart):
            unfiltered = unfiltered.part
        first = 1
        for table in unfiltered.pieces():
            positions = np.flatnonzero(pc.equal(table["id"], name))
            rows += [f"{part.label} row {first + position}" for position in positions]
            first += table.num_rows
    where = f": {rows[0]} and {rows[1]}" if len(rows) > 1 else ""
    return BadName(
        f"id {name!r} occurs twice{where}; ids must be unique over all files: "
        "drop a row, name another --id-column, or give --id-column none to number the rows"
    )
