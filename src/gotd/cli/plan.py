"""Print what a sweep would run, what is done, and what the rest will cost, as tables."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gotd.pipeline.experiment import Cell
from gotd.planning.cost_model import CostModel, this_machine, training_of
from gotd.planning.estimates import MODEL, read_past
from gotd.planning.memory import RUNTIME_GIB, training_memory, ways
from gotd.planning.plan import Line, plan_steps, read_records, state
from gotd.storage.environment import hardware

LARGE_MODEL = 50_000_000
"""Weights from which on memory is a question."""
MEMORY_ROWS = (1, 4, 16)
GAP = 3
"""Characters between the columns of a printed table."""


def print_plan(
    cells: Sequence[Cell],
    missing: str | None = None,
    skipped: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print the cells, the steps to build with what they will take, and what is missing.

    Args:
        cells: The cells of one sweep.
        missing: What keeps the sweep from running here, if anything.
        skipped: Tasks that the source does not hold.
        console: Where to print; the standard output by default.
    """
    # Arms without a budget are the same cell at every budget of a sweep.
    cells = list({cell.record.key: cell for cell in cells}.values())
    console = console or Console()
    model = this_machine()
    store = cells[0].store
    lines = plan_steps(cells, read_past(store), read_records(), model)
    states = Counter(map(state, cells))
    counted = ", ".join(f"{states[name]} {name}" for name in ("done", "failed", "pending"))
    for grid in _grids(cells, console.width):
        console.print(grid)
    console.print(f"{len(cells)} cells: {counted}")
    if skipped:
        _say(console, f"skipped, not in the source: {', '.join(skipped)}")
    if lines:
        console.print(_stage_table(lines))
        _say(console, _totals(lines, store.root))
    for table in _memory_tables(cells, model):
        console.print(table)
    if any(MODEL in line.bases for line in lines):
        _say(console, _assumptions(model))
    if missing is not None:
        _say(
            console,
            f"cannot run here yet: {missing} (counted from the configuration alone; what is "
            "done cannot be told without the rows)",
        )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _grids(cells: Sequence[Cell], width: int) -> list[Table]:
    """Count done / all: arm by task, or setting by arm where more than one is swept.

    Columns that do not fit into ``width`` characters go into a table of their own below, so
    that no number is cut.
    """
    settings = list(dict.fromkeys(_setting(cell) for cell in cells if cell.axes["budget"]))
    parameters = cells[0].record.parameters
    title = f"{parameters['experiment']}, {parameters['scale']}"
    if len(settings) > 1:
        title = f"{title}: cells done / all tasks and seeds"
        places = [(_setting(cell), str(cell.axes["arm"])) for cell in cells]
    else:
        title = f"{', '.join([title, *settings])}: cells done / all seeds"
        places = [(str(cell.axes["arm"]), str(cell.axes["task"])) for cell in cells]
    states: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for place, cell in zip(places, cells, strict=True):
        states[place][state(cell)] += 1
    rows = list(dict.fromkeys(row for row, _ in places))
    columns = {
        column: [_count(states[row, column]) for row in rows]
        for column in dict.fromkeys(column for _, column in places)
    }
    tables = []
    for names in _fitting(columns, width - max(map(len, rows)) - 2 * GAP):
        table = Table(title=None if tables else title, box=SIMPLE)
        table.add_column("", overflow="fold")
        for name in names:
            table.add_column(name, justify="right", overflow="fold")
        for place, row in enumerate(rows):
            table.add_row(escape(row), *(columns[name][place] for name in names))
        tables.append(table)
    return tables


def _fitting(columns: Mapping[str, Sequence[str]], room: int) -> list[list[str]]:
    """Part columns into groups that are no wider than ``room`` characters, one at least each."""
    groups: list[list[str]] = [[]]
    taken = 0
    for name, shown in columns.items():
        wide = GAP + max(len(name), *(Text.from_markup(text).cell_len for text in shown))
        if groups[-1] and taken + wide > room:
            groups.append([])
            taken = 0
        groups[-1].append(name)
        taken += wide
    return groups


def _setting(cell: Cell) -> str:
    """Name what a cell was run with, its task, arm and seed apart."""
    axes = cell.axes
    words = [str(axes["model"])] + ([f"budget {axes['budget']}"] if axes["budget"] else [])
    words += [axes["protocol"]] if axes["protocol"] != "clean" else []
    return " ".join([*words, *filter(None, [axes["variant"]])])


def _count(states: Counter[str]) -> str:
    if not states:
        return ""
    failed = f" [red]{states['failed']} failed[/red]" if states["failed"] else ""
    done = f"{states['done']}/{states.total()}"
    return f"[green]{done}[/green]" if states["done"] == states.total() else f"{done}{failed}"


def _stage_table(lines: Sequence[Line]) -> Table:
    table = Table(title="steps that unfinished cells need, each counted once", box=SIMPLE)
    table.add_column("step", no_wrap=True)
    for column in ("to build", "built", "hours", "memory GiB", "disk GiB"):
        table.add_column(column, justify="right")
    table.add_column("rests on", no_wrap=True)
    for line in lines:
        bases = ", ".join(
            basis if len(line.bases) == 1 else f"{basis} ({count})"
            for basis, count in line.bases.items()
        )
        numbers = (line.seconds / 3600, line.memory_gib, line.disk_gib)
        shown = [_number(value) if line.to_build else "" for value in numbers]
        table.add_row(line.kind, str(line.to_build), str(line.kept), *shown, bases)
    return table


def _memory_tables(cells: Sequence[Cell], model: CostModel) -> list[Table]:
    """Say, for each large model that is pre-fine-tuned, what other ways would take.

    By rows a device handles at once, which like recomputation are in no step's identity.
    """
    found = {}
    for cell in cells:
        step = cell.record.inputs["model"]
        settings = step.parameters.get("settings")
        if settings is not None and model.shape(step).weights >= LARGE_MODEL:
            length = settings["max_length_tokens"]
            found[cell.axes["model"], length] = step
    tables = []
    for (name, length), step in found.items():
        shape, family = model.shape(step), model.family(step)
        table = Table(
            title=f"memory of pre-fine-tuning {name} by rows of {length} tokens at once, GiB",
            box=SIMPLE,
        )
        table.add_column("per_device_batch_size", no_wrap=True)
        for rows in MEMORY_ROWS:
            table.add_column(str(rows), justify="right")
        for way, _ in ways(training_of(step.parameters["settings"], 1)):
            memory = [
                training_memory(shape, family, how).gib + RUNTIME_GIB
                for rows in MEMORY_ROWS
                for other, how in ways(training_of(step.parameters["settings"], rows))
                if other == way
            ]
            table.add_row(way, *map(_number, memory))
        tables.append(table)
    return tables


def _number(value: float) -> str:
    """Write two digits of an estimate: it has no more."""
    if value < 0.01:
        return "<0.01"
    return f"{value:.2f}" if value < 1 else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _totals(lines: Sequence[Line], store: Path) -> str:
    """Sum up, beside what this machine has."""
    machine = hardware()
    place = next(folder for folder in (store, *store.parents) if folder.exists())
    return (
        f"in all {_number(sum(line.seconds for line in lines) / 3600)} hours one after another, "
        f"at most {_number(max(line.memory_gib for line in lines))} GiB of memory, "
        f"{_number(sum(line.disk_gib for line in lines))} GiB of disk; here: "
        f"{machine['cores']} cores, {machine['gpu'] or 'no GPU'}, {machine['memory_gib']} GiB of "
        f"memory, {shutil.disk_usage(place).free / 2**30:.0f} GiB free for {store}"
    )


def _assumptions(model: CostModel) -> str:
    return (
        f"cost model: {model.flops_per_s / 1e9:,.0f} GFLOP/s measured now ({model.measured}), "
        f"{model.efficiency:.0%} of it reached; 6 x weights x tokens to train, 2 x weights x "
        f"tokens to embed or predict, {model.transport_passes} passes of 2 x M x N x d to "
        "transport; memory: weights, AdamW's state and a bound on the activations of "
        f"{model.batch_rows} rows; downloads not counted"
    )
