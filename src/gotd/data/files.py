"""Files of rows: which formats there are, what a file is called, and whether it changed."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv")
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
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
