"""Memory-mapped arrays that pickle as the path of their file.

A function that holds such an array can be sent to another process, or to another machine
with the same files, without sending the data.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gotd.storage.files import atomic_write

Mode = Literal["r", "r+"]

MOST_OPEN = (1 << 20, 10240)
"""Open files that a process asks for; macOS refuses the first. A billion rows need 100,000.

Without a bound it might get a thousand million, and programs that it starts may count to that.
"""


class FileArray(np.memmap):
    """A memory-mapped ``.npy`` file that pickles as ``(path, mode)``.

    Slices and results of arithmetic pickle as plain numbers, since they are not the file.
    Use `open_array` to make one.
    """

    source: tuple[str, Mode] | None = None

    def write_rows(self, start: int, rows: np.ndarray) -> None:
        """Write rows into the file, not through the map; they are there when this returns.

        A map writes whole pages. Two machines that write neighbouring rows of a file on a shared
        disk would overwrite each other's.

        Args:
            start: Number of the first row.
            rows: ``[n, ...]``, of the array's type.

        Raises:
            ValueError: If this is a slice, is open to read alone, or the rows do not fit.
        """
        if self.source is None or self.source[1] == "r":
            raise ValueError("only a whole file that is open to write takes rows")
        if rows.shape[1:] != self.shape[1:] or not 0 <= start <= len(self) - len(rows):
            raise ValueError(f"rows {rows.shape} from {start} do not fit into {self.shape}")
        data = np.ascontiguousarray(rows, self.dtype)
        with Path(self.source[0]).open("r+b") as file:
            file.seek(self.offset + start * self.strides[0])
            file.write(data.tobytes())

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.source = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.source is None:
            return np.array(self, subok=False).__reduce_ex__(protocol)
        return open_array, self.source


def open_array(path: str | Path, mode: Mode = "r") -> FileArray:
    """Open a memory-mapped ``.npy`` file.

    Args:
        path: The file.
        mode: ``r`` to read, ``r+`` to write into it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not an ``.npy`` file of numbers.
        OSError: If the process may open no more files.
    """
    path = Path(path).absolute()
    with _many_open(path):
        array = np.lib.format.open_memmap(path, mode=mode).view(FileArray)
    array.source = (str(path), mode)
    return array


def create_array(path: Path, shape: tuple[int, ...], dtype: Any) -> FileArray:
    """Create a ``.npy`` file of zeros, with all its disk space allocated, and map it.

    Without the allocation, a full disk would kill the process (SIGBUS) at a later write
    through the map. Here it raises an error.

    Args:
        path: File to create or replace.
        shape: Shape of the array.
        dtype: Type of its numbers.

    Raises:
        OSError: If the disk is full, or the process may open no more files.
    """
    with _many_open(path), atomic_write(path) as part:
        np.lib.format.open_memmap(part, "w+", dtype, shape)
        if hasattr(os, "posix_fallocate"):
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
    return open_array(path, "r+")


@contextmanager
def _many_open(path: Path) -> Iterator[None]:
    """Let the process hold as many files as the system lets it, and say so where it is too few."""
    _raise_limit()
    try:
        yield
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise OSError(
            f"{path} cannot be opened: {most:,} files are open, the most that the system allows a "
            "process; raise the hard limit (ulimit -Hn), or give fewer candidates"
        ) from error


@cache
def _raise_limit() -> None:
    """Raise the limit of open files from the soft to the hard one, once in a process.

    A mapped array keeps its file open (`mmap` has a descriptor of its own), and a large pool has
    thousands. The soft limit is often 1024, for programs that use `select`, which fails above
    that; Python's libraries use `poll`. It is raised where arrays are mapped, so in workers, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in MOST_OPEN:
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if soft == resource.RLIM_INFINITY or soft >= allowed:
            return
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            return
