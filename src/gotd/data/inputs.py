"""Where rows come from, by name: files, Hub data sets, or tables in memory.

Each becomes a list of parts, which are read piece by piece; their identity depends on the
content, never on paths.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import iglob
from pathlib import Path
from typing import Any

import pyarrow as pa

from gotd.data.base import Part
from gotd.data.columns import Columns, NoShape
from gotd.data.files import (
    NoRows,
    first_line,
    is_utf8,
    kind_of,
    stem,
)
from gotd.data.found import Found, common_folder, input_files
from gotd.data.hub.stream import HubRows, parse_hub
from gotd.data.readers import (
    JSONL_VERSION,
    SAMPLE_ROWS,
    all_columns,
    shape_of,
    stream,
)
from gotd.data.remote import REMOTE, fetch_remote, is_remote
from gotd.data.row_shapes import SHAPES_VERSION, Role, Turns
from gotd.data.row_text import TextOf
from gotd.data.table_files import sliced
from gotd.data.uniform import rows_of, uniform_tables
from gotd.storage.files import known_checksum, resolved
from gotd.storage.printing import listed

log = logging.getLogger(__name__)

HUB = "hub:"


@dataclass(frozen=True)
class File:
    """A file of rows.

    Args:
        path: The file.
        label: Its name among the files it was given with.
        columns: Which columns to read.
        domain: Domain of rows that have none; ``None``: the file's name.
    """

    path: Path
    label: str
    columns: Columns
    domain: str | None = None

    @property
    def shape(self) -> TextOf:
        """Return how its rows become texts."""
        return shape_of(self.path, self.columns)

    def identity(self) -> dict[str, Any]:
        """Return name and checksum, the format unless it is Parquet, and the shape unless text."""
        read: dict[str, Any] = {}
        kind = kind_of(self.path)
        if kind == "jsonl":
            read = {"reader": JSONL_VERSION}
        elif kind != "parquet":
            # The same bytes are other rows as CSV than as text, and the label has no suffix.
            read = {"format": kind}
        if self.domain is not None and self.domain == self.label.rpartition("/")[0]:
            read |= {"domain": self.domain}
        if self.shape.name != "text":
            read |= {"shape": self.shape.name, "shape_version": SHAPES_VERSION}
        return {"file": self.label, "sha256": known_checksum(self.path), **read}

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``, in the file's order."""
        return stream(self.path, self.columns, self.label, self.domain)

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

    @property
    def shape(self) -> TextOf:
        """Return how its rows become texts."""
        names, first = self.table.column_names, self.table.slice(0, SAMPLE_ROWS)
        return self.columns.shape(names, lambda: rows_of(first, self.label), self.label)

    def identity(self) -> dict[str, Any]:
        """Return a checksum of ids, texts and domains."""
        return {"table": self.label, "sha256": self._sha256}

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces():
            for column in piece.columns:
                for part in column.chunks:
                    # Through IPC, because equal arrays may have different offsets.
                    batch = pa.record_batch([pa.concat_arrays([part])], names=["v"])
                    digest.update(batch.serialize())
        return digest.hexdigest()

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``, in the rows' order."""
        yield from uniform_tables(
            self.originals(), self.columns, self.shape, self.label, self.label
        )

    def originals(self) -> Iterator[pa.Table]:
        """Yield all columns of the rows, in slices."""
        yield from sliced(self.table)


def named_parts(names: Sequence[str], columns: Columns, record: Path) -> list[Part]:
    """Find the parts that names refer to: files, patterns, folders, URLs, and ``hub:`` data sets.

    The shape of each file's rows is found, and logged in one line for each distinct shape. A
    file without rows is left out if there are others.

    Args:
        names: Paths, patterns such as ``pool/*.parquet``, folders (all files in them that
            can be read), URLs such as ``s3://bucket/pool/``, or
            ``hub:namespace/name[:config][:split]``.
        columns: Which columns to read.
        record: File that keeps the revision of each Hub data set, once it is known. Copies of
            remote files are kept beside it.

    Raises:
        FileNotFoundError: If a name refers to nothing.
        ValueError: If a format is unknown, all files are empty, one is named twice, or its
            columns make no text.
    """
    found: list[Found] = []
    parts: list[Part] = []
    for name in names:
        if name.startswith(HUB):
            part = HubRows(*parse_hub(name.removeprefix(HUB)), columns, record)
            if part in parts:
                raise ValueError(f"{name} is given twice; name every data set once")
            parts.append(part)
        elif is_remote(name):
            found += input_files(str(fetch_remote(name, record.parent / REMOTE)))
        else:
            found += input_files(name, record.parent)
    places = [resolved(file.path) for file in found]
    if len(set(places)) < len(places):
        twice = next(f.path for f, at in zip(found, places, strict=True) if places.count(at) > 1)
        raise ValueError(f"{twice} is given twice; name every file once")
    return parts + _with_rows(found, columns)


def check_role(role: Role, parts: Sequence[Part]) -> None:
    """Raise if a role selects nothing, because no part has turns.

    Raises:
        ValueError: If a role is named and all parts are known to have none.
    """
    known = [part.shape for part in parts if isinstance(part, File | InMemory)]
    if role == "all" or len(known) < len(parts) or any(isinstance(s, Turns) for s in known):
        return
    raise ValueError(
        f"--role {role} has no effect: the rows are plain text or a template, which have no turns; "
        "leave it out, or name a --format with turns"
    )


def _with_rows(found: Sequence[Found], columns: Columns) -> list[Part]:
    """Return a part for each file that has rows, and report shapes and files without rows."""
    empty: list[ValueError] = []
    shapes: dict[str, list[Path]] = {}
    kept = []
    for file in found:
        if not is_utf8(str(file.path)):
            raise ValueError(f"{str(file.path)!r}: the name of the file is not UTF-8; rename it")
        try:
            shape = shape_of(file.path, columns)
        except NoRows as error:
            empty.append(error)
            continue
        except NoShape as error:
            # A folder often has a JSON file that describes the others.
            if file.given or kind_of(file.path) != "json":
                raise
            empty.append(error)
            continue
        shapes.setdefault(shape.description, []).append(file.path)
        kept.append(file)
    if empty and not kept:
        raise empty[0]
    for error in empty:
        log.warning("left out: %s", error)
    for shape, paths in shapes.items():
        more = "" if len(paths) == 1 else f" and {len(paths) - 1:,} more"
        log.info("%s%s: %s", paths[0], more, shape)
    parts = file_parts([file.path for file in kept], columns)
    return [
        replace(part, domain=file.domain or domain)
        for part, file, domain in zip(parts, kept, _folder_domains(kept, parts), strict=True)
    ]


def _folder_domains(found: Sequence[Found], parts: Sequence[File]) -> list[str | None]:
    """Return the folder of each file as its domain, where files of several have one name."""
    folders: dict[str, set[Path]] = {}
    for file in found:
        folders.setdefault(stem(file.path), set()).add(resolved(file.path).parent)
    return [
        part.label.rpartition("/")[0] or None if len(folders[stem(part.path)]) > 1 else None
        for part in parts
    ]


def table_parts(rows: Any, label: str, columns: Columns) -> list[Part]:
    """Wrap rows from memory: texts, a table, a data frame or a `datasets.Dataset`.

    Args:
        rows: A sequence or a `pandas.Series` of texts, or a `pyarrow.Table`, `pandas.DataFrame` or
            `datasets.Dataset` with the columns named in ``columns``.
        label: Their name, with which numbered ids begin.
        columns: Which columns to read.

    Raises:
        TypeError: If it is none of these, or a text is no string; names the row.
        ValueError: If there is no row, a text is not UTF-8, or all texts are names of files.
    """
    if hasattr(rows, "with_format") and isinstance(rows, dict):
        splits = listed(map(str, rows))
        raise TypeError(f"{label}: give one split of the DatasetDict, such as {splits}, not all")
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    if isinstance(rows, pa.ChunkedArray | pa.Array):
        rows = rows.to_pylist()
    if hasattr(rows, "with_format") and hasattr(rows, "column_names"):
        rows = rows.with_format("arrow")[:]
    elif hasattr(rows, "iloc") and hasattr(rows, "columns"):
        rows = _frame(rows, label)
    elif hasattr(rows, "tolist") and hasattr(rows, "__len__"):  # a Series or an array
        rows = rows.tolist()
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        _check_no_names(rows, label)
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


def _check_no_names(texts: Sequence[Any], label: str) -> None:
    """Raise if all texts are names of files that are there, or of data sets on the Hub."""
    if texts and all(isinstance(text, str) and _is_name(text) for text in texts):
        raise ValueError(
            f"{label}: a list of strings is texts, and all of these are names of files, such as "
            f"{texts[0]!r}; give pathlib.Path({texts[0]!r}) in the list, or a single name without "
            "a list"
        )


def _is_name(text: str) -> bool:
    if text.startswith(HUB) or "*" in text:
        is_one_word = len(text.split()) == 1
        return is_one_word and (text.startswith(HUB) or next(iglob(text), None) is not None)  # noqa: PTH207
    # A folder may be called as a text of one word is. Unlike Path, these take any text.
    return os.path.isfile(text) or (os.sep in text and os.path.isdir(text))  # noqa: PTH112, PTH113


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


def file_parts(paths: Sequence[Path], columns: Columns) -> list[File]:
    """Return a part for each file, labelled by its name, or by its path where names repeat."""
    labels = [stem(path) for path in paths]
    if len(set(labels)) < len(labels):
        places = [resolved(path) for path in paths]
        root = common_folder(places)
        labels = [place.relative_to(root).as_posix() for place in places]
    return [File(path, label, columns) for path, label in zip(paths, labels, strict=True)]
