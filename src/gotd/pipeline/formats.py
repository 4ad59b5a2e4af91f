"""Formats of a file of selected rows; the suffix of its name chooses one."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.column_types import to_json
from gotd.data.columns import Columns

log = logging.getLogger(__name__)

DATASET = ".hf"
"""Suffix of a folder as `datasets.Dataset.save_to_disk` writes it."""
FILE_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", DATASET)
NOT_WRITTEN = (".json", ".tsv", ".txt", ".arrow", ".zst", ".gz", ".bz2", ".xz", ".zip", ".feather")
"""Suffixes of data that are no folder's name, so that a mistake does not make a folder."""
FOLDER_FORMAT = ".parquet"
PREFIX = "gotd_"


def written_suffix(name: str) -> str | None:
    """Return the suffix of `FILE_SUFFIXES` in which a name ends; else ``None``."""
    for suffix in FILE_SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return suffix
    return None


def row_suffix(out: Path) -> str | None:
    """Return the suffix of a file of rows; ``None`` if the name is that of a folder.

    Raises:
        ValueError: If it is that of data which are not written.
    """
    if (suffix := written_suffix(out.name)) is not None:
        return suffix
    ending = out.suffix.lower()
    if ending in NOT_WRITTEN or get_close_matches(ending, [*FILE_SUFFIXES, *NOT_WRITTEN]):
        if (suffix := written_suffix(out.name.lower())) is not None:
            name = out.name[: -len(suffix)] + suffix
            raise ValueError(f"--out {out}: endings are in lower case; write {name}")
        raise ValueError(
            f"--out {out}: rows are written as {', '.join(FILE_SUFFIXES)}, or into a folder whose "
            "name has no such suffix; choose one of them"
        )
    return None


class Originals(Protocol):
    """Original rows of an output, in its order."""

    @property
    def schema(self) -> pa.Schema:
        """Return the columns of the output."""
        ...

    def records(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return some rows as objects."""
        ...

    def table(self, start: int, stop: int) -> pa.Table:
        """Return some rows with the columns of `schema`."""
        ...


@dataclass(frozen=True)
class Layout:
    """The columns of an output: those of gotd, and those of the original rows.

    Args:
        columns: The columns that were read of the original rows.
        prefixed: Name gotd's columns ``gotd_score`` and so on, after the original ones. If
            not, they come first and keep their names, and an original column with such a
            name becomes ``original_<name>``.
        keeps_text: Write the text that was compared also where it is an original column,
            which some rows lack.
    """

    columns: Columns
    prefixed: bool
    keeps_text: bool = False

    def own(self, block: pa.Table, originals: Originals | None) -> pa.Table:
        """Return gotd's columns of a block of selected rows."""
        if not self.prefixed or originals is None:
            return block
        theirs = [(name,) for name in originals.schema.names]
        if self.columns.text in theirs and not self.keeps_text:
            block = block.drop_columns("text")  # it is among the original columns
        return block.rename_columns([PREFIX + name for name in block.column_names])

    def names(self, original: list[str], own: list[str]) -> dict[str, str]:
        """Return the name in the output of each original column that is in it."""
        read = {"id": self.columns.id_name, "domain": self.columns.domain_name}
        read["text"] = self.columns.text[0] if len(self.columns.text) == 1 else ""
        names: dict[str, str] = {}
        for name in original:
            if name not in own:
                names[name] = name
            elif not self.prefixed and read.get(name) != name:
                names[name] = f"original_{name}"
        return names


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a selection, with the columns of an output.

    Args:
        selected: Columns of `gotd.pipeline.ranked_pool.SelectedRows.blocks`.
        start: Rank of its first row, from 0.
        originals: The original rows; ``None`` for chunks, which are none.
        layout: The columns.
    """

    selected: pa.Table
    start: int
    originals: Originals | None
    layout: Layout

    @property
    def table(self) -> pa.Table:
        """Return the rows as a table."""
        own = self.layout.own(self.selected, self.originals)
        if self.originals is None:
            return own
        rows = self.originals.table(self.start, self.start + len(own))
        names = self.layout.names(rows.column_names, own.column_names)
        rows = rows.select(list(names)).rename_columns(list(names.values()))
        one, other = (rows, own) if self.layout.prefixed else (own, rows)
        columns = dict(zip(one.column_names, one.columns, strict=True))
        return pa.table(columns | dict(zip(other.column_names, other.columns, strict=True)))

    @property
    def records(self) -> list[dict[str, Any]]:
        """Return the rows as objects."""
        own = self.layout.own(self.selected, self.originals)
        if self.originals is None:
            return own.to_pylist()
        rows = self.originals.records(self.start, self.start + len(own))
        names = self.layout.names(self.originals.schema.names, own.column_names)
        return [
            {names[name]: value for name, value in row.items() if name in names} | mine
            for row, mine in zip(rows, own.to_pylist(), strict=True)
        ]

    @property
    def names(self) -> list[str]:
        """Return the columns of `table`."""
        own = self.layout.own(self.selected, self.originals).column_names
        theirs = [] if self.originals is None else self.originals.schema.names
        names = list(self.layout.names(theirs, own).values())
        return [*names, *own] if self.layout.prefixed else [*own, *names]


class Writer(Protocol):
    """Writes blocks of a selection, one after another."""

    def write(self, block: Block) -> None:
        """Write a block."""
        ...


def open_writer(path: Path, suffix: str) -> AbstractContextManager[Writer]:
    """Open a file of rows for writing, in the format of a suffix of `FILE_SUFFIXES`."""
    if suffix in (".jsonl", ".jsonl.gz"):
        return _json_lines(path, suffix == ".jsonl.gz")
    if suffix == ".csv":
        return _csv(path)
    return _dataset(path) if suffix == DATASET else _parquet(path)


@dataclass
class _Parquet:
    path: Path
    open_files: ExitStack
    file: pq.ParquetWriter | None = None

    def write(self, block: Block) -> None:
        table = block.table
        if self.file is None:
            file = pq.ParquetWriter(self.path, table.schema, compression="zstd")
            self.file = self.open_files.enter_context(file)
        self.file.write_table(table)


@contextmanager
def _parquet(path: Path) -> Iterator[Writer]:
    with ExitStack() as open_files:
        yield _Parquet(path, open_files)


@dataclass
class _JsonLines:
    file: TextIO
    odd_rows: int = 0

    def write(self, block: Block) -> None:
        self.file.writelines(to_json(record, self._count) + "\n" for record in block.records)

    def _count(self) -> None:
        self.odd_rows += 1


@contextmanager
def _json_lines(path: Path, compressed: bool) -> Iterator[Writer]:
    with ExitStack() as files:
        if compressed:
            raw = files.enter_context(path.open("wb"))
            # Neither time nor name in the file: the same rows are the same bytes.
            packed = gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0)
            lines = files.enter_context(io.TextIOWrapper(packed, "utf-8", newline="\n"))
        else:
            lines = files.enter_context(path.open("w", encoding="utf-8", newline="\n"))
        writer = _JsonLines(lines)
        yield writer
        if writer.odd_rows:
            log.warning(
                "%s: NaN or Infinity of %s rows is null, since JSON has neither; .parquet keeps it",
                path.name,
                f"{writer.odd_rows:,}",
            )


@dataclass
class _Csv:
    file: TextIO
    has_header: bool = False

    def write(self, block: Block) -> None:
        names = block.names
        plain = csv.writer(self.file, lineterminator="\n")
        # Python's writer leaves a carriage return bare, which ends a row for readers.
        quoted = csv.writer(self.file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        rows = [[_cell(record.get(name)) for name in names] for record in block.records]
        for row in rows if self.has_header else [names, *rows]:
            (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
        self.has_header = True


@contextmanager
def _csv(path: Path) -> Iterator[Writer]:
    with path.open("w", encoding="utf-8", newline="") as file:
        yield _Csv(file)


def _cell(value: Any) -> str:
    """Return a text as it is, nothing for a missing value, and JSON for any other one."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    text = to_json(value)
    return json.loads(text) if text.startswith('"') else text


@dataclass
class _Stream:
    path: Path
    open_files: ExitStack
    file: pa.RecordBatchStreamWriter | None = None

    def write(self, block: Block) -> None:
        table = without_maps(block.table)
        file = self.file
        if file is None:
            file = self.file = pa.ipc.new_stream(str(self.path), table.schema)
            self.open_files.callback(file.close)
        file.write_table(table)


def without_maps(table: pa.Table) -> pa.Table:
    """Return a table in which each map is a list of ``key`` and ``value``, as `datasets` has it."""
    for number, field in enumerate(table.schema):
        kind = _listed(field.type)
        if kind != field.type:
            values = [_as_listed(v, field.type) for v in table[field.name].to_pylist()]
            table = table.set_column(number, field.name, pa.array(values, kind))
    return table


def _listed(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_map(kind):
        pair = [("key", _listed(kind.key_type)), ("value", _listed(kind.item_type))]
        return pa.list_(pa.struct(pair))
    if pa.types.is_struct(kind):
        return pa.struct([(one.name, _listed(one.type)) for one in kind.fields])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _listed(kind.value_type)
        return kind if inner == kind.value_type else pa.list_(inner)
    return kind


def _as_listed(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_map(kind):
        both = kind.key_type, kind.item_type
        return [{"key": _as_listed(k, both[0]), "value": _as_listed(v, both[1])} for k, v in value]
    if pa.types.is_struct(kind):
        return {one.name: _as_listed(value[one.name], one.type) for one in kind.fields}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_as_listed(one, kind.value_type) for one in value]
    return value


@contextmanager
def _dataset(path: Path) -> Iterator[Writer]:
    """Write a folder that `datasets.load_from_disk` reads."""
    import datasets

    stream = path.with_name(f"{path.name}.stream")
    with ExitStack() as open_files:
        yield _Stream(stream, open_files)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_file(str(stream)).save_to_disk(str(path))
    finally:
        if shown:
            datasets.enable_progress_bars()
    stream.unlink()
