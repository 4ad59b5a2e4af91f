"""Whatever the number of workers, the same results in the same order."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from gotd.engine.local import LocalEngine


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(workers):
    def later_for_smaller(item: int) -> int:
        time.sleep(0.001 * (9 - item % 10))
        return item * item

    assert list(LocalEngine(workers).map(later_for_smaller, range(40))) == [
        n * n for n in range(40)
    ]
    assert list(LocalEngine(workers).map(later_for_smaller, [])) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_a_long_iterable_is_never_held_whole(workers):
    drawn: list[int] = []
    taken = 0

    def items():
        for item in range(60):
            drawn.append(item)
            yield item

    for result in LocalEngine(workers).map(lambda item: item, items()):
        taken += 1
        assert result == taken - 1
        assert len(drawn) - taken < 2 * workers
    assert taken == 60


def test_workers_run_at_once():
    both = threading.Barrier(2, timeout=10)
    assert sorted(LocalEngine(2).map(lambda item: (both.wait(), item)[1], [0, 1])) == [0, 1]


def test_one_worker_starts_no_thread():
    names = set(LocalEngine(1).map(lambda _: threading.current_thread().name, range(3)))
    assert names == {threading.current_thread().name}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_comes_at_its_item_and_drops_what_has_not_begun(workers):
    begun: list[int] = []

    def fail_at_three(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("item 3")
        time.sleep(0.01 if item < 3 else 0.1)
        return item

    results = LocalEngine(workers).map(fail_at_three, range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3"):
        next(results)
    assert len(begun) <= 3 + workers + 1


def test_a_caller_that_stops_early_waits_for_what_runs_only():
    begun: list[int] = []
    gate = threading.Event()

    def wait(item: int) -> int:
        begun.append(item)
        if item:
            gate.wait(10)
        return item

    results = LocalEngine(2).map(wait, range(100))
    assert isinstance(results, Generator)
    assert next(results) == 0
    threading.Timer(0.05, gate.set).start()
    results.close()
    assert len(begun) <= 4


class Waits:
    """A tool of several calls, which wait until they meet, or until it is closed."""

    calls_at_once = 3

    def __init__(self) -> None:
        self.met = threading.Barrier(3)

    def close(self) -> None:
        self.met.abort()


def test_a_tool_says_how_many_calls_run_at_once():
    found = LocalEngine(1).map_with(Waits, lambda tool, item: (tool.met.wait(9), item)[1], range(6))
    assert list(found) == list(range(6))


def test_a_caller_that_stops_does_not_wait_for_the_processes_of_a_tool():
    def call(tool: Waits, item: int) -> int:
        if item:
            tool.met.wait(60)  # only two arrive
        return item

    began = time.perf_counter()
    results = LocalEngine(1).map_with(Waits, call, range(3))
    assert isinstance(results, Generator)
    assert next(results) == 0
    results.close()
    assert time.perf_counter() - began < 30


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(workers):
    with pytest.raises(ValueError, match="workers must be at least 1"):
        LocalEngine(workers)
