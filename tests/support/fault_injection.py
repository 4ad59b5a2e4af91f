"""File operations that can be counted, refused, or be the last of a process.

The layer is loaded in a child process of a test alone; the program itself knows nothing of it.
CPython reports each operation by an audit event before it happens. Writers of other languages
have no events, so their entry points in Python are wrapped.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
NEEDS_SPACE = ("open", "os.mkdir", "os.link", "os.symlink", "parquet", "safetensors")
"""Operations that a full disk refuses; a rename or a removal needs none."""
CHANGES = {
    "grow": lambda content: (
        content + b'{"id": "new", "text": "the dog barks and the cat sleeps"}\n'
    ),
    "cut": lambda content: content[: content.index(b"\n", len(content) // 2) + 1],
    "replace": lambda content: content.replace(b"barks", b"growls"),
}
"""What happens to an input while it is read."""


class Injection:
    """One fault at one operation.

    Args:
        fault: ``kind`` (``count``, ``kill``, ``signal``, ``errno`` or ``change``), ``at`` (number
            of the operation, from 1), and ``number`` (of a signal or an error), ``path`` of a file
            and ``how`` it changes.
        roots: Folders whose operations count; others are those of libraries.
        trace: File that gets one line for each operation.
    """

    def __init__(self, fault: dict[str, Any], roots: list[str], trace: str) -> None:
        self.fault, self.roots = fault, tuple(roots)
        self.trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self.owner, self.count, self.busy = os.getpid(), 0, False

    def install(self) -> None:
        """Watch this process from now on."""
        import pyarrow.parquet as pq
        import safetensors.torch

        opened = pq.ParquetWriter.__init__

        def open_parquet(writer: Any, where: Any, *rest: Any, **named: Any) -> None:
            if isinstance(where, str | os.PathLike):
                self.before("parquet", os.fspath(where))
            opened(writer, where, *rest, **named)

        pq.ParquetWriter.__init__ = open_parquet
        self._wrap(safetensors.torch, "serialize_file", "safetensors", 1)
        self._wrap(os, "fsync", "fsync", None)
        sys.addaudithook(self._event)

    def _wrap(self, module: Any, name: str, operation: str, place: int | None) -> None:
        call: Callable[..., Any] = getattr(module, name)

        def counted(*given: Any, **named: Any) -> Any:
            path = self.roots[0] if place is None else os.fspath(given[place])
            self.before(operation, path)
            return call(*given, **named)

        setattr(module, name, counted)

    def _event(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            if isinstance(path, str | bytes) and flags is not None and flags & WRITES:
                self.before("open", os.fsdecode(path))
        elif event in EVENTS:
            self.before(event, os.fsdecode(given[0]) if isinstance(given[0], str | bytes) else "")

    def before(self, operation: str, path: str) -> None:
        """Count an operation, and do what the fault says where it is its turn."""
        # A relative path is that of a folder that is being removed (`dir_fd`).
        if self.busy or os.getpid() != self.owner:
            return
        if os.path.isabs(path) and not path.startswith(self.roots):  # noqa: PTH117 - a string
            return
        self.count += 1
        self.busy = True
        try:
            os.write(self.trace, f"{self.count} {operation} {path}\n".encode())
            self._act(operation, path)
        finally:
            self.busy = False

    def _act(self, operation: str, path: str) -> None:
        kind, at = self.fault["kind"], self.fault.get("at", 0)
        if kind == "errno":  # what is full or read-only stays so
            full = self.fault["number"] == errno.ENOSPC
            if self.count >= at and (operation in NEEDS_SPACE or not full):
                raise refusal(self.fault["number"], operation, path)
        elif self.count != at:
            return
        elif kind == "kill":
            os.kill(self.owner, signal.SIGKILL)
        elif kind == "signal":
            os.kill(self.owner, self.fault["number"])
        elif kind == "change":
            change(Path(self.fault["path"]), self.fault["how"])


def change(path: Path, how: str) -> None:
    """Change an input: a new file takes its place, or the same file has other content."""
    content = CHANGES[how](path.read_bytes())
    if how == "replace":
        new = path.with_name(f"{path.name}.new")
        new.write_bytes(content)
        new.replace(path)
    else:
        path.write_bytes(content)


def refusal(number: int, operation: str, path: str) -> Exception:
    """Return the error that the real operation raises: not all of them name the file."""
    words = os.strerror(number)
    if operation == "safetensors":
        from safetensors import SafetensorError

        return SafetensorError(f'Error while serializing: IoError(Os {{ message: "{words}" }})')
    if operation == "parquet":
        return OSError(number, f"Failed to open local file '{path}'. Detail: {words}")
    return OSError(number, words) if operation == "fsync" else OSError(number, words, path)
