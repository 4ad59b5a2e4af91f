"""Rows whose text an earlier row of the pool has, exactly or nearly."""

from __future__ import annotations

import unicodedata
from hashlib import blake2b
from pathlib import Path

import numpy as np

from gotd.data.left_out.ngrams import ngrams
from gotd.data.left_out.record import DUPLICATE, NEAR_DUPLICATE, ROWS_AT_ONCE, LeftOut
from gotd.data.rows import Rows
from gotd.engine.local import THIS_PROCESS, Engine
from gotd.storage.memmap import create_array
from gotd.storage.progress import tick

SHINGLE_WORDS, SIMILARITY = 5, 0.8
"""Near-copies share this part of their word 5-grams (Jaccard index), as estimated."""
BANDS, BAND_ROWS = 20, 6
"""Pairs of a similarity of .8 meet in a band with probability .998, of .5 with .27."""
SEED = 1
PART_ROWS = 2**20
"""Rows whose digests are compared at once, about 80 MiB of memory."""


def normalised(text: str) -> str:
    """Return a text in NFKC and lower case, with single blanks."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.lower().split())


def leave_out_duplicates(left_out: LeftOut, work: Path, engine: Engine = THIS_PROCESS) -> None:
    """Leave out rows whose normalised text a row before them has.

    Digests are on disk and are compared part by part, so that memory does not grow with the
    pool, but for a byte a row.

    Args:
        left_out: The pool.
        work: Folder for the digests, which the caller deletes.
        engine: Reads the texts, a shard in each task; their digests are compared here.
    """
    n, first = len(left_out.competes), 0
    digests = create_array(work / "digests.npy", (n, 2), "<u8")
    for found in engine.map(_digests, left_out.shards):
        digests[first : first + len(found)] = found
        first += len(found)
        tick(len(found))
    parts = -(-n // PART_ROWS)
    for part in range(parts):
        rows = _rows_of_part(digests, left_out.competes, part, parts)
        high, low = digests[rows].T
        order = np.lexsort((low, high))  # stable: equal texts stay in the order of the pool
        same = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
        starts = np.flatnonzero(np.r_[True, ~same][: len(order)])
        of = np.repeat(rows[order][starts], np.diff(np.r_[starts, len(order)]))
        repeats = np.flatnonzero(same) + 1
        left_out.add_repeats(rows[order][repeats], of[repeats], DUPLICATE)


def _rows_of_part(digests: np.ndarray, competes: np.ndarray, part: int, parts: int) -> np.ndarray:
    """Return the rows that compete and whose digest is of a part: equal digests are of one."""
    found = []
    for start in range(0, len(digests), PART_ROWS):
        stop = start + PART_ROWS
        own = (digests[start:stop, 0] % np.uint64(parts) == part) & competes[start:stop]
        found.append(start + np.flatnonzero(own))
    return np.concatenate(found)


def _digests(shard: Rows) -> np.ndarray:
    """Return ``[n, 2]`` uint64 digests of the normalised texts of a shard."""
    digests = np.empty((len(shard), 2), dtype="<u8")
    for start in range(0, len(shard), ROWS_AT_ONCE):
        texts = shard.texts[start : start + ROWS_AT_ONCE].to_pylist()
        block = (blake2b(normalised(t).encode(), digest_size=16).digest() for t in texts)
        digests[start : start + len(texts)] = np.frombuffer(b"".join(block), "<u8").reshape(-1, 2)
    return digests


def leave_out_near_duplicates(left_out: LeftOut, work: Path) -> None:
    """Leave out rows that nearly repeat a row before them, found by MinHash and LSH.

    Rows are compared that agree in a band of their signatures. Rows that are similar, also by
    way of others, are one group, of which the first row is left. Signatures are on disk;
    memory is a few numbers a row.

    Args:
        left_out: The pool.
        work: Folder for the signatures, which the caller deletes.

    Source: Broder (1997); Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, ch. 3.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.flatnonzero(left_out.competes)
    if not len(rows):
        return
    signatures = _signatures(left_out, work)
    pairs: list[np.ndarray] = []
    for band in range(BANDS):
        keys = _keys(signatures[:, band * BAND_ROWS : (band + 1) * BAND_ROWS][rows])
        order = np.argsort(keys, kind="stable")
        changes = np.r_[True, keys[order][1:] != keys[order][:-1]]
        starts = np.flatnonzero(changes)
        of = np.repeat(rows[order][starts], np.diff(np.r_[starts, len(order)]))
        found = np.column_stack([rows[order][~changes], of[~changes]])
        pairs.append(found[_are_similar(signatures, found)])
    row, of = np.concatenate(pairs).T
    n = len(left_out.competes)
    graph = coo_array((np.ones(len(row), dtype=np.int8), (row, of)), shape=(n, n))
    group = connected_components(graph, directed=False)[1]
    first = np.full(group.max() + 1, n)
    np.minimum.at(first, group[rows], rows)
    repeats = rows[first[group[rows]] < rows]
    left_out.add_repeats(repeats, first[group[repeats]], NEAR_DUPLICATE)


def _signatures(left_out: LeftOut, work: Path) -> np.ndarray:
    from rensa import RMinHash

    shape = len(left_out.competes), BANDS * BAND_ROWS
    signatures = create_array(work / "signatures.npy", shape, "<u4")
    for first, texts in left_out.texts():
        found = ngrams(texts, SHINGLE_WORDS)
        ends = np.searchsorted(found.text, np.arange(len(texts) + 1)).astype(np.uint64)
        digests = RMinHash.digest_matrix_from_flat_token_hashes(
            found.hashes, ends, shape[1], SEED
        ).to_rows()
        signatures[first : first + len(texts)] = digests
        # Without a word there is nothing to compare: no two such rows are alike.
        for row in np.flatnonzero(np.diff(ends.astype(np.int64)) == 0):
            signatures[first + row] = np.arange(shape[1]) + (first + row) * shape[1]
    return signatures


def _keys(band: np.ndarray) -> np.ndarray:
    keys = np.zeros(len(band), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in band.T:
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64) + np.uint64(1)
    return keys


def _are_similar(signatures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    similar = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), 1 << 14):
        one, other = pairs[start : start + (1 << 14)].T
        equal = (signatures[one] == signatures[other]).mean(axis=1)
        similar[start : start + (1 << 14)] = equal >= SIMILARITY
    return similar
