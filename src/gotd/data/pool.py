"""A pool larger than memory: rows cut into shards on disk.

A shard is ``rows-00000.arrow``, one uncompressed Arrow batch of ``id``, ``text`` and
``domain`` that is memory-mapped when it is opened. Embeddings and scores are artifacts of
their own, with the same number for each shard, so every selector works out of core.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import SCHEMA, Part, repeated_id
from gotd.data.chunking import fixed_chunks
from gotd.data.rows import Rows
from gotd.data.unique_ids import repeated
from gotd.storage.files import atomic_write, write_json
from gotd.storage.memmap import open_array

Unit = Literal["whole", "fixed"]
Tables = Iterable[pa.Table]

SHARD_ROWS = 1 << 15
SHARD_BYTES = 128 * 2**20
"""A shard ends at so many rows or bytes of text, whichever comes first."""

INDEX = "shards.json"
UNREADABLE = "unreadable.json"


def write_pool(
    parts: Sequence[Part],
    folder: Path,
    work: Path,
    *,
    unit: Unit,
    length_chars: int,
    tick: Callable[[int], None],
    separator: str = " ",
) -> None:
    """Cut rows into shards, resuming at the shard.

    Args:
        parts: Files, data sets or tables, in order.
        folder: Receives ``rows-00000.arrow`` … and ``shards.json``.
        work: Receives a marker per shard; removed by the caller when all is done.
        unit: ``whole`` leaves every row as it is; ``fixed`` cuts and joins the rows of a
            part into chunks (`fixed_chunks`), which never cross a part. Rows without a
            visible character are left out.
        length_chars: Length of a ``fixed`` chunk.
        tick: Called with the number of rows that were written.
        separator: Put between the texts that ``fixed`` joins.

    Raises:
        ValueError: If a part cannot be read, no row has a visible character, or an id
            occurs twice; names file and row.
    """
    writer = _Writer(folder, work, tick)
    cut: Callable[[Tables], Tables] = iter
    if unit == "fixed":
        cut = partial(fixed_chunks, length_chars=length_chars, separator=separator)
    for number, part in enumerate(parts):
        writer.add_part(number, part, cut)
    writer.finish_shard()
    shards = [Rows.open(folder / rows_file(number)) for number in range(writer.written)]
    if not shards:
        labels = ", ".join(part.label for part in parts[:3]) or "the source, which has no parts,"
        raise ValueError(f"no row of {labels} has a visible character; give some text")
    counts = [len(shard) for shard in shards]
    name = repeated(lambda number: shards[number].ids, counts)
    if name is not None:
        # The id of a chunk is its document's and its number.
        raise repeated_id(parts, name.rpartition("#")[0] if unit == "fixed" else name)
    index = {"rows": counts, "blank_rows": writer.blank, **_distributions(shards)}
    write_json(folder / INDEX, index)


@dataclass(frozen=True)
class _Progress:
    """How far the parts had been read when a shard was full.

    Args:
        part: Number of the part of the shard's last row.
        taken: Rows of that part in shards so far.
        rows: Rows in the shard.
        blank: Rows of the parts before it that hold no visible character, so left out.
    """

    part: int = 0
    taken: int = 0
    rows: int = 0
    blank: int = 0


class _Writer:
    """Collects rows and writes a shard whenever one is full."""

    def __init__(self, folder: Path, work: Path, tick: Callable[[int], None]) -> None:
        work.mkdir(parents=True, exist_ok=True)
        markers = sorted(work.glob("rows-*.arrow"))
        done = [_Progress(**json.loads(marker.read_text("utf-8"))) for marker in markers]
        tick(sum(shard.rows for shard in done))
        self._folder, self._work, self._tick = folder, work, tick
        self._resume = done[-1] if done else _Progress()
        self.written, self.blank = len(done), self._resume.blank
        self._held: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._part = self._taken = self._blank_before = 0

    def add_part(self, number: int, part: Part, cut: Callable[[Tables], Tables]) -> None:
        """Add the rows of a part that are in no shard yet."""
        if number < self._resume.part:
            return
        skip = self._resume.taken if number == self._resume.part else 0
        self._part, self._taken, self._blank_before = number, 0, self.blank
        for table in cut(self._visible(part.pieces())):
            skipped = min(table.num_rows, max(0, skip - self._taken))
            self._taken += skipped
            self._add(table.slice(skipped))

    def _visible(self, pieces: Tables) -> Iterator[pa.Table]:
        """Filter out blank rows and count them."""
        for table in pieces:
            visible = table.filter(pc.not_equal(pc.utf8_trim_whitespace(table["text"]), ""))
            self.blank += table.num_rows - visible.num_rows
            yield visible

    def _add(self, table: pa.Table) -> None:
        """Add rows; where a shard ends does not depend on how they are grouped."""
        while table.num_rows:
            sizes = np.cumsum(pc.binary_length(table["text"]).to_numpy().astype(np.int64))
            fitting = int(np.searchsorted(self._bytes + sizes, SHARD_BYTES)) + 1
            count = min(table.num_rows, SHARD_ROWS - self._rows, fitting)
            self._held.append(table.slice(0, count))
            self._rows, self._bytes = self._rows + count, self._bytes + int(sizes[count - 1])
            self._taken += count
            table = table.slice(count)
            if self._rows >= SHARD_ROWS or self._bytes >= SHARD_BYTES:
                self.finish_shard()

    def finish_shard(self) -> None:
        """Write the rows that are held as a shard."""
        if not self._held:
            return
        name = rows_file(self.written)
        rows = pa.concat_tables(self._held).cast(SCHEMA).combine_chunks()
        with atomic_write(self._folder / name) as part, pa.ipc.new_file(str(part), SCHEMA) as file:
            file.write_table(rows, max_chunksize=rows.num_rows)
        progress = _Progress(self._part, self._taken, self._rows, self._blank_before)
        write_json(self._work / name, asdict(progress))
        self._tick(self._rows)
        self.written += 1
        self._held, self._rows, self._bytes = [], 0, 0


def _distributions(shards: Sequence[Rows]) -> dict[str, Any]:
    """Count domains and lengths once, so that no report reads the full pool again."""
    domains: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    for shard in shards:
        domains.update(counted(shard.domains))
        lengths.update(counted(pc.utf8_length(shard.texts)))
    return {
        "domains": dict(sorted(domains.items())),
        "length_chars": [[length, count] for length, count in sorted(lengths.items())],
    }


def counted(values: Any) -> dict[Any, int]:
    """Count equal values of an Arrow array."""
    return {row["values"].as_py(): row["counts"].as_py() for row in pc.value_counts(values)}


# Reading --------------------------------------------------------------------------------


def rows_file(number: int) -> str:
    """Return the name of the file of a shard's rows."""
    return f"rows-{number:05d}.arrow"


def embeddings_file(number: int) -> str:
    """Return the name of the file of a shard's embeddings."""
    return f"embeddings-{number:05d}.npy"


def readable_file(name: str) -> str:
    """Return the name of the copy of a file without the rows that the encoder cannot read."""
    return f"readable-{name}"


def pool_facts(pool: Path) -> dict[str, Any]:
    """Read what was counted when a pool was written.

    Returns:
        ``rows`` (per shard), ``blank_rows``, ``domains`` (rows of each) and
        ``length_chars`` (pairs of length and rows).
    """
    return json.loads((pool / INDEX).read_text("utf-8"))


def shard_files(pool: Path) -> list[tuple[Path, int]]:
    """List a pool's Arrow files and the number of rows in each."""
    counts = pool_facts(pool)["rows"]
    return [(pool / rows_file(number), count) for number, count in enumerate(counts)]


def unreadable_rows(embeddings: Path) -> list[int] | None:
    """Return how many rows of each shard the encoder could not read; ``None``: it read all."""
    path = embeddings / UNREADABLE
    return json.loads(path.read_text("utf-8")) if path.exists() else None


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
    counts = []
    for number, (rows, count) in enumerate(shard_files(pool)):
        matrix = open_array(embeddings / embeddings_file(number))
        readable = np.asarray(matrix.any(axis=1))
        counts.append(count - int(readable.sum()))
        if 0 < counts[-1] < count:
            kept = Rows.open(rows).take(np.flatnonzero(readable))
            batch = pa.record_batch([kept.ids, kept.texts, kept.domains], schema=SCHEMA)
            path = embeddings / readable_file(rows_file(number))
            with atomic_write(path) as part, pa.ipc.new_file(str(part), SCHEMA) as file:
                file.write_batch(batch)
            with atomic_write(embeddings / readable_file(embeddings_file(number))) as part:
                with part.open("wb") as file:
                    np.save(file, matrix[readable])
    if not any(counts):
        return
    if sum(counts) == sum(pool_facts(pool)["rows"]):
        raise ValueError(
            f"the encoder can read no row of {label}: none holds a word that it knows; give "
            "texts with words or another encoder"
        )
    write_json(embeddings / UNREADABLE, counts)


def open_pool(
    pool: Path, embeddings: Path | None = None, only_readable: bool = False
) -> list[Rows]:
    """Open a pool's shards as memory maps.

    Args:
        pool: Folder that `write_pool` filled.
        embeddings: Folder with the shards' embeddings.
        only_readable: Leave out the rows that the encoder could not read.
    """
    unreadable = unreadable_rows(embeddings) if embeddings and only_readable else None
    shards = []
    for number, (rows, count) in enumerate(shard_files(pool)):
        left_out = 0 if unreadable is None else unreadable[number]
        matrix = None if embeddings is None else embeddings / embeddings_file(number)
        if left_out and matrix is not None:
            rows = matrix.with_name(readable_file(rows.name))
            matrix = matrix.with_name(readable_file(matrix.name))
        if left_out < count:
            shards.append(Rows.open(rows, matrix))
    return shards


def as_one(shards: Sequence[Rows]) -> Rows:
    """Join shards in memory, for a target, which every selector reads in full."""
    if len(shards) == 1:
        return shards[0]
    embeddings = [shard.embeddings for shard in shards if shard.embeddings is not None]
    return Rows(
        ids=pa.concat_arrays([shard.ids for shard in shards]),
        texts=pa.concat_arrays([shard.texts for shard in shards]),
        domains=pa.concat_arrays([s.domains for s in shards if s.domains is not None]),
        embeddings=np.concatenate(embeddings) if embeddings else None,
    )
