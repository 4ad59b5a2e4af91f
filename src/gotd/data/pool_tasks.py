"""A pool whose files are read at once, in tasks, with the bytes that `write_pool` writes.

Where a shard begins depends on the rows of all parts before it. So a first round of tasks reads,
filters and cuts the parts, and writes what is left with the sizes of the rows. A task reads one
part, or a range of row groups of a Parquet file. From these sizes alone this process finds the
shards. A second round puts the shards together, counts their rows and hashes their ids. No text
passes this process. The price is disk space: what is left of the parts is stored once more, until
the pool is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.config.schemas import Chunking
from gotd.data import pool
from gotd.data.base import SCHEMA, Part, PinnedPart
from gotd.data.cutting import Cutter
from gotd.data.files import kind_of
from gotd.data.inputs import File
from gotd.data.pool import counts_of, rows_file
from gotd.data.readers import stream_row_groups
from gotd.data.row_groups import RowGroups
from gotd.data.row_text import Missing
from gotd.data.rows import Rows
from gotd.data.table_files import row_groups
from gotd.data.unique_ids import hash_strings, repeated_among
from gotd.engine.local import Engine
from gotd.storage.artifacts import WORK
from gotd.storage.files import (
    State,
    atomic_write,
    checksum_of_state,
    know_checksum,
    write_json,
)
from gotd.storage.progress import tick

Range = tuple[int, int, int]
"""Number of a reading, and the first row of it and the one after the last."""


def write_pool_in_tasks(
    parts: Sequence[Part], folder: Path, chunking: Chunking, engine: Engine
) -> None:
    """Cut rows into shards as `write_pool` does, resuming at the part and at the shard.

    Args:
        parts: In order. Each is read by as many tasks as `count_readings` says.
        folder: Receives the pool, and in its `WORK` what the tasks have done.
        chunking: See `write_pool`.
        engine: Maps over parts and shards. Its workers see ``folder`` and the parts under the
            same paths.

    Raises:
        ValueError: As `write_pool` does, of the first part that cannot be read.
    """
    work, cutter = folder / WORK, Cutter(chunking)
    work.mkdir(parents=True, exist_ok=True)
    readings = list(_readings(parts, work, chunking))
    _add_counts(readings, engine.map(_read, readings), cutter)
    shards = list(_shards(readings, folder))
    pool.check_not_empty(parts, len(shards), cutter.short, chunking)
    counts: list[dict[str, Any]] = []
    for shard in engine.map(_write, shards):
        counts.append(shard)
        tick(shard["rows"])

    def ids() -> list[pa.Array]:
        return [Rows.open(folder / rows_file(shard.number)).ids for shard in shards]

    rows = sum(shard["rows"] for shard in counts)
    name = repeated_among([shard.path(".npy") for shard in shards], rows, ids, engine)
    if name is not None:
        raise pool.repeated_chunk(parts, name, chunking)
    pool.write_index(folder, cutter, counts)


def _shards(readings: Sequence[_Reading], folder: Path) -> Iterator[_Shard]:
    ends = (np.load(reading.path(".npy"), mmap_mode="r") for reading in readings)
    for number, own in enumerate(shard_ranges(ends, pool.SHARD_ROWS, pool.SHARD_BYTES)):
        rows = [(readings[place].path(".arrow"), start, stop) for place, start, stop in own]
        yield _Shard(number, rows, folder)


def shard_ranges(
    ends: Iterable[np.ndarray], most_rows: int, most_bytes: int
) -> Iterator[list[Range]]:
    """Yield the rows of each shard: it ends at so many rows or bytes, whichever comes first.

    Args:
        ends: For each reading int64 ``[n]``: bytes of the texts up to each row, inclusive.
        most_rows: Rows of a shard.
        most_bytes: A shard ends with the row that reaches so many.
    """
    held: list[Range] = []
    rows = size = 0
    for number, sizes in enumerate(ends):
        start = before = 0
        while start < len(sizes):
            fitting = int(np.searchsorted(sizes[start:], most_bytes - size + before)) + 1
            count = min(len(sizes) - start, most_rows - rows, fitting)
            last = int(sizes[start + count - 1])
            held.append((number, start, start + count))
            rows, size, before, start = rows + count, size + last - before, last, start + count
            if rows >= most_rows or size >= most_bytes:
                yield held
                held, rows, size = [], 0, 0
    if held:
        yield held


def count_readings(parts: Sequence[Part], chunking: Chunking) -> int:
    """Return how many tasks read some parts: one each, more for a Parquet file of many row groups.

    Chunks are cut and joined over all rows of a part. So one task reads it if they are ``fixed``.
    """
    return sum(len(_groups_of(part, chunking)) for part in parts)


def _groups_of(part: Part, chunking: Chunking) -> Sequence[RowGroups | None]:
    """Return what each task reads of a part; ``None``: all of it."""
    file = _file_of(part)
    if file is not None and kind_of(file.path) == "parquet" and chunking.unit != "fixed":
        with suppress(ValueError):  # raised again by the task that reads it, in its turn
            if len(groups := row_groups(file.path)) > 1:
                return groups
    return [None]


def _file_of(part: Part) -> File | None:
    part = part.part if isinstance(part, PinnedPart) else part
    return part if isinstance(part, File) else None


def _readings(parts: Sequence[Part], work: Path, chunking: Chunking) -> Iterator[_Reading]:
    for number, part in enumerate(parts):
        known = None
        if (file := _file_of(part)) is not None:
            # Else each worker would read all of the file first, to compare its checksum.
            with suppress(OSError):
                known = checksum_of_state(file.path)
        for groups in _groups_of(part, chunking):
            yield _Reading(number, part, work, chunking, groups, known)


def _add_counts(
    readings: Sequence[_Reading], found: Iterable[dict[str, Any]], cutter: Cutter
) -> None:
    """Add up what is left out, and report what is missing in a file after its last row groups."""
    missing: Missing | None = None
    for reading, following, counts in zip(readings, [*readings[1:], None], found, strict=True):
        cutter.blank += counts["blank"]
        cutter.short += counts["short"]
        if reading.groups is None:  # the task has reported it
            continue
        missing = reading.missing() if missing is None else missing
        missing.add(*counts["missing"])
        if following is None or following.number != reading.number:
            missing.report()
            missing = None


# In the workers -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """What one task reads; its rows, their sizes and its counts become files in ``work``.

    Args:
        number: Of the part.
        part: The part.
        work: Folder for the files.
        chunking: See `write_pool_in_tasks`.
        groups: The row groups that are read; ``None``: all of the part.
        known: State and checksum of the part's file, where they are known.
    """

    number: int
    part: Part
    work: Path
    chunking: Chunking
    groups: RowGroups | None = None
    known: tuple[State, str] | None = None

    def path(self, suffix: str) -> Path:
        # With the row groups: a run that goes on may find those of other ranges.
        own = "" if self.groups is None else f"-{self.groups.start}-{self.groups.stop}"
        return self.work / f"part-{self.number:05d}{own}{suffix}"

    def missing(self) -> Missing:
        """Return what counts the missing values of the file, none so far."""
        file = _file_of(self.part)
        assert file is not None
        return Missing(str(file.path), file.shape.required)


@dataclass(frozen=True)
class _SomeRowGroups:
    """A part of a file: some of its row groups.

    Args:
        file: The file.
        groups: The row groups.
        missing: Counts missing values.
    """

    file: File
    groups: RowGroups
    missing: Missing

    @property
    def label(self) -> str:
        return self.file.label

    def identity(self) -> dict[str, Any]:
        return self.file.identity()

    def pieces(self) -> Iterator[pa.Table]:
        file = self.file
        read = file.path, file.columns, file.label, file.domain
        return stream_row_groups(*read, self.groups, self.missing)


def _within(part: Part, groups: RowGroups, missing: Missing) -> Part:
    """Return some row groups of a part, which is checked as the part is."""
    file = _file_of(part)
    assert file is not None
    own = _SomeRowGroups(file, groups, missing)
    return PinnedPart(own, part.stated) if isinstance(part, PinnedPart) else own


def _read(reading: _Reading) -> dict[str, Any]:
    """Read a part, or some of it, and return what is left out and missing, unless that is done."""
    done = reading.path(".json")
    if done.exists():
        return json.loads(done.read_text("utf-8"))
    if reading.known is not None:
        know_checksum(*reading.known)
    cutter, sizes = Cutter(reading.chunking), [np.empty(0, np.int64)]
    part, missing = reading.part, None
    if reading.groups is not None:
        missing = reading.missing()
        part = _within(part, reading.groups, missing)
    with (
        atomic_write(reading.path(".arrow")) as path,
        pa.ipc.new_file(str(path), SCHEMA) as file,
    ):
        for table in cutter.cut(part.pieces()):
            sizes.append(pc.binary_length(table["text"]).to_numpy().astype(np.int64))
            file.write_table(table.cast(SCHEMA))
    with atomic_write(reading.path(".npy")) as path, path.open("wb") as out:
        np.save(out, np.cumsum(np.concatenate(sizes)))
    counts: dict[str, Any] = {"blank": cutter.blank, "short": cutter.short}
    if missing is not None:
        counts["missing"] = missing.counts
    write_json(done, counts)
    return counts


@dataclass(frozen=True)
class _Shard:
    """A shard to put together.

    Args:
        number: Of the shard.
        ranges: File of a reading, and the first row of it and the one after the last.
        folder: Of the pool.
    """

    number: int
    ranges: Sequence[tuple[Path, int, int]]
    folder: Path

    def path(self, suffix: str) -> Path:
        return self.folder / WORK / f"shard-{self.number:05d}{suffix}"


def _write(shard: _Shard) -> dict[str, Any]:
    """Write a shard and the sorted hashes of its ids, unless that is done; return its counts."""
    done, path = shard.path(".json"), shard.folder / rows_file(shard.number)
    if done.exists():
        return json.loads(done.read_text("utf-8"))
    pool.write_shard(path, [table for own in shard.ranges for table in _rows(*own)])
    rows = Rows.open(path)
    with atomic_write(shard.path(".npy")) as part, part.open("wb") as out:
        np.save(out, np.sort(hash_strings(rows.ids)))
    counts = counts_of(rows)
    write_json(done, counts)
    return counts


def _rows(path: Path, start: int, stop: int) -> Iterator[pa.Table]:
    """Yield some rows of what a task has read, without copying them."""
    with pa.memory_map(str(path)) as source:
        file, first = pa.ipc.open_file(source), 0
        for place in range(file.num_record_batches):
            batch = file.get_batch(place)
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            if low < high:
                yield pa.Table.from_batches([batch.slice(low, high - low)])
            first += batch.num_rows
            if first >= stop:
                return
