"""What a step will take: from earlier runs of such steps, else from a model of the machine."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median

from gotd.storage.artifacts import MANIFEST, Step, Store
from gotd.storage.files import TEMPORARY
from gotd.storage.work import Work
from gotd.training.memory import GIB, RUNTIME_GIB

EARLIER, MODEL, UNKNOWN = "earlier runs", "cost model", "nothing known"
"""What an estimate is based on, best first."""

GPU_EFFICIENCY = 0.3
"""Share of a GPU's matrix product that encoders reach; assumed, not measured here."""


@dataclass(frozen=True)
class Machine:
    """Rates of a machine, from which the seconds of some work follow.

    The numbers are rough, but the ratio of two steps of one kind is not: a measured time of
    another such step is scaled by it wherever there is one.
    """

    flops_per_s: float
    """Sustained rate of a large matrix product on this machine."""
    measured: str = "not here"
    """In which arithmetic and on what it was measured."""
    efficiency: float = 0.45
    """Share of it that encoders reach on a processor (measured)."""
    texts_per_s: float = 7_500.0
    """Texts tokenised in a second by one core (measured)."""
    seconds_per_step: float = 0.005
    """What an optimiser step costs beside its arithmetic."""
    seconds_per_stored_step: float = 0.05
    """Reading inputs, checksums, flushing to the disk."""
    seconds_to_start: float = 15.0
    """Loading libraries, and composing the cells of a sweep (measured)."""
    seconds_per_cell: float = 0.6
    """Composing the configuration of a cell in the process that runs it (measured)."""

    def seconds(self, work: Work) -> float:
        """Return how long this machine takes; never 0."""
        return (
            work.flops / (self.flops_per_s * self.efficiency)
            + work.texts / self.texts_per_s
            + work.steps * self.seconds_per_step
            + self.seconds_per_stored_step
        )


def this_machine(threads: int | None = None, seconds: float = 0.2) -> Machine:
    """Measure the rate of a large matrix product on the GPU, or else the processor.

    On the processor its own seconds count, which other programs change little.

    Args:
        threads: Threads on the processor; ``None``: torch's own number.
        seconds: How long to multiply.
    """
    import torch
    from torch.utils.benchmark import Timer

    from gotd.products import linear

    if torch.cuda.is_available():
        square = torch.ones(8192, 8192, dtype=torch.bfloat16, device="cuda")
        timer = Timer("square @ square", globals={"square": square})
        rate = 2.0 * len(square) ** 3 / timer.blocked_autorange(min_run_time=seconds).median
        return Machine(rate, "bfloat16 on the GPU", GPU_EFFICIENCY)
    before = torch.get_num_threads()
    threads = threads or before
    square, products = torch.ones(1024, 1024), 0
    torch.set_num_threads(threads)
    try:
        linear(square, square)  # the first product starts the threads
        began = time.process_time()
        while (spent := time.process_time() - began) < seconds * threads:
            linear(square, square)
            products += 1
    finally:
        torch.set_num_threads(before)
    rate = products * 2.0 * len(square) ** 3 * threads / spent
    words = "1 thread" if threads == 1 else f"{threads} threads"
    return Machine(rate, f"float32 on the processor, {words}")


@dataclass(frozen=True)
class Past:
    """A step that was built before, and what it took."""

    work: Work
    seconds: float
    memory_gib: float
    disk_bytes: int


Likeness = tuple[str, str]
"""Kind and rate of a step: what two steps must share to compare their times."""


def read_past(store: Store) -> Mapping[Likeness, list[Past]]:
    """Read from the manifests of a store what its artifacts took.

    Left out are those without a stated work and those that were resumed, whose time is that
    of their last part.
    """
    past: dict[Likeness, list[Past]] = defaultdict(list)
    for path in sorted(store.root.glob(f"*/*/{MANIFEST}")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        stated, cost = manifest.get("work"), manifest.get("cost")
        if not stated or cost["resumed"] or path.parent.name.endswith(TEMPORARY):
            continue
        known = {field.name for field in fields(Work)}
        work = Work(**{name: value for name, value in stated.items() if name in known})
        size = sum(file["bytes"] for file in manifest["files"].values())
        earlier = Past(work, cost["elapsed_s"], cost["peak_memory_gib"], size)
        past[manifest["kind"], work.rate].append(earlier)
    return past


@dataclass(frozen=True)
class Estimate:
    """What building one step will cost, and what that is based on."""

    seconds: float
    memory_gib: float
    disk_gib: float
    basis: str


def estimate(step: Step, past: Mapping[Likeness, Sequence[Past]], machine: Machine) -> Estimate:
    """Estimate a step: medians of earlier ones, scaled by their work, else the machine's rates.

    Memory is the most that an earlier step took, and grows with the work.
    """
    work = step.work_or_none()
    if work is None:
        return Estimate(0.0, 0.0, 0.0, UNKNOWN)
    seconds, memory_gib = machine.seconds(work), RUNTIME_GIB + work.memory_bytes / GIB
    alike = past.get((step.kind, work.rate))
    if not alike:
        return Estimate(seconds, memory_gib, work.disk_bytes / GIB, MODEL)
    grown = (memory_gib / (RUNTIME_GIB + p.work.memory_bytes / GIB) for p in alike)
    disk = (p.disk_bytes * work.disk_bytes / max(1.0, p.work.disk_bytes) for p in alike)
    return Estimate(
        median(p.seconds * seconds / machine.seconds(p.work) for p in alike),
        max(p.memory_gib * max(1.0, more) for p, more in zip(alike, grown, strict=True)),
        median(disk) / GIB,
        EARLIER,
    )
