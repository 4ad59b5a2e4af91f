"""Measure whether a process that runs many cells of an experiment stays as large as it was.

The cells are of GLUE on the generated benchmark: their stages train a language model, embed,
select, train a classifier and predict. Their rows are few, so that fifty cells take minutes. After
each stage the store returns freed memory to the system; what that gives back is measured, too.
Slopes leave out the first cells, in which modules are imported and caches fill.

    python experiments/benchmarks/flat_memory.py               # 50 cells
    python experiments/benchmarks/flat_memory.py --cells 100
    python experiments/benchmarks/flat_memory.py --quick       # 4 cells
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from scipy.stats import theilslopes
from side_by_side import (
    claim,
    claims_table,
    command,
    describe_machine,
    memory_mib,
    options,
    pin,
    table,
    write,
)

from gotd.pipeline.experiment import run_cell
from gotd.runs.expand import expand
from gotd.storage import artifacts

CELLS, QUICK_CELLS, WARM_UP = 50, 4, 10
SEED = 11
ARMS = "none,random,nearest,dsir,bm25,curated_tapt,got_d"
"""With eight tasks 56 cells of a world; a hundred have a second world, with its own base."""
SHORT = (
    "source.pretraining_documents=400", "source.candidate_documents=2000", "source.labels=200",
    "source.evaluation_rows=100", "limits.validation_rows=40", "model.pretraining.epochs=1",
    "pre_fine_tune.epochs=1", "fine_tune.epochs=2", "budget=200",
)  # fmt: skip
QUICK = (
    "source.pretraining_documents=150", "source.candidate_documents=800", "source.rare_share=0.1",
    "source.labels=40", "source.evaluation_rows=32", "limits.validation_rows=8",
    "model.pretraining.epochs=0.5", "pre_fine_tune.epochs=0.2", "fine_tune.epochs=1", "budget=50",
)  # fmt: skip


class Returned:
    """What resident memory is before and after memory is returned, stage by stage.

    Used in place of `gotd.storage.artifacts.return_memory`, which it calls.
    """

    def __init__(self) -> None:
        self._return = artifacts.return_memory
        self.stages: list[tuple[float, float, float]] = []
        """Peak, and resident memory before and after, in MiB."""
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """Return memory, and note what that gave back."""
        peak, before, began = memory_mib("VmHWM"), memory_mib("VmRSS"), time.perf_counter()
        self._return()
        self.seconds.append(time.perf_counter() - began)
        self.stages.append((peak, before, memory_mib("VmRSS")))


def measure(cells: int, short: tuple[str, ...], returned: Returned) -> list[dict[str, Any]]:
    """Run cells one after the other, and return resident memory after each."""
    seeds = ",".join(str(SEED + number) for number in range(-(-cells // 56)))
    measured = []
    with tempfile.TemporaryDirectory() as store:
        overrides = ["experiment=glue", f"selector={ARMS}", f"seed={seeds}", "tracker=none"]
        configs = expand([*overrides, f"store={store}", *short])
        for config, name in configs[:cells]:
            began, first = time.process_time(), len(returned.stages)
            record = run_cell(config, name)
            if record["status"] != "done":
                raise RuntimeError(record["error"]["message"])
            stages = returned.stages[first:]
            measured.append(
                {
                    "task": record["axes"]["task"],
                    "arm": record["axes"]["arm"],
                    "stages": len(stages),
                    "resident_mib": memory_mib("VmRSS"),
                    "anonymous_mib": memory_mib("RssAnon"),
                    "peak_mib": max(peak for peak, _, _ in stages),
                    "returned_mib": sum(before - after for _, before, after in stages),
                    "core_s": time.process_time() - began,
                }
            )
            print(len(measured), measured[-1], flush=True)
    return measured


def slope(measured: list[dict[str, Any]], name: str, first: int) -> dict[str, float]:
    """Return the median of the slopes of all pairs of cells, and its 95 % interval.

    Source: Sen (1968), Estimates of the regression coefficient based on Kendall's tau.
    """
    values = [cell[name] for cell in measured[first:]]
    found: Any = theilslopes(values, range(len(values)), 0.95)
    return {"median": float(found[0]), "least": float(found[2]), "most": float(found[3])}


def draw(measured: list[dict[str, Any]], first: int) -> Figure:
    """Draw resident memory after each cell, and its peak within the cell."""
    numbers = range(1, len(measured) + 1)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "gotd"}):
        figure = Figure(figsize=(7.2, 3), layout="constrained")
        axis = figure.subplots()
        for name, label, colour in (
            ("peak_mib", "peak within the cell", "#777777"),
            ("resident_mib", "after the cell", "#0072B2"),
            ("anonymous_mib", "after the cell, without mapped files", "#D55E00"),
        ):
            values = [cell[name] for cell in measured]
            axis.plot(numbers, values, ".-", label=label, color=colour)
        axis.axvline(first + 0.5, color="#777777", linestyle=":")
        axis.set(xlabel="cell", ylabel="resident memory, MiB")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def main() -> None:
    """Run the cells, and write the page, the JSON file and the figure."""
    parser = options(__doc__)
    parser.add_argument("--cells", type=int, default=CELLS, help="how many")
    arguments = parser.parse_args()
    pin(arguments.core, cores=2)
    machine = describe_machine(["gotd", "torch", "transformers", "pytorch-lightning"])
    cells, short = (QUICK_CELLS, QUICK) if arguments.quick else (arguments.cells, SHORT)
    first = min(WARM_UP, cells // 2)
    returned = Returned()
    artifacts.return_memory = returned
    measured = measure(cells, short, returned)
    slopes = {name: slope(measured, name, first) for name in ("resident_mib", "anonymous_mib")}
    says = f"resident memory from cell {first + 1} on, MiB a cell, upper end of the interval"
    result = {
        "command": command(),
        "seeds": {"worlds": SEED},
        "hardware": machine,
        "overrides": short,
        "cells": measured,
        "first_cell_of_slopes": first + 1,
        "slopes": slopes,
        "seconds_of_returns": returned.seconds,
        "claims": [claim(says, slopes["resident_mib"]["most"], 1.0, at_most=True)],
        "figure": f"{arguments.name}.svg",
    }
    write(arguments, result, "Memory over many cells of one process", body(result))
    draw(measured, first).savefig(arguments.out / result["figure"], metadata={"Date": None})


def body(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    cells, first = result["cells"], result["first_cell_of_slopes"]
    shown = sorted({1, *range(first, len(cells) + 1, max(1, len(cells) // 10)), len(cells)})
    names = ["resident_mib", "anonymous_mib", "peak_mib", "returned_mib"]
    header = ["cell", "after it, MiB", "without mapped files", "peak", "returned by its stages"]
    rows = [[number, *(cells[number - 1][name] for name in names)] for number in shown]
    words = {"resident_mib": "resident memory", "anonymous_mib": "without mapped files"}
    slopes = [[words[name], found] for name, found in result["slopes"].items()]
    seconds = sorted(result["seconds_of_returns"])
    says = (
        f"{len(cells)} cells of GLUE on the generated benchmark ran one after the other in one "
        f"process, with {sum(cell['stages'] for cell in cells)} stages. A return of memory took "
        f"{1000 * seconds[len(seconds) // 2]:.1f} ms (median) and at most "
        f"{1000 * seconds[-1]:.0f} ms. The slope is the median over all pairs of cells from "
        f"cell {first} on, with its 95 % interval."
    )
    slope_header = ["slope, MiB a cell", "median (95 % interval)"]
    return [
        *(says, "", f"![Resident memory after each cell]({result['figure']})", ""),
        *(*table(slope_header, slopes), "", *claims_table(result["claims"]), ""),
        *table(header, rows),
    ]


if __name__ == "__main__":
    main()
