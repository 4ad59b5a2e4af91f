"""Cells of the GPU benchmark: each is prepared, run several times, and measured on one device."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from side_by_side import Unavailable

from gotd.storage.environment import peak_memory_gib, reset_peak_memory


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Args:
        section: Table of the page.
        name: What is measured, such as a solver.
        size: Size of the problem or the model.
        prepare: Imports, compiles, copies data to the device, and returns the call to time.
        judge: Maps what the first call returned to further entries of the row.
        needs: Modules without which the cell is left out.
        flop: Operations of a call, if its rate is of interest.
        most_rounds: Largest number of calls.
    """

    section: str
    name: str
    size: str
    prepare: Callable[[], Callable[[], Any]]
    judge: Callable[[Any], dict[str, Any]] = lambda _: {}
    needs: tuple[str, ...] = ()
    flop: float | None = None
    most_rounds: int = 3


def measure(cell: Cell, rounds: int, device: str, deadline: float) -> dict[str, Any]:
    """Run a cell and return its row; what did not run has a reason.

    Args:
        cell: The cell.
        rounds: Calls, if the cell allows as many.
        device: ``cuda`` or ``cpu``.
        deadline: Value of `time.perf_counter` after which nothing is started.
    """
    row: dict[str, Any] = {
        "section": cell.section,
        "name": cell.name,
        "size": cell.size,
        "prepare_s": None,
        "seconds": [],
        "median_s": None,
        "tflop_per_s": None,
        "peak_gib": None,
        "reason": "",
    }
    absent = [module for module in cell.needs if find_spec(module) is None]
    if absent:
        return row | {"reason": f"{', '.join(absent)} not installed"}
    if time.perf_counter() > deadline:
        return row | {"reason": "the time limit was reached before it"}
    try:
        began = time.perf_counter()
        run = cell.prepare()
        row["prepare_s"] = time.perf_counter() - began
        first: Any = None
        for number in range(min(rounds, cell.most_rounds)):
            if number and time.perf_counter() > deadline:
                break
            _forget(device)
            began = time.perf_counter()
            value = run()
            _finish(device)
            row["seconds"].append(time.perf_counter() - began)
            if number == 0:
                first, row["peak_gib"] = value, _peak_gib(device)
        row["median_s"] = statistics.median(row["seconds"])
        if cell.flop is not None:
            row["tflop_per_s"] = cell.flop / row["median_s"] / 1e12
        row |= cell.judge(first)
    except Exception as error:  # noqa: BLE001 -- whatever a package raises becomes its row
        told = str(error).strip().partition("\n")[0]
        row["reason"] = (
            told if isinstance(error, Unavailable) else f"{type(error).__name__}: {told}"
        )
    return row


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _forget(device: str) -> None:
    """Release what earlier calls left, and count peaks from here."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak_memory()


def _peak_gib(device: str) -> float:
    """Return the peak of torch's memory on the GPU, or of the process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_memory_gib()
