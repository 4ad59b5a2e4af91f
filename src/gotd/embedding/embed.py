"""Embeddings of a pool on disk: a matrix beside each shard, written range by range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.pool import embeddings_file
from gotd.embedding.embedders import Embedder
from gotd.engine.local import Engine
from gotd.storage.files import flush
from gotd.storage.memmap import create_array, open_array

ROWS_PER_RANGE = 4096
"""Rows embedded between two resume markers; batches never cross a range."""


@dataclass(frozen=True)
class _Range:
    """Rows of one shard that are embedded together."""

    rows: Path
    matrix: Path
    marker: Path
    start: int
    stop: int
    length_chars: int | None


def embed_shards(
    load: Callable[[], Embedder],
    width: int,
    shards: Sequence[tuple[Path, int]],
    folder: Path,
    work: Path,
    engine: Engine,
    length_chars: int | None = None,
) -> Iterator[int]:
    """Embed a pool on disk, resuming at the row range.

    Args:
        load: Loads the embedder, once per worker.
        width: Width of its rows.
        shards: Arrow file and number of rows of each shard.
        folder: Receives ``embeddings-00000.npy`` … (float32 ``[n, width]``).
        work: Receives a marker per range, once its rows are on the disk.
        engine: Maps over row ranges.
        length_chars: Characters of each text that are read, since texts of very different
            length are compared badly; ``None``: all.

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
            create_array(matrix, (count, width), "<f4")
        for start in range(0, count, ROWS_PER_RANGE):
            stop = min(start + ROWS_PER_RANGE, count)
            marker = work / f"{matrix.stem}-{start:012d}-{stop:012d}"
            if marker.exists():
                yield stop - start
            else:
                ranges.append(_Range(rows, matrix, marker, start, stop, length_chars))
    yield from engine.map_with(load, _embed_range, ranges)


def _embed_range(embedder: Embedder, part: _Range) -> int:
    with pa.memory_map(str(part.rows)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    rows = batch.slice(part.start, part.stop - part.start)
    texts = rows["text"]
    if part.length_chars is not None:
        texts = pc.utf8_slice_codeunits(texts, start=0, stop=part.length_chars)
    matrix = embedder.embed(texts.to_pylist())
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        name = rows["id"][int(np.argmax(bad))].as_py()
        raise ValueError(f"the embedding of row {name!r} is not finite; repair or drop its text")
    open_array(part.matrix, "r+").write_rows(part.start, matrix)
    flush(part.matrix)
    part.marker.touch()
    return part.stop - part.start
