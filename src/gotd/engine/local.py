"""Map a function over shards with threads on this machine.

NumPy, torch and Arrow release the interpreter lock, so threads run in parallel. A pool of
processes would copy memory-mapped embeddings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gotd.storage.checks import check_at_least

Item = TypeVar("Item")
Result = TypeVar("Result")
Tool = TypeVar("Tool")


class Engine(Protocol):
    """Interface of engines, which map a function over shards and keep their order."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``."""
        ...

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(tool, item)`` in order; here all workers share one ``tool``.

        Use it if the function needs something that is slow to make, such as a loaded model. An
        engine of several processes calls ``make`` once per process.
        """
        tool = make()
        yield from self.map(lambda item: function(tool, item), items)


@dataclass(frozen=True)
class LocalEngine(Engine):
    """An engine that runs functions in threads on this machine.

    Args:
        workers: Shards that run at once. With 1 no thread is started, and the numerical
            libraries use all cores for that shard.
    """

    workers: int = 1

    def __post_init__(self) -> None:
        check_at_least(self, 1, "workers", prefix="engine ")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``.

        At most ``2 * workers`` items are in memory at once. If one fails, or the caller
        stops early, items that have not started are dropped.

        Raises:
            Exception: The error of ``function``, at the item that caused it.
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


THIS_PROCESS = LocalEngine()
"""The engine of a caller that names none."""
