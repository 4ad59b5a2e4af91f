"""Embeddings of a pool on disk: a matrix beside each shard, written range by range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from gotd.data.pool import embeddings_file
from gotd.embedding.embedders import Embedder, TransformerEmbedder
from gotd.embedding.token_processes import TokenProcesses, process_count
from gotd.embedding.tokens import TextRange
from gotd.engine.local import Engine
from gotd.storage.files import flush
from gotd.storage.memmap import create_array, open_array

ROWS_PER_RANGE = 4096
"""Rows embedded between two resume markers; batches never cross a range."""


@dataclass(frozen=True)
class _Range:
    """Rows of one shard that are embedded together."""

    texts: TextRange
    matrix: Path
    marker: Path


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
        WorkerKilled: If a process that tokenises for a GPU died.
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
                texts = TextRange(rows, start, stop, length_chars)
                ranges.append(_Range(texts, matrix, marker))
    yield from engine.map_with(partial(_load, load, len(ranges)), _embed_range, ranges)


class _OnGpu:
    """An embedder whose texts are tokenised in other processes; see `SeveralCalls`.

    Args:
        embedder: Runs on the GPU, for one range at a time.
        processes: Tokenise the next ranges.
    """

    def __init__(self, embedder: TransformerEmbedder, processes: TokenProcesses) -> None:
        self._embedder, self._processes = embedder, processes
        self._turn, self._closed = Lock(), False

    @property
    def calls_at_once(self) -> int:
        """Return the number of ranges in work: one on the device, one that is written."""
        return len(self._processes) + 2

    def embed_range(self, texts: TextRange) -> np.ndarray:
        tokens = self._processes(texts)
        with self._turn:
            if self._closed:
                raise CancelledError
            return self._embedder.embed_tokens(tokens)

    def close(self) -> None:
        """End the processes; calls that wait for them or for the device end with an error."""
        self._closed = True
        self._processes.close()


def _load(load: Callable[[], Embedder], ranges: int) -> Embedder | _OnGpu:
    """Load the embedder, with processes that tokenise for it if it runs on a GPU."""
    embedder = load()
    if isinstance(embedder, TransformerEmbedder):
        count = process_count(embedder.device, ranges)
        if count:
            return _OnGpu(embedder, TokenProcesses(embedder.tokeniser, count))
    return embedder


def _embed_range(embedder: Embedder | _OnGpu, part: _Range) -> int:
    texts = part.texts
    if isinstance(embedder, _OnGpu):
        matrix = embedder.embed_range(texts)
    else:
        matrix = embedder.embed(texts.read())
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        name = texts.id_of(int(np.argmax(bad)))
        raise ValueError(f"the embedding of row {name!r} is not finite; repair or drop its text")
    open_array(part.matrix, "r+").write_rows(texts.start, matrix)
    flush(part.matrix)
    part.marker.touch()
    return len(texts)
