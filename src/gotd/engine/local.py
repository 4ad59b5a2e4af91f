"""Map a shard function over shards on this machine.

Threads, because the work inside a shard is NumPy, torch or Arrow, which release
the interpreter lock; a process pool would copy memory-mapped embeddings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Tool = TypeVar("Tool")


class Engine(Protocol):
    """Anything that can map a function over shards and keep their order."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``."""
        ...

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(make(), item)`` in order, calling ``make`` once per worker.

        For work that needs something costly to make, such as a loaded model.
        """
        ...


@dataclass(frozen=True)
class LocalEngine:
    """Run shard functions on this machine.

    Args:
        workers: Shards in flight at once. With 1 no thread is started, so that
            the numerical libraries keep all cores for the one shard.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"engine workers must be at least 1, not {self.workers}")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``.

        At most ``2 * workers`` items are in flight, so a long iterable of shards
        is never held in memory as a whole. When one fails, or the caller stops early,
        items that have not begun are dropped.

        Raises:
            Exception: Whatever ``function`` raised, at the item it raised for.
        """
        if self.workers == 1:
            yield from map(function, items)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            pending: deque[Future[Result]] = deque()
            try:
                for item in items:
                    pending.append(pool.submit(copy_context().run, function, item))
                    if len(pending) >= 2 * self.workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(tool, item)`` in order, all workers sharing one ``tool``."""
        tool = make()
        yield from self.map(lambda item: function(tool, item), items)
