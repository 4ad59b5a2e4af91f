"""The tracker of the current cell, to which training sends its loss while it runs.

The build of a step takes no tracker, because no cache key may depend on one. Training
finds the run of the current cell in a context variable instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

LogLoss = Callable[[int, Mapping[str, float]], None]
"""Records values at an optimiser step; must neither block nor raise."""


class Run(Protocol):
    """One cell while it is tracked."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values at an optimiser step; must neither block nor raise."""
        ...

    def finish(self, record: Mapping[str, Any] | None = None, failed: bool = False) -> None:
        """Record what a finished cell measured and close the run; a second call does nothing."""
        ...


class Tracker(Protocol):
    """Factory of runs."""

    def start(
        self, key: str, experiment: str, axes: Mapping[str, Any], config: Mapping[str, Any]
    ) -> Run:
        """Open the run of a cell."""
        ...


current_logger: ContextVar[LogLoss | None] = ContextVar("current_logger", default=None)
"""Where training logs its loss; ``None`` outside a tracked cell."""


@contextmanager
def tracking(
    tracker: Tracker,
    key: str,
    experiment: str,
    axes: Mapping[str, Any],
    config: Mapping[str, Any],
) -> Iterator[Run]:
    """Track what is trained inside the block, as the run of one cell.

    Args:
        tracker: What opens the run.
        key: Key of the cell's record; identifies the run.
        experiment: Name of the experiment; groups runs.
        axes: Task, arm and so on of the cell.
        config: Configuration of the cell, JSON-able.

    Yields:
        The run, to be finished with the record of the cell. Otherwise it is closed at the
        end of the block, as failed if the block raises.
    """
    run = _Guarded(lambda: tracker.start(key, experiment, axes, config))
    token = current_logger.set(run.log)
    failed = True
    try:
        yield run
        failed = False
    finally:
        current_logger.reset(token)
        run.finish(failed=failed)


class _Guarded:
    """A run whose errors are logged once and never reach the cell.

    Args:
        start: Opens the run.
    """

    def __init__(self, start: Callable[[], Run]) -> None:
        self._run: Run | None = None
        self._run = self._call(start)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values; see `Run.log`."""
        if self._run is not None:
            self._call(partial(self._run.log, step, values))

    def finish(self, record: Mapping[str, Any] | None = None, failed: bool = False) -> None:
        """Close the run; see `Run.finish`."""
        if self._run is not None:
            self._call(partial(self._run.finish, record, failed))

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - a tracker may come from any package
            logging.getLogger(__name__).warning("the tracker failed and is left out: %s", error)
            self._run = None
            return None


def log_loss(step: int, values: Mapping[str, float]) -> None:
    """Send values to the tracker of the current cell, if there is one."""
    log = current_logger.get()
    if log is not None:
        log(step, values)
