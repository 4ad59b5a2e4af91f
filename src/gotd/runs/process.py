"""How a command behaves where it is stopped or warned, or nobody reads what it prints."""

from __future__ import annotations

import io
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

KILLED = {
    "BrokenExecutor": "perhaps with fewer processes (hydra.launcher.n_jobs=1)",
    "UncompletedJobError": "perhaps with more memory or time (hydra.launcher.mem_gb, timeout_min)",
}
"""What else to change where a worker was killed, by the class of its launcher's error.

The classes are those of `concurrent.futures`, joblib's base, and of submitit, which is optional.
"""


def killed_worker(error: BaseException) -> str | None:
    """Return what to say of an error that means a killed worker; ``None`` for any other one."""
    for one in type(error).__mro__:
        if remedy := KILLED.get(one.__name__):
            return (
                "a worker process was killed, often for lack of memory; the same command "
                f"resumes, {remedy}"
            )
    return None


@contextmanager
def stopped_as_interrupted() -> Iterator[None]:
    """Raise an interrupt on a request to terminate, so that the launcher ends its workers."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # signals reach the main thread alone
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def warnings_logged() -> Iterator[None]:
    """Log each warning of Python as one line, without the place in the source."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        logging.getLogger("gotd").warning("%s", " ".join(str(message).split()))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class _Output(io.TextIOBase):
    """The standard output, whose reader may go away without an end of the sweep.

    Args:
        stream: The stream; ``None`` if it was closed from the start.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, or drop it where nobody reads it."""
        with suppress(BrokenPipeError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        with suppress(BrokenPipeError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return bool(self._stream and not self._stream.closed and self._stream.isatty())

    def fileno(self) -> int:
        """Return the number of the stream's descriptor."""
        return self._stream.fileno()


@contextmanager
def closed_output_ignored() -> Iterator[None]:
    """Ignore a closed standard output: the report is in a folder, too."""
    before = sys.stdout
    sys.stdout = _Output(before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before
