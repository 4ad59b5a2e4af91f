"""Map a shard function over shards on a Ray cluster, or on a local Ray.

The same functions as on this machine run in worker processes, in the same blocks, and
their results come back in the same order, so what is reduced from them is the same to
the last bit (given as many threads per worker). Functions hold file-backed arrays and
shards, which travel as paths: all nodes must see the same files under the same names.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gotd.engine.local import Item, Result, Tool

GROUPS_PER_WORKER = 4
"""Tasks per worker and map: few enough to cost nothing, enough to even out the load."""

MOST_IN_GROUP = 64
"""Items per task at most, and where their number is not known beforehand."""

HELD_PER_WORKER = 4
"""Tasks per worker that may be done while an earlier one, wanted first, still runs."""

CONNECT_S = 15.0
"""Seconds that a cluster has to answer."""

RETRIES = 5
"""Times that a task is run again when its worker process or its node dies."""


@dataclass(frozen=True)
class RayEngine:
    """Run shard functions as Ray tasks, and model work in a pool of Ray actors.

    A task whose worker dies is run again elsewhere; shard functions write into files
    whole ranges at a time, so running one twice does no harm. An error that the
    function itself raises is not retried.

    Args:
        workers: Tasks that run at once, and actors of a pool.
        address: Of the cluster: ``auto``, ``host:port`` or ``ray://host:port``;
            ``None`` for what the environment variable ``RAY_ADDRESS`` names, and
            otherwise a Ray on this machine that ends with this process.
        threads: Threads of each worker. Sums over rows depend on it in the last bits.
        gpus_per_worker: GPUs that each actor of a pool holds.
    """

    workers: int = 2
    address: str | None = None
    threads: int = 1
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"engine {name} must be at least 1, not {getattr(self, name)}")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in the order of ``items``.

        The function goes into the object store once; consecutive items go together as
        one task. No more tasks run than there are workers: two on one core would only
        take each other's cache. A long iterable is never held in memory as a whole.

        Raises:
            ModuleNotFoundError: If Ray is not installed.
            ConnectionError: If the cluster cannot be reached.
            RuntimeError: If workers keep dying.
            Exception: Whatever ``function`` raised, at the item it raised for.
        """
        ray = self._connect()
        task = ray.remote(_call_each).options(num_cpus=1, max_retries=RETRIES)
        # In a list, so that Ray hands the worker the reference: it fetches a function once.
        shared = [ray.put(function)]
        groups = enumerate(_groups(items, self._group_size(items)))
        running: dict[Any, int] = {}
        finished: dict[int, Any] = {}
        following = 0
        try:
            while True:
                room = min(self.workers, HELD_PER_WORKER * self.workers - len(finished))
                for number, group in islice(groups, max(0, room - len(running))):
                    running[task.remote(shared, group, self.threads)] = number
                if running:
                    # Look even where there is something to yield, so that no worker is idle.
                    wait_s = 0 if following in finished else None
                    ready, _ = ray.wait(list(running), num_returns=1, timeout=wait_s)
                    finished |= {running.pop(reference): reference for reference in ready}
                if following in finished:
                    yield from _results(ray, finished.pop(following))
                    following += 1
                elif not running:
                    return
        finally:
            # With its process: interrupted in the middle of an import, a worker would be of
            # no use to the next task and yet be given it.
            for reference in running:
                ray.cancel(reference, force=True)

    def map_with(
        self,
        make: Callable[[], Tool],
        function: Callable[[Tool, Item], Result],
        items: Iterable[Item],
    ) -> Iterator[Result]:
        """Yield ``function(tool, item)`` in order; each actor of a Ray Data pool has a tool.

        Raises:
            ModuleNotFoundError: If Ray is not installed.
            ConnectionError: If the cluster cannot be reached.
            ValueError: If actors are to hold GPUs and the cluster has none.
            Exception: Whatever ``make`` or ``function`` raised.
        """
        ray = self._connect()
        importlib.import_module("ray.data")
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        listed = list(items)
        if not listed:
            return
        actors = min(self.workers, len(listed), self._room_for_actors(ray))
        rows = ray.data.from_items(
            [{"number": number} for number in range(len(listed))],
            override_num_blocks=min(len(listed), 16 * self.workers),
        )
        done = rows.map_batches(
            _Actor,
            fn_constructor_args=(make, function, listed, self.threads),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=None if self.gpus_per_worker else 1,
            num_gpus=self.gpus_per_worker or None,
        )
        waiting: dict[int, Result] = {}
        following = 0
        for row in done.iter_rows():
            error, result = ray.cloudpickle.loads(row["outcome"])
            if error is not None:
                raise error
            waiting[row["number"]] = result
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    def _group_size(self, items: Iterable[Any]) -> int:
        if not isinstance(items, Sized):
            return 1
        return max(1, min(MOST_IN_GROUP, len(items) // (GROUPS_PER_WORKER * self.workers)))

    def _room_for_actors(self, ray: Any) -> int:
        """Count the actors that the cluster's GPUs are enough for."""
        if not self.gpus_per_worker:
            return self.workers
        gpus = ray.cluster_resources().get("GPU", 0.0)
        if gpus < self.gpus_per_worker:
            raise ValueError(
                f"each worker is to hold {self.gpus_per_worker:g} GPU and the Ray cluster has "
                f"{gpus:g}; leave out --device cuda or join another cluster"
            )
        return int(gpus / self.gpus_per_worker)

    def _connect(self) -> Any:
        """Import Ray and join the cluster, or start one here with CPUs to spare."""
        # Ray warns at length about settings that nobody changed.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "engine=ray needs Ray: pip install 'gotd[ray]'", name="ray"
            ) from error
        if ray.is_initialized():
            return ray
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        # On a machine of its own, logical CPUs to spare: a pool that held them all would
        # leave none to the tasks that feed it.
        here = {"num_cpus": self.workers + 4, "include_dashboard": False}
        try:
            _knock(address)
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=False,
                **(here if address == "local" else {}),
            )
        except (OSError, ValueError, RuntimeError) as error:
            cause = str(error).splitlines()[0]
            raise ConnectionError(
                f"no Ray cluster at {address!r} ({cause}); check --ray-address or RAY_ADDRESS"
            ) from error
        return ray


def _knock(address: str) -> None:
    """Refuse an address at which nobody answers; Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def _results(ray: Any, reference: Any) -> list[Any]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from None
    except ray.exceptions.WorkerCrashedError as error:
        raise RuntimeError(
            f"a Ray worker died {RETRIES + 1} times over one task; is there memory enough?"
        ) from error


def _cause(error: Any) -> BaseException:
    """Unwrap what the function raised from Ray's account of where it did."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


# In the workers -------------------------------------------------------------------------

_FETCHED: dict[str, Any] = {}
"""The last function this worker process ran, by its reference."""


def _call_each(shared: list[Any], items: list[Any], threads: int) -> list[Any]:
    import ray

    (reference,) = shared
    if reference.hex() not in _FETCHED:
        _FETCHED.clear()
        _FETCHED[reference.hex()] = ray.get(reference)
        _keep_to(threads)
    function = _FETCHED[reference.hex()]
    return [function(item) for item in items]


class _Actor:
    """Holds a tool, such as a loaded model, and maps items with it."""

    def __init__(
        self,
        make: Callable[[], Any],
        function: Callable[[Any, Any], Any],
        items: list[Any],
        threads: int,
    ) -> None:
        _keep_to(threads)
        self._make, self._function, self._items = make, function, items
        self._tool: Any = None

    def __call__(self, batch: Any) -> dict[str, list[Any]]:
        import ray

        (number,) = batch["number"].to_pylist()
        try:
            # Made here and not above: Ray would start an actor that cannot be made for ever.
            if self._tool is None:
                self._tool = self._make()
            outcome = (None, self._function(self._tool, self._items[number]))
        except Exception as error:  # noqa: BLE001 - goes home as it is, to be raised there
            outcome = (error, None)
        return {"number": [number], "outcome": [ray.cloudpickle.dumps(outcome)]}


def _keep_to(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
