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
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

from gotd.storage.checks import check_at_least

Item = TypeVar("Item")
Result = TypeVar("Result")
Tool = TypeVar("Tool")


@runtime_checkable
class SeveralCalls(Protocol):
    """A tool that threads call at once, since most of a call is spent on other processes."""

    @property
    def calls_at_once(self) -> int:
        """Return how many calls run at once."""
        ...

    def close(self) -> None:
        """End the processes, so that calls that wait for them end with an error."""
        ...


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
        """Yield ``function(tool, item)`` in order.

        Use it if the function needs something that is slow to make, such as a loaded model. It is
        made once per process, and the threads of a process share it.
        """
        ...


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
        else:
            yield from _in_threads(self.workers, function, items)

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(tool, item)`` in order, in more threads for `SeveralCalls`."""
        tool = make()
        call = partial(function, tool)
        if isinstance(tool, SeveralCalls):
            threads = max(self.workers, tool.calls_at_once)
            yield from _in_threads(threads, call, items, tool.close)
        else:
            yield from self.map(call, items)


def _in_threads(
    threads: int,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    close: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Yield ``function(item)`` in order, and call ``close`` before the last threads are awaited."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(copy_context().run, function, item))
                if len(pending) >= 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            close()


THIS_PROCESS = LocalEngine()
"""The engine of a caller that names none."""
