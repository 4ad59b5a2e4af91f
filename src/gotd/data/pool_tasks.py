"""A pool whose files are read at once, in tasks, with the bytes that `write_pool` writes.

Where a shard begins depends on the rows of all parts before it. So a first round of tasks reads,
filters and cuts the parts, one each, and writes what is left with the sizes of the rows. From
these sizes alone this process finds the shards. A second round puts the shards together, counts
their rows and hashes their ids. No text passes this process. The price is disk space: what is
left of the parts is stored once more, until the pool is done.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.config.schemas import Chunking
from gotd.data import pool
from gotd.data.base import SCHEMA, Part
from gotd.data.cutting import Cutter
from gotd.data.pool import counts_of, rows_file
from gotd.data.rows import Rows
from gotd.data.unique_ids import hash_strings, repeated_among
from gotd.engine.local import Engine
from gotd.storage.artifacts import WORK
from gotd.storage.files import atomic_write, write_json
from gotd.storage.progress import tick

Range = tuple[int, int, int]
"""Number of a part, and the first row and the one after the last."""


def write_pool_in_tasks(
    parts: Sequence[Part], folder: Path, chunking: Chunking, engine: Engine
) -> None:
    """Cut rows into shards as `write_pool` does, resuming at the part and at the shard.

    Args:
        parts: In order. Each is read by one task, so large files should be split.
        folder: Receives the pool, and in its `WORK` what the tasks have done.
        chunking: See `write_pool`.
        engine: Maps over parts and shards. Its workers see ``folder`` and the parts under the
            same paths.

    Raises:
        ValueError: As `write_pool` does, of the first part that cannot be read.
    """
    work, cutter = folder / WORK, Cutter(chunking)
    work.mkdir(parents=True, exist_ok=True)
    readings = [_Reading(number, part, work, chunking) for number, part in enumerate(parts)]
    for left_out in engine.map(_read, readings):
        cutter.blank += left_out["blank"]
        cutter.short += left_out["short"]
    ends = (np.load(reading.path(".npy"), mmap_mode="r") for reading in readings)
    ranges = shard_ranges(ends, pool.SHARD_ROWS, pool.SHARD_BYTES)
    shards = [_Shard(number, own, folder) for number, own in enumerate(ranges)]
    pool.check_not_empty(parts, len(shards), cutter.short, chunking)
    counts: list[dict[str, Any]] = []
    for found in engine.map(_write, shards):
        counts.append(found)
        tick(found["rows"])

    def ids() -> list[pa.Array]:
        return [Rows.open(folder / rows_file(shard.number)).ids for shard in shards]

    rows = sum(found["rows"] for found in counts)
    name = repeated_among([shard.path(".npy") for shard in shards], rows, ids, engine)
    if name is not None:
        raise pool.repeated_chunk(parts, name, chunking)
    pool.write_index(folder, cutter, counts)


def shard_ranges(
    ends: Iterable[np.ndarray], most_rows: int, most_bytes: int
) -> Iterator[list[Range]]:
    """Yield the rows of each shard: it ends at so many rows or bytes, whichever comes first.

    Args:
        ends: For each part int64 ``[n]``: bytes of the texts up to each row, that row included.
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


# In the workers -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    """A part to read; its rows, their sizes and its counts become files in ``work``."""

    number: int
    part: Part
    work: Path
    chunking: Chunking

    def path(self, suffix: str) -> Path:
        return _part_file(self.work, self.number, suffix)


def _part_file(work: Path, number: int, suffix: str) -> Path:
    return work / f"part-{number:05d}{suffix}"


def _read(reading: _Reading) -> dict[str, int]:
    """Read a part and return how many rows are left out, unless that is done."""
    done = reading.path(".json")
    if done.exists():
        return json.loads(done.read_text("utf-8"))
    cutter, sizes = Cutter(reading.chunking), [np.empty(0, np.int64)]
    with (
        atomic_write(reading.path(".arrow")) as path,
        pa.ipc.new_file(str(path), SCHEMA) as file,
    ):
        for table in cutter.cut(reading.part.pieces()):
            sizes.append(pc.binary_length(table["text"]).to_numpy().astype(np.int64))
            file.write_table(table.cast(SCHEMA))
    with atomic_write(reading.path(".npy")) as path, path.open("wb") as out:
        np.save(out, np.cumsum(np.concatenate(sizes)))
    counts = {"blank": cutter.blank, "short": cutter.short}
    write_json(done, counts)
    return counts


@dataclass(frozen=True)
class _Shard:
    """A shard to put together."""

    number: int
    ranges: Sequence[Range]
    folder: Path

    def path(self, suffix: str) -> Path:
        return self.folder / WORK / f"shard-{self.number:05d}{suffix}"


def _write(shard: _Shard) -> dict[str, Any]:
    """Write a shard and the sorted hashes of its ids, unless that is done; return its counts."""
    done, path = shard.path(".json"), shard.folder / rows_file(shard.number)
    if done.exists():
        return json.loads(done.read_text("utf-8"))
    work = shard.folder / WORK
    pool.write_shard(path, [table for own in shard.ranges for table in _rows(work, own)])
    rows = Rows.open(path)
    with atomic_write(shard.path(".npy")) as part, part.open("wb") as out:
        np.save(out, np.sort(hash_strings(rows.ids)))
    counts = counts_of(rows)
    write_json(done, counts)
    return counts


def _rows(work: Path, own: Range) -> Iterator[pa.Table]:
    """Yield some rows of a part that was read, without copying them."""
    number, start, stop = own
    with pa.memory_map(str(_part_file(work, number, ".arrow"))) as source:
        file, first = pa.ipc.open_file(source), 0
        for place in range(file.num_record_batches):
            batch = file.get_batch(place)
            low, high = max(start - first, 0), min(stop - first, batch.num_rows)
            if low < high:
                yield pa.Table.from_batches([batch.slice(low, high - low)])
            first += batch.num_rows
            if first >= stop:
                return
