"""Where rows come from, by name: files, Hub data sets, or tables in memory.

Each becomes a list of parts, which are read piece by piece; their identity depends on the
content, never on paths.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa

from gotd.data.base import BYTES_PER_PIECE, ROWS_PER_PIECE, Part
from gotd.data.columns import Columns
from gotd.data.files import (
    JSONL_SUFFIXES,
    SUFFIXES,
    TEXT_SUFFIXES,
    check_file,
    checksum,
    first_line,
    is_utf8,
    row_files,
    stem,
)
from gotd.data.hub.stream import HubRows, parse_hub
from gotd.data.readers import JSONL_VERSION, all_columns, stream

HUB = "hub:"


@dataclass(frozen=True)
class File:
    """A file of rows.

    Args:
        path: The file.
        label: Its name among the files it was given with.
        columns: Which columns to read.
    """

    path: Path
    label: str
    columns: Columns

    def identity(self) -> dict[str, Any]:
        """Return name and checksum, and the format unless it is Parquet."""
        read: dict[str, Any] = {}
        if self.path.name.endswith(JSONL_SUFFIXES):
            read = {"reader": JSONL_VERSION}
        elif not self.path.name.endswith(".parquet"):
            # The same bytes are other rows as CSV than as text, and the label has no suffix.
            read = {"format": "csv" if self.path.name.endswith(".csv") else "text"}
        return {"file": self.label, "sha256": checksum(self.path), **read}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``, in the file's order."""
        return stream(self.path, self.columns, self.label)

    def originals(self) -> Iterator[pa.Table]:
        """Yield all columns of the rows; see `gotd.data.readers.original_rows`."""
        return all_columns(self.path)


@dataclass(frozen=True, eq=False)
class InMemory:
    """Rows that are in memory.

    Args:
        table: The rows.
        label: Their name.
        columns: Which columns to read.
    """

    table: pa.Table
    label: str
    columns: Columns

    def identity(self) -> dict[str, Any]:
        """Return a checksum of ids, texts and domains."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            for column in piece.columns:
                for part in column.chunks:
                    # Through IPC, because equal arrays may have different offsets.
                    batch = pa.record_batch([pa.concat_arrays([part])], names=["v"])
                    digest.update(batch.serialize())
        return {"table": self.label, "sha256": digest.hexdigest()}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``, in the rows' order."""
        columns, label, first = self.columns, self.label, 1
        for raw in self.originals():
            yield columns.uniform(raw, label, label, label, first)
            first += raw.num_rows

    def originals(self) -> Iterator[pa.Table]:
        """Yield all columns of the rows, in slices."""
        a_row = self.table.nbytes // max(1, self.table.num_rows)
        rows = min(ROWS_PER_PIECE, max(1, BYTES_PER_PIECE // max(1, a_row)))
        for start in range(0, self.table.num_rows, rows):
            yield self.table.slice(start, rows)


def named_parts(names: Sequence[str], columns: Columns, record: Path) -> list[Part]:
    """Find the parts that names refer to: files, patterns, folders, and ``hub:`` data sets.

    Args:
        names: Paths, patterns such as ``pool/*.parquet``, folders (all files in them that
            can be read), or ``hub:namespace/name[:config][:split]``.
        columns: Which columns to read.
        record: File that keeps the revision of each Hub data set, once it is known.

    Raises:
        FileNotFoundError: If a name refers to nothing.
        ValueError: If a format is unknown, a file is empty, or one is named twice.
    """
    paths: list[Path] = []
    parts: list[Part] = []
    for name in names:
        if name.startswith(HUB):
            part = HubRows(*parse_hub(name.removeprefix(HUB)), columns, record)
            if part in parts:
                raise ValueError(f"{name} is given twice; name every data set once")
            parts.append(part)
        else:
            paths += _files(name)
    for path in paths:
        check_file(path)
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        twice = next(path for path in paths if resolved.count(path.resolve()) > 1)
        raise ValueError(f"{twice} is given twice; name every file once")
    return parts + file_parts(paths, columns)


def table_parts(rows: Any, label: str, columns: Columns) -> list[Part]:
    """Wrap rows from memory: texts, a table, a data frame or a `datasets.Dataset`.

    Args:
        rows: A sequence or a `pandas.Series` of texts, or a `pyarrow.Table`, `pandas.DataFrame` or
            `datasets.Dataset` with the columns named in ``columns``.
        label: Their name, with which numbered ids begin.
        columns: Which columns to read.

    Raises:
        TypeError: If it is none of these, or a text is no string; names the row.
        ValueError: If there is no row, or a text is not UTF-8.
    """
    if hasattr(rows, "with_format") and hasattr(rows, "column_names"):
        rows = rows.with_format("arrow")[:]
    elif hasattr(rows, "iloc") and hasattr(rows, "columns"):
        rows = _frame(rows, label)
    elif hasattr(rows, "tolist") and hasattr(rows, "__len__"):  # a Series or an array
        rows = rows.tolist()
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        rows = pa.table({columns.text[0]: _texts(rows, label)})
    if not isinstance(rows, pa.Table):
        raise TypeError(
            f"{label}: give texts, paths, a pyarrow table, a data frame or a Dataset, "
            f"not {type(rows).__name__}"
        )
    if rows.num_rows == 0:
        raise ValueError(f"{label} has no rows; give at least one text")
    return [InMemory(rows, label, columns)]


def _frame(rows: Any, label: str) -> pa.Table:
    try:
        return pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(
            f"{label}: the data frame cannot be read ({first_line(error)}); give every column "
            "a name of its own and values of one type"
        ) from error


def _texts(texts: Sequence[Any], label: str) -> pa.Array:
    for row, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise TypeError(
                f"{label} row {row} is {type(text).__name__}, not a string; give texts, or "
                "paths as pathlib.Path alone"
            )
        if not is_utf8(text):
            raise ValueError(
                f"{label} row {row} holds half a character (a lone surrogate), which UTF-8 "
                "cannot hold; repair the text"
            )
    return pa.array(texts, pa.large_string())


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        suffixes = (*SUFFIXES, *TEXT_SUFFIXES)
        files = row_files(path, suffixes)
        if not files:
            raise FileNotFoundError(
                f"the folder {name} holds no file that can be read; there must be one of "
                f"{', '.join(suffixes)}"
            )
        return files
    if path.exists() or not any(sign in name for sign in "*?["):
        return [path]
    # Not Path.glob, which knows no absolute pattern.
    files = sorted(filter(Path.is_file, map(Path, glob(name, recursive=True))))  # noqa: PTH207
    if not files:
        raise FileNotFoundError(f"no file matches {name!r}; check the pattern")
    return files


def file_parts(paths: Sequence[Path], columns: Columns) -> list[Part]:
    """Return a part for each file, labelled by its name, or by its path where names repeat."""
    labels = [stem(path) for path in paths]
    if len(set(labels)) < len(labels):
        resolved = [path.resolve() for path in paths]
        root = Path(os.path.commonpath([path.parent for path in resolved]))
        labels = [path.relative_to(root).as_posix() for path in resolved]
    return [File(path, label, columns) for path, label in zip(paths, labels, strict=True)]
