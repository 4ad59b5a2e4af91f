"""Files of rows: their formats, names and checksums, and the errors of reading them."""

from __future__ import annotations

import functools
import io
import logging
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa

from gotd.storage.printing import listed

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv")
"""Ends of the names of files that may hold a split of a task."""

COMPRESSIONS = ("", ".gz", ".zst", ".bz2", ".xz")


def _compressed(suffix: str) -> tuple[str, ...]:
    return tuple(suffix + compression for compression in COMPRESSIONS)


KINDS: dict[str, tuple[str, ...]] = {
    "parquet": (".parquet",),
    "arrow": (".arrow", ".feather"),
    "jsonl": _compressed(".jsonl"),
    "json": _compressed(".json"),
    "csv": _compressed(".csv"),
    "tsv": _compressed(".tsv"),
    "text": _compressed(".txt"),
}
"""The formats of files of rows, and the ends of their names."""
INPUT_SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)


def kind_of(path: Path) -> str:
    """Return the format of a file, one of `KINDS`.

    Raises:
        ValueError: If the end of its name is none of them.
    """
    for kind, suffixes in KINDS.items():
        if path.name.endswith(suffixes):
            return kind
    raise ValueError(f"{path}: unknown format; use one of {', '.join(INPUT_SUFFIXES)}")


def stem(path: Path) -> str:
    """Return a file's name without its format's suffix."""
    for suffix in sorted(INPUT_SUFFIXES, key=len, reverse=True):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def row_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """List the files in a folder that can be read, by name; empty if there is no folder."""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if not path.is_file():
            continue
        if path.name.endswith(suffixes) and not path.name.startswith((".", "_")):
            found.append(path)
        else:
            _report_once(path)
    return found


@functools.cache
def _report_once(path: Path) -> None:
    """Log that a folder holds something that is not read: once, since folders are read often."""
    log.warning("%s is left out: it is no file of rows, or its name begins with . or _", path)


def check_file(path: Path, suffixes: tuple[str, ...] = INPUT_SUFFIXES) -> None:
    """Check that a file is there, of a known format and not empty.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there, or the nearest names.
        ValueError: If its format is unknown or it is empty.
    """
    if not path.is_file():
        if path.exists() and not path.is_dir():
            raise FileNotFoundError(
                f"{path} is no file on a disk but a pipe or a device, which cannot be read twice; "
                "write it to a file first"
            )
        folder = path.parent
        there = sorted(f.name for f in folder.iterdir()) if folder.is_dir() else []
        names = listed(there, path.name) or "nothing"
        raise FileNotFoundError(f"no file {path}; in {folder} there is: {names}")
    if not path.name.endswith(suffixes):
        raise ValueError(f"{path}: unknown format; use one of {', '.join(suffixes)}")
    if path.stat().st_size == 0:
        raise NoRows(f"{path} is empty (0 bytes); write its rows again or leave it out")


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed as the end of its name says."""
    if path.name.endswith(".xz"):
        return lzma.open(path)
    return io.BufferedReader(pa.input_stream(str(path), compression="detect"))  # type: ignore[arg-type]


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of each line of UTF-8, its end included."""
    with (
        errors_of(path, "cut off or damaged", "copy it again"),
        open_bytes(path) as file,
    ):
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig")  # joined files have marks in the middle, too
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} line {number} is not UTF-8 (byte {error.start}); save it as UTF-8"
                ) from error
            yield number, text


class NoRows(ValueError):  # noqa: N818 - it is caught to leave a file out
    """A file without rows."""


def no_rows(path: Path) -> NoRows:
    """Return the error for a file without rows."""
    return NoRows(f"{path} has no rows; write its rows again or leave the file out")


@contextmanager
def errors_of(path: Path, problem: str, remedy: str) -> Iterator[None]:
    """Raise what goes wrong with a file as one line that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is {problem} ({first_line(error)}); {remedy}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8, which half of a surrogate pair cannot."""
    return text.encode(errors="ignore").decode() == text
