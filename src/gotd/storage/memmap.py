"""Arrays that live in a file and travel as its path.

A function that holds such an array can be sent to another process, or to another
machine that sees the same files, without sending the data.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gotd.storage.files import atomic_write

Mode = Literal["r", "r+"]


class FileArray(np.memmap):
    """A memory-mapped ``.npy`` file that pickles as ``(path, mode)``.

    Slices and results of arithmetic are no longer the file; they pickle as the plain
    numbers they are. Make one with `open_array` or `create_array`.
    """

    source: tuple[str, Mode] | None = None

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.source = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.source is None:
            return np.array(self, subok=False).__reduce_ex__(protocol)
        return open_array, self.source


def open_array(path: str | Path, mode: Mode = "r") -> FileArray:
    """Map an ``.npy`` file.

    Args:
        path: The file.
        mode: ``r`` to read, ``r+`` to write into it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not an ``.npy`` file of numbers.
    """
    place = Path(path).absolute()
    array = np.lib.format.open_memmap(place, mode=mode).view(FileArray)
    array.source = (str(place), mode)
    return array


def create_array(path: Path, shape: tuple[int, ...], dtype: Any) -> FileArray:
    """Make a file of zeros with its room on the disk, whole or not at all, and map it.

    Writing through a memory map into a hole of a full disk would kill the process
    (SIGBUS) where an error is wanted, so the room is taken here.

    Args:
        path: The file to make; one that is there is replaced.
        shape: Of the array.
        dtype: Of its numbers.

    Raises:
        OSError: If the disk is full.
    """
    allocate(path, shape, dtype)
    return open_array(path, "r+")


def allocate(path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    """Make the file for `create_array` without mapping it."""
    kind = np.dtype(dtype)
    header = {"descr": kind.str, "fortran_order": False, "shape": tuple(map(int, shape))}
    with atomic_write(path) as part, part.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        size = file.tell() + kind.itemsize * int(np.prod(shape, dtype=np.int64))
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
