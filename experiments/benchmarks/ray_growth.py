"""Measure the stages of a selection on Ray, and predict pools that no machine here can hold.

Rows are those of `growth.py`, selected by default options on a Ray of this machine. For each
stage two times are kept apart: processor seconds of the workers, which more workers share, and
those of the driver, which nothing shares. Both are fitted as `fixed + rate x rows`, as is the
driver's memory. The page states what 100 million and a billion rows would cost by these lines.
Each size runs in a process of its own with a new store.

    python experiments/benchmarks/ray_growth.py            # 100,000 to 5 million rows
    python experiments/benchmarks/ray_growth.py --sizes 100000 200000 500000
    python experiments/benchmarks/ray_growth.py --quick    # 2,000 to 6,000 rows
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import growth
import numpy as np
from scipy.optimize import nnls
from side_by_side import command, describe_machine, options, table, write

from gotd.data.columns import Columns
from gotd.data.inputs import File, named_parts
from gotd.engine.local import Engine
from gotd.engine.ray import RayEngine
from gotd.pipeline.amounts import Amount, Budgets
from gotd.pipeline.output import Output
from gotd.pipeline.request import Request
from gotd.pipeline.select import Prepared
from gotd.pipeline.steps.left_out import LeaveOut
from gotd.pipeline.written import write_selection
from gotd.selectors.registry import build_selector
from gotd.storage import artifacts
from gotd.storage.artifacts import Step, Store
from gotd.storage.files import know_checksums
from gotd.transport.stored import fits

SIZES, QUICK_SIZES = (100_000, 300_000, 1_000_000, 2_000_000, 5_000_000), (2_000, 4_000, 6_000)
WANTED = (100_000_000, 1_000_000_000)
WORKERS = (16, 64, 256)
STAGES = {
    "checksums": "hash the files",
    "candidates": "read and write the pool",
    "left_out": "find duplicates",
    "target_embeddings": "embed the target",
    "encoder": "fit the encoder",
    "candidates_embeddings": "embed the pool",
    "kept": "copy shards with gaps",
    "scored": "transport passes",
    "written": "rank, and read the sources again",
    "verified": "verify the store",
}
"""Stages that are shown, with what each does."""

Cost = dict[str, float]


class Measured:
    """An engine that notes what its functions take, by stage.

    Args:
        engine: Does the work.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stages: dict[str, Cost] = {}
        self._work: Cost = {}

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield the results of the engine's map."""
        yield from map(self._note, self.engine.map(partial(timed, function), items))

    def map_with(
        self, make: Callable[[], Any], function: Callable[[Any, Any], Any], items: Iterable[Any]
    ) -> Iterator[Any]:
        """Yield the results of the engine's map with a tool."""
        found = self.engine.map_with(make, partial(timed_with, function), items)
        yield from map(self._note, found)

    def _note(self, found: tuple[Any, float, int]) -> Any:
        result, core_s, size = found
        self._work["worker_core_s"] += core_s
        self._work["to_driver_bytes"] += size
        return result

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note what the block takes."""
        self._work = {"worker_core_s": 0.0, "to_driver_bytes": 0}
        began, driver = time.perf_counter(), time.process_time()
        with Peak() as peak:
            yield
        self.stages[name] = {
            **self._work,
            "driver_core_s": time.process_time() - driver,
            "wall_s": time.perf_counter() - began,
            "driver_peak_mib": peak.mib,
        }


def timed(function: Callable[[Any], Any], item: Any) -> tuple[Any, float, int]:
    """Return the result, processor seconds of this worker, and bytes of the result."""
    began = time.process_time()
    result = function(item)
    return result, time.process_time() - began, len(pickle.dumps(result, 5))


def timed_with(function: Callable[[Any, Any], Any], tool: Any, item: Any) -> tuple[Any, float, int]:
    """Return what `timed` does, of a function with a tool."""
    return timed(partial(function, tool), item)


class Peak(threading.Thread):
    """The most resident memory of this process without mapped files, while a block runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.mib, self._over = 0.0, threading.Event()

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        """Look at the memory until the block is over."""
        while True:
            lines = Path("/proc/self/status").read_text().splitlines()
            held = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.mib = max(self.mib, held / 1024)
            if self._over.wait(0.1):
                return


class Stages(Prepared):
    """A prepared request whose steps are stages of its engine."""

    def run_step(self, name: str, step: Step) -> None:
        """Build a step."""
        with self.engine.stage(name):  # type: ignore[reportAttributeAccessIssue]
            super().run_step(name, step)


def measure(folder: Path, rows: int, workers: int) -> dict[str, Any]:
    """Select from a new pool of ``rows`` on Ray, and return the cost of each stage."""
    growth.write_rows(folder, rows)
    ray = RayEngine(workers)
    list(ray.map(str, range(4 * workers)))  # starts the workers
    engine, columns = Measured(ray), Columns()
    parts = [
        named_parts([str(folder / name)], columns, folder / "hub.json")
        for name in ("target.parquet", "pool")
    ]
    request = Request(
        target=parts[0],
        candidates=parts[1],
        method=build_selector("got_d", {}),
        method_name="got_d",
        leave_out=LeaveOut(dedup="exact"),
    )
    artifacts.MANY_BYTES = 0
    with engine.stage("checksums"):
        files = [part.path for part in parts[1] if isinstance(part, File)]
        list(know_checksums(files, engine.map))
    budget = min(growth.BUDGET, rows // 10)
    prepared = Stages(request, budget, Store(folder / "store", map_files=engine.map), engine)
    amount = Amount(budget)
    budgets = Budgets([budget], [amount.described()], {}, {}, {budget: amount.label})
    output = Output(folder / "out")
    with engine.stage("written"), output.claimed(files, folder / "store"):
        write_selection(prepared, budgets, output, command="")
    with engine.stage("verified"):
        again = Store(folder / "store", map_files=engine.map)
        for step in prepared.steps.values():
            again.get(step)
    return {"rows": rows, "passes": passes_of(prepared), "stages": engine.stages}


def passes_of(prepared: Prepared) -> int:
    """Return the passes over all candidates of the solve."""
    return prepared.ranked.outcome["diagnostics"]["passes"]


def measured_apart(rows: int, workers: int) -> dict[str, Any]:
    """Measure a size in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        asked = ["--measure", str(rows), "--workers", str(workers), "--folder", folder]
        done = subprocess.run(
            [sys.executable, __file__, *asked], stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def fit(rows: list[int], values: list[float]) -> Cost:
    """Fit a line with relative errors, of which neither part is negative.

    Returns:
        ``fixed``, ``per_million`` rows, and ``residual``: the largest error as a share of what
        was measured.
    """
    n, y = np.array(rows) / 1e6, np.array(values)
    weight = 1.0 / np.maximum(y, max(1e-9, 0.01 * y.max()))
    fixed, rate = nnls(np.column_stack([weight, weight * n]), weight * y)[0]
    residual = float(np.abs(weight * (fixed + rate * n - y)).max())
    return {"fixed": float(fixed), "per_million": float(rate), "residual": residual}


def fitted(sizes: list[dict[str, Any]]) -> dict[str, dict[str, Cost]]:
    """Return for each stage and number the line through all sizes.

    Passes over a small pool keep their plan in memory, which takes other times. So where there
    are at least two larger sizes, the line of that stage is through these.
    """
    names = sizes[0]["stages"]["checksums"]
    large = [size for size in sizes if not fits(size["rows"], growth.TARGETS)]
    lines: dict[str, dict[str, Cost]] = {}
    for stage in STAGES:
        chosen = large if stage == "scored" and len(large) > 1 else sizes
        found = [size for size in chosen if stage in size["stages"]]
        if len(found) == len(chosen):
            rows = [size["rows"] for size in found]
            lines[stage] = {
                name: fit(rows, [size["stages"][stage][name] for size in found]) for name in names
            }
    return lines


def at(line: Cost, rows: int) -> float:
    """Return the value of a line."""
    return line["fixed"] + line["per_million"] * rows / 1e6


def predict(lines: dict[str, dict[str, Cost]], rows: int) -> dict[str, Any]:
    """Return what a pool of ``rows`` would take, by stage and in all."""
    stages = {
        stage: {name: at(line, rows) for name, line in own.items()} for stage, own in lines.items()
    }
    worker_s, driver_s, sent = (
        sum(stage[name] for stage in stages.values())
        for name in ("worker_core_s", "driver_core_s", "to_driver_bytes")
    )
    return {
        "rows": rows,
        "stages": stages,
        "core_hours": (worker_s + driver_s) / 3600,
        "driver_hours": driver_s / 3600,
        "wall_hours": {count: (worker_s / count + driver_s) / 3600 for count in WORKERS},
        "to_driver_gb": sent / 1e9,
        "driver_memory_gib": max(s["driver_peak_mib"] for s in stages.values()) / 1024,
    }


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    sizes, lines = result["sizes"], result["lines"]
    rows = ", ".join(f"{size['rows']:,}" for size in sizes)
    numbers = ("worker_core_s", "driver_core_s", "to_driver_bytes", "driver_peak_mib")
    largest = sizes[-1]
    measured = [
        [f"{stage}: {STAGES[stage]}", *(largest["stages"][stage][name] for name in numbers)]
        for stage in lines
    ]
    models = [
        [
            stage,
            *(
                lines[stage][name][part]
                for name in numbers[:2]
                for part in ("fixed", "per_million", "residual")
            ),
            lines[stage]["to_driver_bytes"]["per_million"] / 1e6,
            lines[stage]["driver_peak_mib"]["per_million"],
        ]
        for stage in lines
    ]
    totals = [
        [f"{p['rows']:,}", p["core_hours"], p["driver_hours"]]
        + [p["wall_hours"][count] for count in WORKERS]
        + [p["to_driver_gb"], p["driver_memory_gib"]]
        for p in result["predicted"]
    ]
    each = [
        [stage] + [p["stages"][stage][n] / 3600 for p in result["predicted"] for n in numbers[:2]]
        for stage in lines
    ]
    return [
        f"Sizes: {rows} rows of about 110 characters, "
        f"{growth.TARGETS} targets, default options, {result['workers']} workers. "
        f"{largest['passes']} transport passes at the largest size.",
        "",
        "## Predicted",
        "",
        *table(
            ["rows", "core-hours", "of them driver", *(f"hours, {n} workers" for n in WORKERS)]
            + ["GB to the driver", "driver memory GiB"],
            totals,
        ),
        "",
        "## Predicted core-hours by stage",
        "",
        *table(
            ["stage"]
            + [
                f"{p['rows'] // 1_000_000:,}M rows, {who}"
                for p in result["predicted"]
                for who in ("workers", "driver")
            ],
            each,
        ),
        "",
        f"## Measured at {largest['rows']:,} rows",
        "",
        *table(
            ["stage", "worker core-s", "driver core-s", "bytes to driver", "driver peak MiB"],
            measured,
        ),
        "",
        "## Lines",
        "",
        *table(
            ["stage", "worker fixed s", "worker s per M rows", "residual"]
            + ["driver fixed s", "driver s per M rows", "residual"]
            + ["MB to driver per M rows", "driver MiB per M rows"],
            models,
        ),
        "",
        *ASSUMPTIONS,
    ]


ASSUMPTIONS = [
    "## Assumptions",
    "",
    "- Every number is a line in the rows, fitted to the sizes above; a residual is the largest "
    "error of a line as a share of what was measured.",
    "- Workers share their seconds evenly, and the driver works while no worker does. Wall time is "
    "their sum: `workers' seconds / workers + driver's seconds`.",
    "- Passes keep a plan in memory below about 530,000 rows, so their lines are through the "
    "larger sizes.",
    "- Rows, texts, targets, encoder and passes stay as they are here. Longer texts cost more to "
    "read, hash and embed, in proportion; more targets or wider embeddings cost more in a pass.",
    "- Files are many, as here 100,000 rows each, so one task reads a file.",
    "- The network and the shared disk are not in the model; here all files were in memory. Nor "
    "is what Ray itself takes to start and to send tasks, which is wall time only.",
    "- Sorting digests is `n log n`: from 5 million rows to a billion the line is 1.35 times too "
    "low for that part.",
    "- Workers and the driver map each shard's files. At a billion rows they are about 31,000 "
    "shards, for which docs/cluster.md names the limits to set.",
]


def arguments_of() -> argparse.Namespace:
    """Return the command line."""
    parser = options(__doc__)
    parser.set_defaults(rounds=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", help="rows of the pools")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure each size, fit, predict, and write the page and the JSON file."""
    arguments = arguments_of()
    if arguments.measure:
        found = measure(arguments.folder, arguments.measure, arguments.workers)
        print(json.dumps(found), flush=True)
        return
    machine = describe_machine(["gotd", "torch", "ray", "pyarrow", "scikit-learn"])
    sizes = []
    for rows in arguments.sizes or (QUICK_SIZES if arguments.quick else SIZES):
        sizes.append(measured_apart(rows, arguments.workers))
        wall_s = sum(stage["wall_s"] for stage in sizes[-1]["stages"].values())
        print(f"{rows:,} rows: {wall_s:.0f} s", flush=True)
    lines = fitted(sizes)
    result = {
        "command": command(),
        "seeds": {"rows": growth.SEED},
        "hardware": machine,
        "workers": arguments.workers,
        "sizes": sizes,
        "lines": lines,
        "predicted": [predict(lines, rows) for rows in WANTED],
    }
    write(
        arguments, result, "A selection on Ray: stages, and what larger pools cost", as_page(result)
    )


if __name__ == "__main__":
    main()
