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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.config.schemas import Chunking
from gotd.data.base import SCHEMA, Part, repeated_id
from gotd.data.chunking import fixed_chunks
from gotd.data.rows import Rows
from gotd.data.unique_ids import repeated
from gotd.storage.artifacts import WORK
from gotd.storage.files import atomic_write, write_json
from gotd.storage.progress import tick

Tables = Iterable[pa.Table]

SHARD_ROWS = 1 << 15
SHARD_BYTES = 128 * 2**20
"""A shard ends at so many rows or bytes of text, whichever comes first."""

INDEX = "shards.json"


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
            visible character are left out.
        separator: Put between the texts that ``fixed`` joins.

    Raises:
        ValueError: If a part cannot be read, no row has a visible character, or an id
            occurs twice; names file and row.
    """
    writer = _Writer(folder)
    fixed = chunking.unit == "fixed"
    cut: Callable[[Tables], Tables] = iter
    if fixed:
        cut = partial(fixed_chunks, length_chars=chunking.length_chars, separator=separator)
    for number, part in enumerate(parts):
        writer.add_part(number, part, cut)
    writer.finish_shard()
    shards = [Rows.open(folder / rows_file(number)) for number in range(writer.written)]
    if not shards:
        labels = ", ".join(part.label for part in parts[:3]) or "the source, which has no parts,"
        raise ValueError(f"no row of {labels} has a visible character; give some text")
    name = repeated([shard.ids for shard in shards])
    if name is not None:
        # The id of a chunk is its document's and its number.
        raise repeated_id(parts, name.rpartition("#")[0] if fixed else name)
    counts = {"rows": [len(shard) for shard in shards], "blank_rows": writer.blank}
    write_json(folder / INDEX, {**counts, **_distributions(shards)})


@dataclass
class _Progress:
    """How far the parts are read; a shard's marker has what it was when the shard was full.

    Args:
        part: Number of the part of the last row.
        taken: Rows of that part so far.
        rows: Rows in the shard.
        blank: Rows of the parts before it that hold no visible character, so left out.
    """

    part: int = 0
    taken: int = 0
    rows: int = 0
    blank: int = 0


class _Writer:
    """Collects rows and writes a shard whenever one is full."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._work = folder, folder / WORK
        self._work.mkdir(parents=True, exist_ok=True)
        markers = sorted(self._work.glob("rows-*.arrow"))
        done = [_Progress(**json.loads(marker.read_text("utf-8"))) for marker in markers]
        tick(sum(shard.rows for shard in done))
        self._resume = done[-1] if done else _Progress()
        self.written, self.blank = len(done), self._resume.blank
        self._now, self._bytes = _Progress(), 0
        self._held: list[pa.Table] = []

    def add_part(self, number: int, part: Part, cut: Callable[[Tables], Tables]) -> None:
        """Add the rows of a part that are in no shard yet."""
        if number < self._resume.part:
            return
        skip = self._resume.taken if number == self._resume.part else 0
        self._now = _Progress(number, 0, self._now.rows, self.blank)
        for table in cut(self._visible(part.pieces())):
            skipped = min(table.num_rows, max(0, skip - self._now.taken))
            self._now.taken += skipped
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
        rows = pa.concat_tables(self._held).cast(SCHEMA).combine_chunks()
        with atomic_write(self._folder / name) as part, pa.ipc.new_file(str(part), SCHEMA) as file:
            file.write_table(rows, max_chunksize=rows.num_rows)
        write_json(self._work / name, asdict(self._now))
        tick(self._now.rows)
        self.written += 1
        self._held, self._now.rows, self._bytes = [], 0, 0


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


def open_pool(pool: Path, embeddings: Path | None = None) -> list[Rows]:
    """Open a pool's shards as memory maps.

    Args:
        pool: Folder that `write_pool` filled.
        embeddings: Folder with the shards' embeddings.
    """
    return [
        Rows.open(rows, None if embeddings is None else embeddings / embeddings_file(number))
        for number, (rows, _) in enumerate(shard_files(pool))
    ]


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
