"""Progress of the step that runs: a step counts rows, and whoever watches shows them.

A step calls `tick`, which does nothing if nobody watches. `gotd.engine.progress` draws bars
on a terminal: ``with watch(watch_terminal()): store.get(step)``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

log = logging.getLogger(__name__)

Tick = Callable[[int], None]
"""Called with the number of rows that were done since the last call."""

LONG_S = 20.0
"""Without a watcher, a step that takes longer is logged: after this time, and when built."""


Watcher = Callable[[str, int | None], AbstractContextManager[Tick]]
"""Called with label and number of rows of a step that is built, before it is built. Returns a
context that lasts as long as the step and gives the function to count with."""


@contextmanager
def long_steps(label: str, total: int | None) -> Iterator[Tick]:
    """Log the start and end of a step that takes longer than `LONG_S`."""
    began = time.perf_counter()
    announcement = threading.Timer(LONG_S, log.info, (f"building {label}",))
    announcement.daemon = True
    announcement.start()
    try:
        yield lambda rows: None
    finally:
        announcement.cancel()
    if (elapsed_s := time.perf_counter() - began) > LONG_S:
        log.info("built %s in %.0f s", label, elapsed_s)


_watcher: ContextVar[Watcher] = ContextVar("watcher", default=long_steps)
_tick: ContextVar[Tick] = ContextVar("tick", default=lambda rows: None)


def tick(rows: int = 1) -> None:
    """Count rows of the step that runs as done."""
    _tick.get()(rows)


def watch(watcher: Watcher) -> AbstractContextManager[None]:
    """Report the steps that the block builds to a watcher."""
    return _set(_watcher, watcher)


@contextmanager
def step(label: str, total: int | None = None) -> Iterator[None]:
    """Report the block to the watcher as a step of ``total`` rows; `Store` calls this."""
    with _watcher.get()(label, total) as count, _set(_tick, count):
        yield


@contextmanager
def _set(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
