"""Terminal output for the progress of steps: bars, or one log line for each step."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gotd.engine.local import Engine, Item, Result, Tool
from gotd.storage import progress

log = logging.getLogger(__name__)


@contextmanager
def lines(label: str, total: int | None) -> Iterator[progress.Tick]:
    """Log the time of a step when it is done."""
    began = time.perf_counter()
    yield lambda rows: None
    log.info("%s: %.1f s", label, time.perf_counter() - began)


@contextmanager
def bars(label: str, total: int | None) -> Iterator[progress.Tick]:
    """Show the rows of the step that runs in a progress bar."""
    from rich import progress as rich
    from rich.console import Console
    from rich.text import Text

    class Rate(rich.ProgressColumn):
        """Rows in a second."""

        def render(self, task: rich.Task) -> Text:
            """Return the rate once it is known."""
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")

    columns = (
        rich.TextColumn("{task.description:<28}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        Rate(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda rows: bar.advance(task, rows)
        rows = max(total or 0, bar.tasks[0].completed, 1)
        bar.update(task, total=rows, completed=rows)


def watch_terminal() -> progress.Watcher:
    """Return a watcher that draws bars on a terminal, or else logs lines."""
    return bars if sys.stderr.isatty() else lines


@dataclass(frozen=True)
class Watched:
    """An engine whose results are counted as they arrive, see `gotd.storage.progress`.

    Args:
        engine: Does the work.
    """

    engine: Engine

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``."""
        return _counted(self.engine.map(function, items))

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(tool, item)`` in the order of ``items``."""
        return _counted(self.engine.map_with(make, function, items))


def _counted(results: Iterator[Result]) -> Iterator[Result]:
    for result in results:
        progress.tick()
        yield result
