"""A pool larger than memory: rows cut into shards on disk.

A shard is ``rows-00000.arrow``, one uncompressed Arrow batch of ``id``, ``text`` and
``domain`` that is memory-mapped when it is opened. Embeddings and scores are artifacts of
their own, with the same number for each shard, so every selector works out of core.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.config.schemas import Chunking
from gotd.data.base import SCHEMA, Part, repeated_id
from gotd.data.cutting import Cutter
from gotd.data.rows import Rows
from gotd.data.unique_ids import repeated
from gotd.storage.artifacts import WORK
from gotd.storage.files import atomic_write, write_json
from gotd.storage.progress import tick

SHARD_ROWS = 1 << 15
SHARD_BYTES = 128 * 2**20
"""A shard ends at so many rows or bytes of text, whichever comes first."""

INDEX = "shards.json"
UNREADABLE, LEFT_OUT = "unreadable.json", "left-out.json"
READABLE, KEPT = "readable-", "kept-"
"""What the names of copies begin with that have some rows of a shard only."""


def write_pool(
    parts: Sequence[Part], folder: Path, chunking: Chunking, separator: str = " "
) -> None:
    """Cut rows into shards, resuming at the shard; rows that are written count as progress.

    Args:
        parts: Files, data sets or tables, in order.
        folder: Receives ``rows-00000.arrow`` … and ``shards.json``, and in its `WORK` a marker
            per shard, removed by the caller when all is done.
        chunking: ``whole`` leaves every row as it is; ``fixed`` cuts and joins the rows of a
            part into chunks (`fixed_chunks`), which never cross a part. Rows without a
            visible character are left out, and counted. So are texts of fewer than
            ``min_chars`` characters, white space at their ends aside, that ``fixed`` cannot
            join.
        separator: Put between the texts that ``fixed`` joins.

    Raises:
        ValueError: If a part cannot be read, no row has a visible character, all are too
            short, or an id occurs twice; names file and row.
    """
    cutter = Cutter(chunking, separator)
    writer = _Writer(folder, cutter)
    for number, part in enumerate(parts):
        writer.add_part(number, part)
    writer.finish_shard()
    check_not_empty(parts, writer.written, cutter.short, chunking)
    shards = [Rows.open(folder / rows_file(number)) for number in range(writer.written)]
    name = repeated([shard.ids for shard in shards])
    if name is not None:
        raise repeated_chunk(parts, name, chunking)
    write_index(folder, cutter, [counts_of(shard) for shard in shards])


def check_not_empty(parts: Sequence[Part], shards: int, short: int, chunking: Chunking) -> None:
    """Raise a ValueError if a pool has no shard, with the reason; ``short`` texts were short."""
    if shards:
        return
    labels = ", ".join(part.label for part in parts[:3]) or "the source, which has no parts,"
    if short:
        least = chunking.min_chars
        raise ValueError(f"no text of {labels} has {least} characters; lower min_chars")
    raise ValueError(f"no row of {labels} has a visible character; give some text")


def repeated_chunk(parts: Sequence[Part], name: str, chunking: Chunking) -> ValueError:
    """Return the error for the id of a row of the pool that occurs twice."""
    # The id of a chunk is its document's and its number.
    return repeated_id(parts, name.rpartition("#")[0] if chunking.unit == "fixed" else name)


def write_index(folder: Path, cutter: Cutter, counts: Sequence[Mapping[str, Any]]) -> None:
    """Write what `pool_facts` reads.

    Args:
        folder: Of the pool.
        cutter: What has counted the rows that are left out.
        counts: What `counts_of` returns of each shard.
    """
    facts = {**distributions(counts), "blank_rows": cutter.blank}
    if cutter.chunking.min_chars:
        facts["short_rows"] = cutter.short
    write_json(folder / INDEX, facts)


@dataclass
class _Progress:
    """How far the parts are read; a shard's marker has what it was when the shard was full.

    Args:
        part: Number of the part of the last row.
        taken: Rows of that part so far.
        rows: Rows in the shard.
        blank: Rows of the parts before it that hold no visible character, so left out.
        short: Texts of the parts before it that are too short, so left out.
    """

    part: int = 0
    taken: int = 0
    rows: int = 0
    blank: int = 0
    short: int = 0


class _Writer:
    """Collects rows and writes a shard whenever one is full."""

    def __init__(self, folder: Path, cutter: Cutter) -> None:
        self._folder, self._work = folder, folder / WORK
        self._work.mkdir(parents=True, exist_ok=True)
        markers = sorted(self._work.glob("rows-*.arrow"))
        done = [_Progress(**json.loads(marker.read_text("utf-8"))) for marker in markers]
        tick(sum(shard.rows for shard in done))
        self._resume = done[-1] if done else _Progress()
        self.written, self._cutter = len(done), cutter
        cutter.blank, cutter.short = self._resume.blank, self._resume.short
        self._now, self._bytes = _Progress(), 0
        self._held: list[pa.Table] = []

    def add_part(self, number: int, part: Part) -> None:
        """Add the rows of a part that are in no shard yet."""
        if number < self._resume.part:
            return
        skip = self._resume.taken if number == self._resume.part else 0
        self._now = _Progress(number, 0, self._now.rows, self._cutter.blank, self._cutter.short)
        for table in self._cutter.cut(part.pieces()):
            skipped = min(table.num_rows, max(0, skip - self._now.taken))
            self._now.taken += skipped
            self._add(table.slice(skipped))

    def _add(self, table: pa.Table) -> None:
        """Add rows; where a shard ends does not depend on how they are grouped."""
        while table.num_rows:
            sizes = np.cumsum(pc.binary_length(table["text"]).to_numpy().astype(np.int64))
            fitting = int(np.searchsorted(self._bytes + sizes, SHARD_BYTES)) + 1
            count = min(table.num_rows, SHARD_ROWS - self._now.rows, fitting)
            self._held.append(table.slice(0, count))
            self._now.rows += count
            self._now.taken += count
            self._bytes += int(sizes[count - 1])
            table = table.slice(count)
            if self._now.rows >= SHARD_ROWS or self._bytes >= SHARD_BYTES:
                self.finish_shard()

    def finish_shard(self) -> None:
        """Write the rows that are held as a shard."""
        if not self._held:
            return
        name = rows_file(self.written)
        write_shard(self._folder / name, self._held)
        write_json(self._work / name, asdict(self._now))
        tick(self._now.rows)
        self.written += 1
        self._held, self._now.rows, self._bytes = [], 0, 0


def write_shard(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write tables to the file of a shard, as one batch."""
    rows = pa.concat_tables(tables).cast(SCHEMA).combine_chunks()
    with atomic_write(path) as part, pa.ipc.new_file(str(part), SCHEMA) as file:
        file.write_table(rows, max_chunksize=rows.num_rows)


def counts_of(shard: Rows) -> dict[str, Any]:
    """Count domains and lengths once, so that no report reads the full pool again.

    Returns:
        ``rows``, and pairs of ``domains`` and ``lengths`` (in characters) with their rows.
    """
    return {
        "rows": len(shard),
        "domains": list(counted(shard.domains).items()),
        "lengths": list(counted(pc.utf8_length(shard.texts)).items()),
    }


def distributions(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the rows of each shard, and the domains and lengths of all.

    Args:
        counts: What `counts_of` returns of each shard.
    """
    domains: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    for shard in counts:
        domains.update(dict(shard["domains"]))
        lengths.update(dict(shard["lengths"]))
    return {
        "rows": [shard["rows"] for shard in counts],
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


def pool_facts(pool: Path) -> dict[str, Any]:
    """Read what was counted when a pool was written.

    Returns:
        ``rows`` (per shard), ``blank_rows``, ``domains`` (rows of each), ``length_chars``
        (pairs of length and rows) and, with a least length, ``short_rows``.
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


def open_pool(
    pool: Path,
    embeddings: Path | None = None,
    only_readable: bool = False,
    kept: Path | None = None,
) -> list[Rows]:
    """Open a pool's shards as memory maps.

    Args:
        pool: Folder that `write_pool` filled.
        embeddings: Folder with the shards' embeddings.
        only_readable: Leave out the rows that the encoder could not read.
        kept: Folder that `write_kept` filled: leave out the rows that it leaves out.
    """
    left_out = unreadable_rows(embeddings) if embeddings and only_readable else None
    copies, prefix = embeddings, READABLE
    if kept is not None:
        left_out, copies, prefix = json.loads((kept / LEFT_OUT).read_text("utf-8")), kept, KEPT
    shards = []
    for number, (rows, count) in enumerate(shard_files(pool)):
        missing = 0 if left_out is None else left_out[number]
        matrix = None if embeddings is None else embeddings / embeddings_file(number)
        if missing and copies is not None:
            rows = copies / f"{prefix}{rows.name}"
            matrix = None if matrix is None else copies / f"{prefix}{matrix.name}"
        if missing < count:
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
