"""Files of rows: their formats, names and checksums, and the errors of reading them."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from gotd.storage import files

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
SUFFIXES = (".parquet", *JSONL_SUFFIXES, ".csv")
"""Ends of the names of files with columns."""
TEXT_SUFFIXES = (".txt", ".txt.gz", ".txt.zst")
"""Ends of the names of files of plain text, one passage a line."""


def stem(path: Path) -> str:
    """Return a file's name without its format's suffix."""
    for suffix in sorted((*SUFFIXES, *TEXT_SUFFIXES), key=len, reverse=True):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def row_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """List the files in a folder that can be read, by name; empty if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_file() and f.name.endswith(suffixes))


def check_file(path: Path, suffixes: tuple[str, ...] = (*SUFFIXES, *TEXT_SUFFIXES)) -> None:
    """Check that a file is there, of a known format and not empty.

    Raises:
        FileNotFoundError: If there is no such file; lists what is there.
        ValueError: If its format is unknown or it is empty.
    """
    if not path.is_file():
        folder = path.parent
        names = ", ".join(sorted(f.name for f in folder.iterdir())) if folder.is_dir() else ""
        raise FileNotFoundError(f"no file {path}; in {folder} there is: {names or 'nothing'}")
    if not path.name.endswith(suffixes):
        raise ValueError(f"{path}: unknown format; use one of {', '.join(suffixes)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); write its rows again or leave it out")


def checksum(path: Path) -> str:
    """Return a file's SHA-256, computed once per (path, size, time of change)."""
    status = path.stat()
    return _checksum(str(path.resolve()), status.st_size, status.st_mtime_ns)


@functools.cache
def _checksum(path: str, size: int, modified_ns: int) -> str:
    return files.checksum(Path(path))


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of each line of UTF-8, its end included."""
    with (
        errors_of(path, "cut off or damaged", "copy it again"),
        io.BufferedReader(pa.input_stream(str(path), compression="detect")) as file,  # type: ignore[arg-type]
    ):
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} line {number} is not UTF-8 (byte {error.start}); save it as UTF-8"
                ) from error
            yield number, text


def no_rows(path: Path) -> ValueError:
    """Return the error for a file without rows."""
    return ValueError(f"{path} has no rows; write its rows again or leave the file out")


@contextmanager
def errors_of(path: Path, problem: str, remedy: str) -> Iterator[None]:
    """Raise what goes wrong with a file as one line that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is {problem} ({first_line(error)}); {remedy}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def is_utf8(text: str) -> bool:
    """Return whether a text can be written as UTF-8, which half of a surrogate pair cannot."""
    return text.encode(errors="ignore").decode() == text
