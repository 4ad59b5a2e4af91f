"""Terminal output for the progress of steps: bars, or one log line for each step."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gotd.engine.local import Engine, Item, Result, Tool
from gotd.storage import progress
from gotd.storage.progress import Tick
from gotd.storage.progress import Watcher as Watch

__all__ = ["Bars", "Lines", "Silent", "Tick", "Watch", "Watched", "watch_terminal"]

log = logging.getLogger(__name__)


class Silent:
    """A watcher that shows nothing."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Tick]:
        """Run a step."""
        yield lambda rows: None


class Lines:
    """A watcher that logs one line when a step is done."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Tick]:
        """Run a step and log its time."""
        began = time.perf_counter()
        yield lambda rows: None
        log.info("%s: %.1f s", label, time.perf_counter() - began)


class Bars:
    """A watcher that draws a progress bar for the step that runs."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Tick]:
        """Run a step and show its rows in a bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total)
            yield lambda rows: bar.advance(task, rows)
            rows = max(total or 0, bar.tasks[0].completed, 1)
            bar.update(task, total=rows, completed=rows)


def watch_terminal() -> Watch:
    """Return a watcher that draws bars on a terminal, or else logs lines."""
    return Bars() if sys.stderr.isatty() else Lines()


@dataclass(frozen=True)
class Watched:
    """An engine whose results are counted as they arrive.

    Args:
        engine: Does the work.
        tick: Called with 1 for every result; not sent to other processes.
    """

    engine: Engine
    tick: Tick = progress.tick

    def __reduce__(self) -> Any:
        return _itself, (self.engine,)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``."""
        return self._counted(self.engine.map(function, items))

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(tool, item)`` in the order of ``items``."""
        return self._counted(self.engine.map_with(make, function, items))

    def _counted(self, results: Iterator[Result]) -> Iterator[Result]:
        for result in results:
            self.tick(1)
            yield result


def _itself(engine: Engine) -> Engine:
    return engine
