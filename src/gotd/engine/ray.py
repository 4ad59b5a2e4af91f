"""Map a function over shards on a Ray cluster, or on a local Ray.

Worker processes run the same functions on the same blocks, and results keep their order. So
a sum over results is bit-identical to that of `LocalEngine` with as many threads per worker.
Functions hold memory-mapped arrays, which are sent as paths: all nodes must have the same
files under the same names.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from threading import Lock, Semaphore
from typing import Any

from gotd.engine.local import Item, Result, SeveralCalls, Tool
from gotd.storage.checks import check_at_least
from gotd.storage.errors import WorkerKilled
from gotd.storage.hub_models import hub_variables

GROUPS_PER_WORKER = 4
"""Tasks per worker and map: few, for little overhead, but enough to balance the load."""

MOST_IN_GROUP = 64
"""Largest number of items in one task."""

BUFFERED_PER_WORKER = 4
"""Tasks per worker that are queued or done while an earlier task still runs."""

CALLS_WITH_GPU = 16
"""Calls that an actor with a GPU takes at once: its tool says how many of them run."""

CONNECT_S = 15.0
"""Seconds to wait for a cluster to answer."""

RETRIES = 5
"""Retries of a task whose worker process or node dies."""

KILLED = ("WorkerCrashedError", "RayActorError", "OutOfMemoryError", "NodeDiedError")
"""Ray's errors of a worker that died."""


@dataclass(frozen=True)
class RayEngine:
    """An engine that runs functions as Ray tasks, and models in a pool of Ray actors.

    A task is run again if its worker dies. That is safe because shard functions write
    complete ranges of a file. An error raised by the function itself is not retried.

    Args:
        workers: Tasks that run at once, and actors of a pool.
        address: Address of the cluster: ``auto``, ``host:port`` or ``ray://host:port``. With
            ``None`` the environment variable ``RAY_ADDRESS`` is used; without it, a Ray on
            this machine is started that ends with this process.
        threads: Threads of each worker. They change sums over rows in the last bits.
        gpus_per_worker: GPUs that each actor of a pool holds.
    """

    workers: int = 2
    address: str | None = None
    threads: int = 1
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        check_at_least(self, 1, "workers", "threads", prefix="engine ")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``.

        The function is put into the object store once, and consecutive items form one
        task. At most ``workers`` tasks run at once, since two tasks on one core would
        compete for its cache. A long iterable is never held in memory completely.

        Raises:
            ModuleNotFoundError: If Ray is not installed.
            ConnectionError: If the cluster cannot be reached.
            WorkerKilled: If workers keep dying.
            Exception: The error of ``function``, at the item that caused it.
        """
        ray = self._connect()
        task = ray.remote(_call_each).options(
            num_cpus=1, max_retries=RETRIES, runtime_env=_environment(ray)
        )
        # In a list, so that Ray passes the reference itself: a worker then fetches it once.
        shared = [ray.put(function)]
        groups = enumerate(_groups(items, self._group_size(items)))
        running: dict[Any, int] = {}
        finished: dict[int, Any] = {}
        wanted = 0
        try:
            while True:
                limit = min(self.workers, BUFFERED_PER_WORKER * self.workers - len(finished))
                for number, group in islice(groups, max(0, limit - len(running))):
                    running[task.remote(shared, group, self.threads)] = number
                if running:
                    # Collect results even if one can be yielded, so that no worker is idle.
                    wait_s = 0 if wanted in finished else None
                    ready, _ = ray.wait(list(running), num_returns=1, timeout=wait_s)
                    finished |= {running.pop(reference): reference for reference in ready}
                if wanted in finished:
                    with _errors_unwrapped(ray):
                        results = ray.get(finished.pop(wanted))
                    yield from results
                    wanted += 1
                elif not running:
                    return
        finally:
            # `force` ends the process, too. Interrupted in the middle of an import, a worker
            # would fail at the next task.
            for reference in running:
                ray.cancel(reference, force=True)

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(tool, item)`` in order; each actor of a pool has one tool.

        Raises:
            ModuleNotFoundError: If Ray is not installed.
            ConnectionError: If the cluster cannot be reached.
            ValueError: If actors need GPUs and the cluster has none.
            WorkerKilled: If actors keep dying.
            Exception: The error of ``make`` or ``function``.
        """
        ray = self._connect()
        listed = list(items)
        actor = ray.remote(_Actor).options(
            num_gpus=self.gpus_per_worker or None,
            max_restarts=-1,
            max_task_retries=RETRIES,
            max_concurrency=CALLS_WITH_GPU if self.gpus_per_worker else 1,
            runtime_env=_environment(ray),
        )
        count = min(self.workers, len(listed), self._most_actors(ray))
        # Held here, since an actor that is started again reads its arguments again.
        tool, call = ray.put(make), ray.put(function)
        actors = [actor.remote(tool, call, self.threads) for _ in range(count)]
        # Each actor several times, so that it has further tasks while an earlier one still runs.
        tasks = CALLS_WITH_GPU if self.gpus_per_worker else BUFFERED_PER_WORKER
        pool = importlib.import_module("ray.util").ActorPool(actors * tasks)
        try:
            with _errors_unwrapped(ray):
                yield from pool.map(lambda worker, item: worker.call.remote(item), listed)
        finally:
            for worker in actors:
                ray.kill(worker)

    def _group_size(self, items: Iterable[Any]) -> int:
        if not isinstance(items, Sized):
            return 1
        return max(1, min(MOST_IN_GROUP, len(items) // (GROUPS_PER_WORKER * self.workers)))

    def _most_actors(self, ray: Any) -> int:
        """Return how many actors the free GPUs suffice for; 1 waits for a GPU to become free."""
        if not self.gpus_per_worker:
            return self.workers
        gpus = ray.cluster_resources().get("GPU", 0.0)
        free = ray.available_resources().get("GPU", 0.0)
        if gpus < self.gpus_per_worker:
            raise ValueError(
                f"each worker needs {self.gpus_per_worker:g} GPU and the Ray cluster has "
                f"{gpus:g}; leave out --device cuda or join another cluster"
            )
        return max(1, int(free / self.gpus_per_worker))

    def _connect(self) -> Any:
        """Import Ray and connect to the cluster, or start one on this machine."""
        # Silences Ray's long warnings about settings that nobody changed.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if ray.is_initialized():
            return ray
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        # A local Ray gets spare logical CPUs: if the pool held all, the tasks that feed it
        # would get none.
        local = {"num_cpus": self.workers + 4, "include_dashboard": False}
        try:
            _check_reachable(address)
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                **(local if address == "local" else {}),
            )
        except (OSError, ValueError, RuntimeError) as error:
            cause = str(error).splitlines()[0]
            raise ConnectionError(
                f"no Ray cluster at {address!r} ({cause}); check --ray-address or RAY_ADDRESS"
            ) from error
        return ray


def _environment(ray: Any) -> dict[str, Any]:
    """Return what workers get beside the environment of their cluster.

    They inherit that of `ray start`, not of this process, and would ask another Hub.
    """
    # With each task, not with the connection: the caller may have made that, and the folder of
    # what was fetched changes with the store. What the caller's own `ray.init` sets stays.
    set_already = ray.get_runtime_context().runtime_env.get("env_vars", {})
    # Ray keeps these values in its control store, and shows them in its logs and dashboard. So no
    # token is among them. A worker uses that of `ray start`, or a file that its node has.
    added = hub_variables()
    return {"env_vars": {name: added[name] for name in added if name not in set_already}}


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens at the address; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


@contextmanager
def _errors_unwrapped(ray: Any) -> Iterator[None]:
    """Raise the errors of functions themselves, without Ray's wrapper."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        raise (cause if isinstance(cause, BaseException) else error) from None
    except tuple(getattr(ray.exceptions, name) for name in KILLED) as error:
        raise WorkerKilled(
            f"a Ray worker died {RETRIES + 1} times at one task; check that it has enough memory"
        ) from error


# In the workers -------------------------------------------------------------------------

_FETCHED: dict[str, Any] = {}
"""The function that this worker process ran last, by its reference."""


def _call_each(shared: list[Any], items: list[Any], threads: int) -> list[Any]:
    import ray

    (reference,) = shared
    if reference.hex() not in _FETCHED:
        _FETCHED.clear()
        _FETCHED[reference.hex()] = ray.get(reference)
        _limit_threads(threads)
    function = _FETCHED[reference.hex()]
    return [function(item) for item in items]


class _Actor:
    """A worker of a pool, which makes its tool, such as a loaded model, once."""

    def __init__(
        self, make: Callable[[], Any], function: Callable[[Any, Any], Any], threads: int
    ) -> None:
        _limit_threads(threads)
        self._make, self._function = make, function
        self._making = Lock()

    # Not in the constructor: if `make` fails there, Ray reports a dead actor, not the error.
    @cached_property
    def _tool(self) -> Any:
        return self._make()

    @cached_property
    def _turns(self) -> Semaphore:
        several = isinstance(self._tool, SeveralCalls)
        return Semaphore(self._tool.calls_at_once if several else 1)

    def call(self, item: Any) -> Any:
        with self._making:
            tool, turns = self._tool, self._turns
        with turns:
            return self._function(tool, item)


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
