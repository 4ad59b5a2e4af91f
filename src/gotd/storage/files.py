"""Atomic writes, checksums and locks: the only way in which files are replaced or shared."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

FileMap = Callable[[Callable[[Path], Any], Iterable[Path]], Iterable[Any]]
"""Applies a function to files and yields the results in order, as `map` does."""

_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
"""What tells the processes of this machine from those of others that share a disk."""
TEMPORARY = ".part"
"""Suffix of a file or folder that is not finished."""
OUTPUT_LOCK = ".gotd-lock"
"""End of the name of the lock of an output, beside it and hidden."""
JUST_MADE_S = 2.0
"""A lock so young may be of a command that starts."""
MOST_NAME_BYTES = 200
"""Longest name; the systems have 255 bytes, and names here get endings."""


def check_name(name: str, what: str) -> None:
    """Raise if a name cannot be one file or folder inside another.

    Args:
        name: The name.
        what: What it is, for the message.

    Raises:
        ValueError: If it leads elsewhere, is hidden, too long, or no UTF-8.
    """
    check_path(Path(name), what)
    if name.startswith(".") or set(name) & set("/\\\0") or not name.isprintable():
        raise ValueError(
            f"{what} {name!r} cannot name a folder; leave out slashes, control characters and a "
            "dot at its beginning"
        )


def check_path(path: Path, what: str) -> None:
    """Raise if a path holds a name that no file can have, or that is not UTF-8.

    Raises:
        ValueError: If there is such a name.
    """
    try:
        longest = max((len(part.encode()) for part in path.parts), default=0)
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} {str(path)!r} is not UTF-8; choose another name") from error
    if longest > MOST_NAME_BYTES:
        raise ValueError(f"{what} has a name of {longest} bytes; {MOST_NAME_BYTES} are the most")


def resolved(path: Path) -> Path:
    """Return the path that a path stands for, with all links followed.

    Raises:
        ValueError: If a link leads to itself.
    """
    try:
        path.stat()
    except OSError as error:  # Path.resolve raises this in some versions of Python alone
        if error.errno == errno.ELOOP:
            above = (one for one in reversed(path.parents) if one.is_symlink() and not one.exists())
            link = next(above, path)
            raise ValueError(f"{link} is a link that leads to itself; remove it") from error
    return path.resolve()


def followed(path: Path) -> Path:
    """Return what a symbolic link leads to, there or not; another path as it is.

    Raises:
        ValueError: If a link leads to itself.
    """
    return resolved(path) if path.is_symlink() else path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; rename it to ``path`` when the block succeeds.

    A killed process leaves the old file. Two threads or processes may write at once: the last
    one wins. The parent folder is created. If the block raises, the temporary file is removed.

    Args:
        path: File to create or replace.

    Raises:
        OSError: If the folder cannot be written or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent, path.name)
    owner = f"{_MACHINE}-{os.getpid()}-{threading.get_native_id()}"
    part = path.with_name(f"{path.name}.{owner}{TEMPORARY}")
    try:
        yield part
        rename_durably(part, path)
    except BaseException:
        with suppress(OSError):  # of a read-only file system, which would hide the cause
            part.unlink(missing_ok=True)
        raise


def remove_left_over(folder: Path) -> None:
    """Delete what killed commands left in a folder: unfinished outputs, files and locks.

    A command that runs holds the lock of its output, and its files have its number. What of
    another machine or user cannot be judged or deleted stays.
    """
    _remove_abandoned(folder, "")
    for lock in folder.glob(f".*{OUTPUT_LOCK}"):
        with suppress(OSError):
            # A run that starts has made the file, and locks it at once.
            if time.time() - lock.stat().st_mtime < JUST_MADE_S:
                continue
            with locked(lock, wait=False):
                stem = lock.name.removesuffix("-lock")
                for part in (f"{stem}-part", f"{stem}{TEMPORARY}"):
                    shutil.rmtree(lock.with_name(part), ignore_errors=True)
                lock.unlink(missing_ok=True)


def _remove_abandoned(folder: Path, name: str) -> None:
    """Delete unfinished versions of a file, or of all, that killed processes of this machine left.

    Args:
        folder: Where it is.
        name: Of the file; empty for all.
    """
    any_or_one = re.escape(name) or ".*"
    form = re.compile(rf"{any_or_one}\.{_MACHINE}-(\d+)-\d+{re.escape(TEMPORARY)}", re.DOTALL)
    for part in folder.glob(f"*.{_MACHINE}-*{TEMPORARY}"):
        match = form.fullmatch(part.name)
        if match and not _is_running(int(match[1])):
            with suppress(OSError):  # of another user
                part.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Return whether a process may be running; where this cannot be asked, it may."""
    if os.name != "posix":  # elsewhere the question would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def rename_durably(part: Path, path: Path) -> None:
    """Rename a finished file or folder; both its content and its new name survive a crash."""
    flush(part)
    part.replace(path)
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically, with the same line ends on every system."""
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file atomically.

    Raises:
        ValueError: If the value holds NaN or an infinity, which JSON does not have.
        TypeError: If it holds something that is not JSON.
    """
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def canonical_json(value: Any) -> str:
    """Return a JSON text that is the same for equal values.

    Raises:
        ValueError: If the value holds NaN or an infinity, which JSON does not have.
        TypeError: If it holds something that is not JSON.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_checksum(path: Path) -> str:
    """Return the SHA-256 of a file, computed once as long as the file is the same.

    A file that is written, replaced or moved is another one, even with the same size and time.

    Raises:
        OSError: If there is no such file.
    """
    return checksum_of_state(path)[1]


def checksum_of_state(path: Path) -> tuple[State, str]:
    """Return the state of a file and the SHA-256 that is known of it, for `know_checksum`.

    Raises:
        OSError: If there is no such file.
    """
    state = _state(path)
    if state not in _known:
        _known[state] = checksum(path)
    return state, _known[state]


def know_checksum(state: State, sha256: str) -> None:
    """Store the SHA-256 that another process computed, for files that are in this state here."""
    _known[state] = sha256


def know_checksums(paths: Iterable[Path], map_files: FileMap) -> Iterator[None]:
    """Compute the SHA-256 of files elsewhere, one at a step, for `known_checksum`.

    Args:
        paths: The files.
        map_files: Applies a function to files, such as the ``map`` of an engine.

    Raises:
        OSError: If there is no such file.
    """
    for state, sha256 in map_files(_state_and_checksum, list(paths)):
        # Of this state alone: a file that changes meanwhile is read again.
        know_checksum(state, sha256)
        yield


State = tuple[str | int, ...]
"""What a file on the disk is known by: its path, number, size and times."""
_known: dict[State, str] = {}


def _state(path: Path) -> State:
    status = path.stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    return str(path.resolve()), status.st_ino, status.st_size, *times


def _state_and_checksum(path: Path) -> tuple[State, str]:
    return _state(path), checksum(path)


def first_difference(old: Any, new: Any, name: str = "") -> str:
    """Return the name of what differs first in two identities: of a file, else of a field."""
    if isinstance(old, dict) and isinstance(new, dict):
        own = old.get("file") or old.get("table") or old.get("folder")
        name = own if isinstance(own, str) else name
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                inner = name if key in ("sha256", "file", "files", "revision") and name else key
                return first_difference(old.get(key), new.get(key), inner)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        pairs = zip(old, new, strict=True)
        return next((first_difference(a, b, name) for a, b in pairs if a != b), name)
    return name


def flush(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try(lock: FileLock, path: Path) -> None:
    """Take a lock, or raise: `Timeout` if it is held, `OSError` if its file cannot be made."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if path.exists():
            raise
        path.touch()  # filelock says "held" also where the system makes no file, as in /proc
        lock.acquire(timeout=0)


def special_kind(path: Path) -> str | None:
    """Return what a path is, links followed, if neither file, folder nor nothing."""
    if path.is_block_device() or path.is_char_device():
        return "a device"
    if path.is_fifo():
        return "a pipe"
    return "a socket" if path.is_socket() else None


@contextmanager
def locked(path: Path, purpose: str = "", *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock; the system releases it if the process is killed.

    Args:
        path: Lock file; it is created with its folder, and may be removed while locked.
        purpose: Words for the log if another process holds the lock.
        wait: Wait for the lock, or raise at once.

    Raises:
        BlockingIOError: If another process holds the lock and ``wait`` is false.
        OSError: If the lock file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        _try(lock, path)
    except Timeout:
        if not wait:
            raise BlockingIOError(f"another process holds the lock {path}") from None
        log.info("waiting for another process %s", purpose or f"that holds {path}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
