"""Copies of the rows of a pool that compete, where a shard has others.

A row may be left out because the encoder cannot read it, or for one of the reasons of
`gotd.data.left_out`. Selectors open the copies, so nothing is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from gotd.data.base import SCHEMA
from gotd.data.pool import (
    INDEX,
    KEPT,
    LEFT_OUT,
    READABLE,
    UNREADABLE,
    counts_of,
    distributions,
    embeddings_file,
    open_pool,
    pool_facts,
    rows_file,
    shard_files,
)
from gotd.data.rows import Rows
from gotd.engine.local import THIS_PROCESS, Engine
from gotd.storage.files import atomic_write, write_json
from gotd.storage.memmap import open_array


def write_readable(pool: Path, embeddings: Path, label: str, engine: Engine = THIS_PROCESS) -> None:
    """Write the rows that the encoder could read, for each shard that has others.

    A row that it could not read has an embedding of zeros. It must not compete: to a cost
    between unit vectors it seems nearer than most rows. A shard with such rows gets a copy
    without them, so that every selector finds readable rows only and nothing is in memory.

    Args:
        pool: Folder that `write_pool` filled.
        embeddings: Folder with the shards' embeddings; receives the copies, and
            ``unreadable.json`` with the unreadable rows of each shard.
        label: Name of the pool, for the message.
        engine: Maps over shards.

    Raises:
        ValueError: If no row of the pool could be read.
    """
    copies = [
        _Copy(rows, count, number, embeddings, embeddings, READABLE)
        for number, (rows, count) in enumerate(shard_files(pool))
    ]
    counts = list(engine.map(_write_copy, copies))
    if not any(counts):
        return
    if sum(counts) == sum(pool_facts(pool)["rows"]):
        raise ValueError(
            f"the encoder can read no row of {label}: none holds a word that it knows; give "
            "texts with words or another encoder"
        )
    write_json(embeddings / UNREADABLE, counts)


def write_kept(
    pool: Path,
    folder: Path,
    masks: Sequence[np.ndarray],
    embeddings: Path | None = None,
    engine: Engine = THIS_PROCESS,
) -> None:
    """Write the rows that compete, for each shard that has others.

    Args:
        pool: Folder that `write_pool` filled.
        folder: Receives the copies, ``left-out.json`` with the rows of each shard that are
            left out, and ``shards.json`` with the counts of the rows that are left.
        masks: For each shard bool ``[n]``: which rows compete.
        embeddings: Folder with the shards' embeddings; rows that could not be read do not
            compete either.
        engine: Maps over shards.

    Raises:
        ValueError: If no row is left.
    """
    copies = [
        _Copy(rows, count, number, embeddings, folder, KEPT, mask)
        for number, ((rows, count), mask) in enumerate(zip(shard_files(pool), masks, strict=True))
    ]
    counts = list(engine.map(_write_copy, copies))
    if sum(counts) == sum(copy.count for copy in copies):
        raise ValueError("no candidate is left; see --where, --exclude and --dedup")
    write_json(folder / LEFT_OUT, counts)
    left = open_pool(pool, embeddings, kept=folder)
    write_json(folder / INDEX, distributions(list(engine.map(counts_of, left))))


@dataclass(frozen=True)
class _Copy:
    """A shard of which some rows may not compete.

    Args:
        rows: File of its rows.
        count: How many it has.
        number: Its number.
        embeddings: Folder of the embeddings, where there are some; rows of zeros do not compete.
        folder: Receives the copy.
        prefix: What its name begins with.
        mask: Bool ``[n]``: rows that compete; ``None``: all.
    """

    rows: Path
    count: int
    number: int
    embeddings: Path | None
    folder: Path
    prefix: str
    mask: np.ndarray | None = None


def _write_copy(shard: _Copy) -> int:
    """Copy the rows that compete if there are others, and return how many others."""
    mask = np.ones(shard.count, bool) if shard.mask is None else shard.mask
    matrix, name = None, embeddings_file(shard.number)
    if shard.embeddings is not None:
        matrix = open_array(shard.embeddings / name)
        mask = mask & np.asarray(matrix.any(axis=1))
    left_out = int((~mask).sum())
    if not 0 < left_out < shard.count:
        return left_out
    kept = Rows.open(shard.rows).take(np.flatnonzero(mask))
    batch = pa.record_batch([kept.ids, kept.texts, kept.domains], schema=SCHEMA)
    path = shard.folder / f"{shard.prefix}{rows_file(shard.number)}"
    with atomic_write(path) as part, pa.ipc.new_file(str(part), SCHEMA) as file:
        file.write_batch(batch)
    if matrix is not None:
        path = shard.folder / f"{shard.prefix}{name}"
        with atomic_write(path) as part, part.open("wb") as file:
            np.save(file, matrix[mask])
    return left_out
