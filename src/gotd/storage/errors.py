"""Errors of the store: what is damaged, a full disk, and a folder that cannot be written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system answers where a folder is read-only."""


class ArtifactError(RuntimeError):
    """An artifact that is damaged or cannot be written."""


class StoreError(ArtifactError):
    """A store that is full or cannot be written, so that every other step would fail too."""


class WorkerKilled(RuntimeError):  # noqa: N818 - an error of the system, not of the program
    """A process that worked for the command was killed."""


@contextmanager
def explained(root: Path, doing: str = "", temporary: bool = False) -> Iterator[None]:
    """Replace an error of the store itself by one with the remedy; others pass as they are.

    Args:
        root: The store.
        doing: What is done, for the message of a full disk.
        temporary: Whether the store is deleted afterwards, so that nothing resumes.

    Raises:
        StoreError: If the disk is full, or the store cannot be written.
    """
    try:
        yield
    except ArtifactError:
        raise
    except Exception as error:
        if _is_elsewhere(error, root):
            raise
        if is_disk_full(error, root):
            remedy = "free some space and run the same command again: it resumes"
            if temporary:
                remedy = "free some space, or name a store on another disk, which is kept (store=…)"
            raise StoreError(f"no space left in {root}{doing}; {remedy}") from error
        if isinstance(error, OSError) and error.errno in _REFUSED:
            raise not_writable(root, error) from error
        raise


def not_writable(root: Path, error: OSError) -> StoreError:
    """Return the error of a store that cannot be written, with the remedy."""
    reason = error.strerror or error
    return StoreError(f"cannot write the store {root}: {reason}; choose another folder for it")


def _is_elsewhere(error: Exception, folder: Path) -> bool:
    """Return whether an error names a file outside a folder, or is a refusal that names none.

    A full disk may be noticed where no file is named. Pyarrow names one in its message alone.
    """
    if not isinstance(error, OSError):
        return False
    if error.filename is not None:
        return not Path(os.fsdecode(error.filename)).is_relative_to(folder)
    return error.errno in _REFUSED and f"'{folder}{os.sep}" not in str(error)


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Return whether an error means that the disk or the quota is full.

    Pyarrow keeps the system's error number, safetensors only its message, torch and NumPy
    neither; for the latter, less than one free MiB counts as full.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    if "No space left on device" in str(error):
        return True
    if not isinstance(error, (OSError, RuntimeError)):
        return False
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free < 2**20
