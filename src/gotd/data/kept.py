"""Copies of the rows of a pool that compete, where a shard has others.

A row may be left out because the encoder cannot read it, or for one of the reasons of
`gotd.data.left_out`. Selectors open the copies, so nothing is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    distributions,
    embeddings_file,
    open_pool,
    pool_facts,
    rows_file,
    shard_files,
)
from gotd.data.rows import Rows
from gotd.storage.files import atomic_write, write_json
from gotd.storage.memmap import open_array


def write_readable(pool: Path, embeddings: Path, label: str) -> None:
    """Write the rows that the encoder could read, for each shard that has others.

    A row that it could not read has an embedding of zeros. It must not compete: to a cost
    between unit vectors it seems nearer than most rows. A shard with such rows gets a copy
    without them, so that every selector finds readable rows only and nothing is in memory.

    Args:
        pool: Folder that `write_pool` filled.
        embeddings: Folder with the shards' embeddings; receives the copies, and
            ``unreadable.json`` with the unreadable rows of each shard.
        label: Name of the pool, for the message.

    Raises:
        ValueError: If no row of the pool could be read.
    """
    files = [embeddings / embeddings_file(number) for number, _ in enumerate(shard_files(pool))]
    masks = [np.asarray(open_array(file).any(axis=1)) for file in files]
    counts = _write_copies(pool, embeddings, masks, embeddings, READABLE)
    if not any(counts):
        return
    if sum(counts) == sum(pool_facts(pool)["rows"]):
        raise ValueError(
            f"the encoder can read no row of {label}: none holds a word that it knows; give "
            "texts with words or another encoder"
        )
    write_json(embeddings / UNREADABLE, counts)


def write_kept(
    pool: Path, folder: Path, masks: Sequence[np.ndarray], embeddings: Path | None = None
) -> None:
    """Write the rows that compete, for each shard that has others.

    Args:
        pool: Folder that `write_pool` filled.
        folder: Receives the copies, ``left-out.json`` with the rows of each shard that are
            left out, and ``shards.json`` with the counts of the rows that are left.
        masks: For each shard bool ``[n]``: which rows compete.
        embeddings: Folder with the shards' embeddings; rows that could not be read do not
            compete either.

    Raises:
        ValueError: If no row is left.
    """
    if embeddings is not None:
        matrices = (open_array(embeddings / embeddings_file(n)) for n in range(len(masks)))
        masks = [m & np.asarray(x.any(axis=1)) for m, x in zip(masks, matrices, strict=True)]
    if not any(mask.any() for mask in masks):
        raise ValueError("no candidate is left; see --where, --exclude and --dedup")
    counts = _write_copies(pool, folder, masks, embeddings, KEPT)
    write_json(folder / LEFT_OUT, counts)
    shards = open_pool(pool, embeddings, kept=folder)
    write_json(folder / INDEX, {"rows": [len(shard) for shard in shards], **distributions(shards)})


def _write_copies(
    pool: Path,
    folder: Path,
    masks: Sequence[np.ndarray],
    embeddings: Path | None,
    prefix: str,
) -> list[int]:
    """Copy the marked rows of each shard that has others; return how many each has."""
    counts = []
    for number, ((rows, _), mask) in enumerate(zip(shard_files(pool), masks, strict=True)):
        counts.append(int((~mask).sum()))
        if not 0 < counts[-1] < len(mask):
            continue
        kept = Rows.open(rows).take(np.flatnonzero(mask))
        batch = pa.record_batch([kept.ids, kept.texts, kept.domains], schema=SCHEMA)
        path = folder / f"{prefix}{rows_file(number)}"
        with atomic_write(path) as part, pa.ipc.new_file(str(part), SCHEMA) as file:
            file.write_batch(batch)
        if embeddings is not None:
            path = folder / f"{prefix}{embeddings_file(number)}"
            matrix = open_array(embeddings / embeddings_file(number))
            with atomic_write(path) as part, part.open("wb") as file:
                np.save(file, matrix[mask])
    return counts
