"""Show how far a step is: bars on a terminal, a line a step elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from gotd.engine.local import Engine, Item, Result, Tool

log = logging.getLogger(__name__)

Tick = Callable[[int], None]


class Watch(Protocol):
    """Whoever wants to know how far a step is."""

    def step(self, label: str, total: int | None = None) -> Any:
        """Open a step of ``total`` steps; the context's value is called with steps done."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Tick]:
        """Run a step."""
        yield lambda steps: None


class Lines:
    """Logs one line when a step is done."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Tick]:
        """Run a step."""
        began = time.perf_counter()
        yield lambda steps: None
        log.info("%s: %.1f s", label, time.perf_counter() - began)


class Bars:
    """Draws a bar for the step that runs."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Tick]:
        """Run a step."""
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
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(label, total=total)
            yield lambda steps: progress.advance(task, steps)
            done = progress.tasks[0].completed
            progress.update(
                task, total=max(total or 0, done, 1), completed=max(total or 0, done, 1)
            )


def watch_terminal() -> Watch:
    """Draw bars if somebody is looking."""
    return Bars() if sys.stderr.isatty() else Lines()


@dataclass(frozen=True)
class Watched:
    """An engine whose results are counted as they come.

    Args:
        engine: Does the work.
        tick: Told of every result; stays here when the engine is sent elsewhere.
    """

    engine: Engine
    tick: Tick

    def __reduce__(self) -> Any:
        return _itself, (self.engine,)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``."""
        for result in self.engine.map(function, items):
            self.tick(1)
            yield result

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(tool, item)`` in the order of ``items``."""
        for result in self.engine.map_with(make, function, items):
            self.tick(1)
            yield result


def _itself(engine: Engine) -> Engine:
    return engine
