"""Print what a sweep would run, what is done, and what the rest will cost, as tables."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from gotd.pipeline.experiment import Cell
from gotd.planning.estimates import MODEL, read_past, this_machine
from gotd.planning.plan import Concurrency, Line, plan_steps, state, wall_seconds
from gotd.storage.environment import hardware
from gotd.storage.printing import printable
from gotd.storage.shapes import Shape
from gotd.training.memory import RUNTIME_GIB, training_memory, ways

LARGE_MODEL = 50_000_000
"""Weights from which on memory is a question."""
MEMORY_ROWS = (1, 4, 16)
ONE_BY_ONE = Concurrency()
GAP = 3
"""Characters between the columns of a printed table."""


def print_missing(missing: str, console: Console | None = None) -> None:
    """Print what keeps a sweep from running here.

    Args:
        missing: What is missing.
        console: Where to print; the standard output by default.
    """
    _say(
        console or Console(),
        f"cannot run here yet: {missing} (counted from the configuration alone; what is done is "
        "not known without the rows)",
    )


def print_plan(
    cells: Sequence[Cell],
    skipped: Sequence[str] = (),
    concurrency: Concurrency = ONE_BY_ONE,
    console: Console | None = None,
) -> None:
    """Print the cells, and the steps to build with what they will take.

    Lines are broken at blanks where the console ends: at 80 columns in a pipe.

    Args:
        cells: The cells of one sweep.
        skipped: Tasks that the source does not have.
        concurrency: How the cells share the machine.
        console: Where to print; the standard output by default.
    """
    # Arms without a budget are the same cell at every budget of a sweep.
    cells = list({cell.record.key: cell for cell in cells}.values())
    console = console or Console()
    say = partial(_say, console)
    machine, store = this_machine(concurrency.threads), cells[0].store
    lines = plan_steps(cells, read_past(store), machine)
    states = Counter(map(state, cells))
    for grid in _grids(cells, console.width):
        console.print(grid)
    counted = ", ".join(f"{states[name]} {name}" for name in ("done", "failed", "pending"))
    say(f"{len(cells)} cells: {counted}")
    if skipped:
        say(f"skipped, not in the source: {', '.join(skipped)}")
    if lines:
        console.print(_step_table(lines))
        left = states["pending"] + states["failed"]
        wall_s = wall_seconds(lines, left, concurrency.processes, machine)
        say(_totals(lines, store.root, concurrency.processes, wall_s))
    for table in _memory_tables(cells):
        console.print(table)
    if any(estimate.basis == MODEL for line in lines for estimate in line.estimates):
        say(
            f"cost model: {machine.flops_per_s / 1e9:,.0f} GFLOP/s measured now "
            f"({machine.measured}), {machine.efficiency:.0%} of it reached; 6 x weights x tokens "
            "to train, 2 x weights x tokens to embed or predict, a selection as its selector "
            "states; downloads not counted"
        )


def _say(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False)


def _grids(cells: Sequence[Cell], width: int) -> list[Group]:
    """Count done / all: arm by task, or setting by arm where more than one is swept.

    Columns that do not fit into ``width`` characters go into a table of their own below, so
    that no number is cut.
    """
    settings = list(dict.fromkeys(_setting(cell) for cell in cells if cell.axes["budget"]))
    several = len(settings) > 1
    states: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for cell in cells:
        arm, task = str(cell.axes["arm"]), str(cell.axes["task"])
        row, column = (_setting(cell), arm) if several else (arm, task)
        states[column][row][state(cell)] += 1
    rows = list(dict.fromkeys(row for counts in states.values() for row in counts))
    groups: list[list[list[str | Text]]] = []
    left = 0
    for name, counts in states.items():
        column = [name, *(_count(counts[row]) for row in rows)]
        wide = GAP + max(len(cell) for cell in column)
        if wide > left:
            groups.append([["", *rows]])
            left = width - max(map(len, rows)) - 2 * GAP
        groups[-1].append(column)
        left -= wide
    parameters = cells[0].record.parameters
    words = [parameters["experiment"], parameters["scale"], *([] if several else settings)]
    title = f"{', '.join(words)}: cells done / all {'tasks and ' if several else ''}seeds"
    return [_table(title, *zip(*group, strict=True)) for group in groups]


def _setting(cell: Cell) -> str:
    """Return what a cell is run with beside its task, arm and seed."""
    axes = cell.axes
    words = [str(axes["model"])] + ([f"budget {axes['budget']}"] if axes["budget"] else [])
    words += [axes["protocol"]] if axes["protocol"] != "clean" else []
    return " ".join([*words, *filter(None, [axes["variant"]])])


def _count(states: Counter[str]) -> Text:
    failed = f" {states['failed']} failed" if states["failed"] else ""
    style = "red" if failed else "green" if states["done"] == states.total() else ""
    return Text(f"{states['done']}/{states.total()}{failed}" if states else "", style)


def _table(title: str, header: Sequence[str | Text], *rows: Sequence[str | Text]) -> Group:
    """Return a title, and a table whose first column is aligned left, the others right."""
    table = Table(box=SIMPLE)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*(Text(printable(cell)) if isinstance(cell, str) else cell for cell in row))
    # Not the table's own title, which is broken at the width of the table.
    return Group(Text(title, "bold"), table)


def _step_table(lines: Sequence[Line]) -> Group:
    header = ("step", "to build", "built", "hours", "memory", "disk", "based on")
    rows = []
    for line in lines:
        bases = Counter(estimate.basis for estimate in line.estimates)
        shown = [
            basis if len(bases) == 1 else f"{basis} ({count})" for basis, count in bases.items()
        ]
        numbers = _sums([line]) if line.estimates else ("", "", "")
        counts = str(len(line.estimates)), str(line.built)
        rows.append((line.kind, *counts, *numbers, "\n".join(shown)))
    return _table("steps that unfinished cells need, each counted once (GiB)", header, *rows)


def _sums(lines: Sequence[Line]) -> tuple[str, str, str]:
    """Return hours, GiB of memory and GiB of disk."""
    estimates = [estimate for line in lines for estimate in line.estimates]
    return (
        _number(sum(estimate.seconds for estimate in estimates) / 3600),
        _number(max((estimate.memory_gib for estimate in estimates), default=0.0)),
        _number(sum(estimate.disk_gib for estimate in estimates)),
    )


def _memory_tables(cells: Sequence[Cell]) -> list[Group]:
    """Return a table for each large model that is pre-fine-tuned: what other ways would take.

    The rows that a device processes at once, like recomputation, are in no step's key.
    """
    trained: dict[tuple[str, int], tuple[Shape, Any]] = {}
    for cell in cells:
        model, settings = cell.record.inputs["model"], cell.pre_fine_tune
        shape = model.stated.shape
        if settings and shape and shape.weights >= LARGE_MODEL:
            trained[cell.axes["model"], settings.max_length_tokens] = shape, settings
    tables = []
    for (name, length), (shape, settings) in trained.items():
        by_rows = [dict(ways(settings.training(rows))) for rows in MEMORY_ROWS]
        rows = [
            (way, *(_number(training_memory(shape, how[way]).gib + RUNTIME_GIB) for how in by_rows))
            for way in by_rows[0]
        ]
        title = f"memory of pre-fine-tuning {name} by rows of {length} tokens at once, GiB"
        tables.append(_table(title, ("per_device_batch_size", *map(str, MEMORY_ROWS)), *rows))
    return tables


def _number(value: float) -> str:
    """Return two digits of an estimate, which has no more."""
    if value < 0.01:
        return "<0.01"
    return f"{value:.2f}" if value < 1 else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _totals(lines: Sequence[Line], store: Path, processes: int, wall_s: float) -> str:
    """Return the sums, with what this machine has."""
    at_once = f"; {_number(wall_s / 3600)} with {processes} processes" if processes > 1 else ""
    machine, (hours, memory, disk) = hardware(), _sums(lines)
    existing = next(folder for folder in (store, *store.parents) if folder.exists())
    return (
        f"in all {hours} hours one after another{at_once}; at most {memory} GiB of memory, "
        f"{disk} GiB of disk; here: {machine['cores']} cores, {machine['gpu'] or 'no GPU'}, "
        f"{machine['memory_gib']} GiB of memory, "
        f"{shutil.disk_usage(existing).free / 2**30:.0f} GiB free for {store}"
    )
