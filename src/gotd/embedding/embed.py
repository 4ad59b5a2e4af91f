"""Turn chunks into a memory-mapped matrix, one row per chunk, known by its id.

Either the whole of a task's or a pool's chunks into one folder, or a pool on disk into a
matrix beside each of its shards; both resume at the range of rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.pool import embeddings_file
from gotd.embedding.embedders import Embedder
from gotd.engine.local import Engine
from gotd.storage.memmap import allocate, open_array

log = logging.getLogger(__name__)

ROWS_PER_RANGE = 4096
"""Rows embedded between two resume markers; batches never cross a range."""
TOLD_EVERY_S = 60.0
"""Seconds between two lines on how far a step is; a small pool is done before the first."""

MATRIX, IDS = "embeddings.npy", "ids.parquet"


def write_embeddings(
    embedder: Embedder, chunks: pa.Table, folder: Path, work: Path, engine: Engine
) -> None:
    """Embed every chunk into ``folder``, resuming at the row range.

    Writes ``embeddings.npy`` (float32 ``[n, d]``) and ``ids.parquet`` (``[n]``). A
    range is marked in ``work`` only after its rows are on the disk.

    Args:
        embedder: Maps texts to rows.
        chunks: Columns ``id`` and ``text``.
        folder: Receives the two files.
        work: Receives the markers; dropped by the caller when all is done.
        engine: Maps over row ranges.

    Raises:
        ValueError: If a row of the result is not finite; names the chunk.
    """
    work.mkdir(parents=True, exist_ok=True)
    shape = (chunks.num_rows, embedder.dimension)
    path = folder / MATRIX
    if not path.exists():
        for marker in work.glob("range-*"):
            marker.unlink()
        allocate(path, shape, "<f4")
    matrix = np.lib.format.open_memmap(path, mode="r+")

    def embed_range(start: int) -> None:
        stop = min(start + ROWS_PER_RANGE, shape[0])
        marker = work / f"range-{start:012d}-{stop:012d}"
        if marker.exists():
            return
        rows = embedder.embed(chunks["text"].slice(start, stop - start).to_pylist())
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            name = chunks["id"][start + int(np.argmax(bad))].as_py()
            raise ValueError(
                f"the embedding of chunk {name!r} is not finite; drop or mend its text"
            )
        matrix[start:stop] = rows
        matrix.flush()
        marker.touch()

    told = time.monotonic()
    for done, _ in enumerate(engine.map(embed_range, range(0, shape[0], ROWS_PER_RANGE)), 1):
        if time.monotonic() - told > TOLD_EVERY_S:
            log.info("embedded %d of %d chunks", min(done * ROWS_PER_RANGE, shape[0]), shape[0])
            told = time.monotonic()
    pq.write_table(chunks.select(["id"]), folder / IDS, compression="zstd")


@dataclass(frozen=True)
class _Range:
    """Rows of one shard that are embedded together."""

    rows: Path
    matrix: Path
    marker: Path
    start: int
    stop: int
    length_chars: int


def embed_shards(
    make: Callable[[], Embedder],
    dimension: int,
    shards: Sequence[tuple[Path, int]],
    folder: Path,
    work: Path,
    engine: Engine,
    length_chars: int,
) -> Iterator[int]:
    """Embed a pool on disk, a matrix beside each shard, resuming at the row range.

    Args:
        make: Makes the embedder, once per worker.
        dimension: Its width.
        shards: Arrow file and number of rows of each shard.
        folder: Receives ``embeddings-00000.npy`` … (float32 ``[n, dimension]``).
        work: Receives the markers; dropped by the caller when all is done.
        engine: Maps over row ranges.
        length_chars: Characters of each text that are read: texts of very different
            length are compared badly.

    Yields:
        The number of rows of each range, once they are on the disk.

    Raises:
        ValueError: If a row of the result is not finite; names the row.
    """
    work.mkdir(parents=True, exist_ok=True)
    ranges = []
    for number, (rows, count) in enumerate(shards):
        matrix = folder / embeddings_file(number)
        if not matrix.exists():
            for marker in work.glob(f"{matrix.stem}-*"):
                marker.unlink()
            allocate(matrix, (count, dimension), "<f4")
        for start in range(0, count, ROWS_PER_RANGE):
            stop = min(start + ROWS_PER_RANGE, count)
            marker = work / f"{matrix.stem}-{start:012d}-{stop:012d}"
            if marker.exists():
                yield stop - start
            else:
                ranges.append(_Range(rows, matrix, marker, start, stop, length_chars))
    yield from engine.map_with(make, _embed_range, ranges)


def _embed_range(embedder: Embedder, part: _Range) -> int:
    with pa.memory_map(str(part.rows)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    rows = batch.slice(part.start, part.stop - part.start)
    texts = pc.utf8_slice_codeunits(rows["text"], start=0, stop=part.length_chars)
    matrix = embedder.embed(texts.to_pylist())
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        name = rows["id"][int(np.argmax(bad))].as_py()
        raise ValueError(f"the embedding of row {name!r} is not finite; drop or mend its text")
    stored = open_array(part.matrix, "r+")
    stored[part.start : part.stop] = matrix
    stored.flush()
    part.marker.touch()
    return part.stop - part.start


def read_embeddings(folder: Path, ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Map the matrix of an embeddings folder, checked to belong to ``ids``.

    Args:
        folder: Written by `write_embeddings`.
        ids: ``[n]`` the ids the caller believes the rows have, in order.

    Returns:
        float32 ``[n, d]`` memory map, read-only.

    Raises:
        ValueError: If the ids differ: rows are joined by id, never by position.
    """
    stored = pq.read_table(folder / IDS)["id"].combine_chunks()
    expected = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if not stored.equals(expected):
        raise ValueError(
            f"the embeddings in {folder} are of other rows than the ones given; "
            "embed these rows again"
        )
    return np.load(folder / MATRIX, mmap_mode="r")
