"""A pool larger than memory: rows cut into shards on the disk.

A shard is ``rows-00000.arrow``, one uncompressed Arrow batch of ``id``, ``text`` and
``domain`` that is memory-mapped when it is opened. Embeddings and scores stand beside it
under the same number, in artifacts of their own, so every method works out of core as
it stands.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import SCHEMA, Part, repeated_id
from gotd.data.chunking import fixed_chunks
from gotd.data.readers import ROWS_PER_PIECE
from gotd.data.rows import Rows
from gotd.data.unique_ids import repeated
from gotd.storage.artifacts import write_json
from gotd.storage.files import atomic_write

Unit = Literal["whole", "fixed"]

SHARD_ROWS = 1 << 15
SHARD_BYTES = 128 * 2**20
"""A shard ends at so many rows or bytes of text, whichever comes first."""

INDEX = "shards.json"


@dataclass(frozen=True)
class _Place:
    """How far the parts have been read when a shard is full.

    Args:
        part: Number of the part that the shard's last row is of.
        taken: Rows taken from that part so far.
        rows: Rows in the shard.
        blank: Rows of the parts before it that hold no visible character, so left out.
    """

    part: int = 0
    taken: int = 0
    rows: int = 0
    blank: int = 0


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
        work: Receives a marker per shard; dropped by the caller when all is done.
        unit: ``whole`` keeps every row as it is; ``fixed`` cuts and joins the rows of a
            part into pieces of at most ``length_chars`` characters. Rows without a
            visible character are left out.
        length_chars: Length of a ``fixed`` piece.
        tick: Called with the number of rows that were written.
        separator: Put between the texts that ``fixed`` joins. Deviation D7:
            protocol=published passes "", as the paper's code joins without a space.

    Raises:
        ValueError: If a part cannot be read, no row has a visible character, or an id
            occurs twice; names file and row.
    """
    work.mkdir(parents=True, exist_ok=True)
    done = [
        _Place(**json.loads(path.read_text("utf-8"))) for path in sorted(work.glob("rows-*.arrow"))
    ]
    tick(sum(place.rows for place in done))
    writer = _Writer(folder, work, tick, len(done), done[-1].blank if done else 0)
    reached = done[-1] if done else _Place()
    for number, part in enumerate(parts):
        if number < reached.part:
            continue
        writer.begin(number, reached.taken if number == reached.part else 0)
        for table in writer.counted(part.pieces(), unit, length_chars, separator):
            writer.add(table)
    writer.finish()
    shards = [folder / rows_file(number) for number in range(writer.written)]
    counts = [len(Rows.open(path)) for path in shards]
    if not shards:
        raise ValueError(f"no row of {parts[0].label} has a visible character; give some text")
    _check_ids(shards, counts, parts, unit)
    facts = _facts(shards)
    write_json(folder / INDEX, {"rows": counts, "blank_rows": writer.blank, **facts})


class _Writer:
    """Collects rows and writes a shard whenever one is full."""

    def __init__(
        self, folder: Path, work: Path, tick: Callable[[int], None], number: int, blank: int
    ) -> None:
        self._folder, self._work, self._tick = folder, work, tick
        self.written, self.blank = number, blank
        self._held: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._part = self._taken = self._skip = self._blank_before = 0

    def begin(self, part: int, skip: int) -> None:
        """Turn to a part, whose first ``skip`` rows are in shards already."""
        self._part, self._taken, self._skip = part, 0, skip
        self._blank_before = self.blank

    def counted(
        self, pieces: Iterable[pa.Table], unit: Unit, length_chars: int, separator: str
    ) -> Iterator[pa.Table]:
        """Leave out blank rows, count them, and cut into ``unit``."""
        seen = self._filled(pieces)
        return seen if unit == "whole" else _fixed(seen, length_chars, separator)

    def _filled(self, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in pieces:
            filled = pc.not_equal(pc.utf8_trim_whitespace(table["text"]), "")
            kept = table.filter(filled)
            self.blank += table.num_rows - kept.num_rows
            yield kept

    def add(self, table: pa.Table) -> None:
        """Take rows; where a shard ends does not depend on how they come."""
        left_out = min(table.num_rows, max(0, self._skip - self._taken))
        self._taken += left_out
        table = table.slice(left_out)
        while table.num_rows:
            sizes = np.cumsum(pc.binary_length(table["text"]).to_numpy().astype(np.int64))
            heavy = int(np.searchsorted(self._bytes + sizes, SHARD_BYTES)) + 1
            count = min(table.num_rows, SHARD_ROWS - self._rows, heavy)
            self._held.append(table.slice(0, count))
            self._rows, self._bytes = self._rows + count, self._bytes + int(sizes[count - 1])
            self._taken += count
            table = table.slice(count)
            if self._rows >= SHARD_ROWS or self._bytes >= SHARD_BYTES:
                self.finish()

    def finish(self) -> None:
        """Write what is held as a shard."""
        if not self._held:
            return
        name = rows_file(self.written)
        rows = pa.concat_tables(self._held).cast(SCHEMA).combine_chunks()
        with atomic_write(self._folder / name) as part, pa.ipc.new_file(part, SCHEMA) as writer:
            writer.write_table(rows, max_chunksize=rows.num_rows)
        place = _Place(self._part, self._taken, self._rows, self._blank_before)
        write_json(self._work / name, asdict(place))
        self._tick(self._rows)
        self.written += 1
        self._held, self._rows, self._bytes = [], 0, 0


def _fixed(pieces: Iterable[pa.Table], length_chars: int, separator: str) -> Iterator[pa.Table]:
    def documents() -> Iterator[tuple[str, str, str | None]]:
        for table in pieces:
            yield from zip(*(table[name].to_pylist() for name in SCHEMA.names), strict=True)

    held: list[Any] = []
    for row in fixed_chunks(documents(), length_chars, separator):
        held.append(row)
        if len(held) == ROWS_PER_PIECE:
            yield _table(held)
            held = []
    if held:
        yield _table(held)


def _table(rows: list[Any]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)


def _facts(shards: Sequence[Path]) -> dict[str, Any]:
    """Count domains and lengths once, so that no report reads the whole pool again."""
    domains: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    for path in shards:
        shard = Rows.open(path)
        domains.update(counted(shard.domains))
        lengths.update(counted(pc.utf8_length(shard.texts)))
    return {
        "domains": dict(sorted(domains.items())),
        "length_chars": [[length, count] for length, count in sorted(lengths.items())],
    }


def counted(values: Any) -> dict[Any, int]:
    """Count equal values of an Arrow array."""
    return {row["values"].as_py(): row["counts"].as_py() for row in pc.value_counts(values)}


def _check_ids(
    shards: Sequence[Path], counts: Sequence[int], parts: Sequence[Part], unit: Unit
) -> None:
    twice = repeated(lambda number: Rows.open(shards[number]).ids, counts)
    if twice is None:
        return
    if unit == "fixed":
        twice = twice.rpartition("#")[0]  # a piece's id is its row's and its number
    raise repeated_id(parts, twice)


# Reading --------------------------------------------------------------------------------


def rows_file(number: int) -> str:
    """Name the file of a shard's rows."""
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
    """Join shards in memory: for a target, which every selector takes whole."""
    if len(shards) == 1:
        return shards[0]
    embeddings = [shard.embeddings for shard in shards if shard.embeddings is not None]
    return Rows(
        ids=pa.concat_arrays([shard.ids for shard in shards]),
        texts=pa.concat_arrays([shard.texts for shard in shards]),
        domains=pa.concat_arrays([s.domains for s in shards if s.domains is not None]),
        embeddings=np.concatenate(embeddings) if embeddings else None,
    )
