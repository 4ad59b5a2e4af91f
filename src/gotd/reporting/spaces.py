"""Selectors by spaces: one experiment with several embedders under each selector.

An experiment runs in a space of its own. Cells with another embedder carry it as an override, and
are compared here alone, so that the other tables hold what they hold without them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gotd.reporting import drawing
from gotd.reporting.cells import VARIANT, Block, blocks
from gotd.reporting.comparisons import average_comparisons_table
from gotd.reporting.leaderboard import SELECTING
from gotd.reporting.records import Record, canonical_order
from gotd.reporting.render import Picture, Section, Table, one_line
from gotd.reporting.selections import flags_note
from gotd.reporting.statistics import Interval, format_interval, seed_differences, t_interval
from gotd.reporting.tables import failed_table, seeds_note
from gotd.selectors.registry import entry, order_key, reads_space

OVERRIDE = "embedder="
METRIC = "target_loss"
"""Start of the headline of the experiments that are compared."""
BASE_ARM = "none"
EMBEDDING = {"fitted_encoder", "warmed_up", "embeddings", "screened"}
"""Steps of a space, which its selectors share."""
NOTE = (
    "Each cell: loss on held-out texts of the target minus that of the arm none, in nats per "
    "predicted token, mean ± half-width of the 95 % t-interval over draws, lower is better; share "
    "of the selection that is of domains the base lacks; cost of the selection."
)
COST_NOTE = (
    "Cost: seconds of the steps that embed pool and target (fitting or warming up the space "
    "included), rank the pool and write the selection. Selectors of one space share the embedding, "
    "which each of them counts in full. Seconds are elapsed ones of one process, so core-seconds "
    "where an experiment has one thread and the machine no other work."
)


@dataclass(frozen=True)
class Grid:
    """One setting of an experiment in several spaces.

    Args:
        spaces: The cells of each space, the experiment's own space first. Arms that read no
            space are in each.
        own: The experiment's own space, if cells ran in it without an override.
    """

    spaces: Mapping[str, Block]
    own: str | None

    @property
    def first(self) -> Block:
        """Return the cells of the first space."""
        return next(iter(self.spaces.values()))

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Return the arms that ran in several spaces, in table order."""
        ran = Counter(r for block in self.spaces.values() for r in block.arms if _reads(block, r))
        names = {row: name for block in self.spaces.values() for row, name in block.names.items()}
        several = (row for row, spaces in ran.items() if spaces > 1)
        return tuple(sorted(several, key=lambda row: (order_key(names[row][0]), row)))

    @property
    def references(self) -> tuple[str, ...]:
        """Return the arms that read no space, but for the arm without a selection."""
        block = self.first
        return tuple(r for r in block.arms if r != BASE_ARM and not _reads(block, r))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Return the tasks that ran in every space."""
        others = self.spaces.values()
        return tuple(t for t in self.first.tasks if all(t in block.tasks for block in others))

    @cached_property
    def draws(self) -> tuple[int, ...]:
        """Return the seeds that every space has, of some arm on all tasks."""
        found = [
            {s for row in self.rows for s in _done(block, row, self.tasks)}
            for block in self.spaces.values()
        ]
        return tuple(sorted(set.intersection(*found)))

    @cached_property
    def draws_of(self) -> dict[str, list[int]]:
        """Return by row the common draws on which it is done in every space that it ran in."""
        return {row: self._draws_of(row) for row in (*self.rows, *self.references)}

    def _draws_of(self, row: str) -> list[int]:
        done = [
            _done(block, row, self.tasks) & _done(block, BASE_ARM, self.tasks)
            for block in self.spaces.values()
            if block.of(row)
        ]
        return sorted(set(self.draws).intersection(*done))


def split(records: Sequence[Record]) -> tuple[list[Record], list[Grid]]:
    """Split records into those of the other tables and the settings that ran in several spaces.

    Args:
        records: Merged records of any experiments.

    Returns:
        All records, without those of other spaces where an experiment ran in its own, too; and a
        grid for each experiment, scale and setting with a target loss and several spaces.
    """
    measured = {(r["experiment"], r["scale"]) for r in records if _is_loss(r)}
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if (place := (record["experiment"], record["scale"])) in measured:
            groups[place].append(record)
    grids = [grid for members in groups.values() for grid in _grids(members)]
    apart = {
        record["key"]
        for grid in grids
        for space, block in grid.spaces.items()
        if grid.own is not None and space != grid.own
        for (_, row, _), record in block.cells.items()
        if _reads(block, row)
    }
    return [record for record in records if record["key"] not in apart], grids


def _is_loss(record: Record) -> bool:
    return record["metrics"].get("headline_name", "").startswith(METRIC)


def _grids(records: Sequence[Record]) -> list[Grid]:
    """Build the grids of one experiment at one scale."""
    # Cells without the override first: one of two records of a cell is taken.
    ordered = sorted(records, key=lambda r: (_is_overridden(r), canonical_order(r)))
    own = next((_space(r) for r in ordered if _reads_space(r) and not _is_overridden(r)), None)
    of_space: dict[str, dict[tuple[Any, ...], Record]] = defaultdict(dict)
    free: dict[tuple[Any, ...], Record] = {}
    for record in ordered:
        cell = _without_override(record)
        known = of_space[_space(record)] if _reads_space(record) else free
        known.setdefault(canonical_order(cell)[:-1], cell)
    settings: dict[str, dict[str, Block]] = defaultdict(dict)
    for space in sorted(of_space, key=lambda name: (name != own, name)):
        for block in blocks([*of_space[space].values(), *free.values()]):
            if any(_reads(block, row) for row in block.arms) and BASE_ARM in block.arms:
                settings[block.label][space] = block
    grids = [Grid(spaces, own) for spaces in settings.values() if len(spaces) > 1]
    return [grid for grid in grids if grid.rows and grid.tasks]


def _space(record: Record) -> str:
    return str((record["config"].get("embedder") or {}).get("name"))


def _is_overridden(record: Record) -> bool:
    return any(part.startswith(OVERRIDE) for part in _overrides(record))


def _overrides(record: Record) -> list[str]:
    return str(record["axes"].get(VARIANT) or "").split(" ")


def _without_override(record: Record) -> Record:
    left = " ".join(part for part in _overrides(record) if not part.startswith(OVERRIDE))
    return {**record, "axes": {**record["axes"], VARIANT: left or None}}


def _reads_space(record: Record) -> bool:
    return _arm_reads(record["axes"]["arm"])


def _reads(block: Block, row: str) -> bool:
    return _arm_reads(block.names[row][0])


@cache
def _arm_reads(arm: str) -> bool:
    try:
        return reads_space(entry(arm))
    except ValueError:  # of a package that is not installed here
        return True


def _done(block: Block, row: str, tasks: Sequence[str]) -> set[int]:
    """Return the seeds on which a row is done on all tasks."""
    seeds = [{r["axes"]["seed"] for r in block.of(row, task)} for task in tasks]
    return set.intersection(*seeds)


def difference(
    grid: Grid, space: str, row: str, tasks: Sequence[str], draws: Sequence[int]
) -> Interval:
    """Return the mean loss of a row minus that of the arm none, with an interval over draws."""
    block = grid.spaces[space]
    losses, base = (
        np.array([[block.cells[t, arm, s]["metrics"]["headline"] for s in draws] for t in tasks])
        for arm in (row, BASE_ARM)
    )
    return t_interval(seed_differences(losses, base))


def _cell(grid: Grid, space: str, row: str, tasks: Sequence[str]) -> str:
    block, draws = grid.spaces[space], grid.draws_of[row]
    if row not in block.arms:
        return ""
    if not draws:
        return "–"
    cells = [block.cells[task, row, draw] for task in tasks for draw in draws]
    interval = difference(grid, space, row, tasks, draws)
    shown = format_interval(interval, len(grid.draws), block.metric.factor, block.metric.digits)
    # Six spaces fit a page without the zero before each point.
    shown = re.sub(r"\b0\.", ".", shown)
    words = [shown if interval.mean < 0 else f"+{shown}"]
    shares = [s for r in cells if (s := r["selection"].get("under_covered_share")) is not None]
    if len(shares) == len(cells):
        words.append(f"{100 * np.mean(shares):.0f} %")
    seconds = [s for r in cells if (s := _seconds(r, _reads(block, row))) is not None]
    if len(seconds) == len(cells):
        mean_s = float(np.mean(seconds))
        words.append(f"{mean_s:.2g} s" if mean_s < 10 else f"{mean_s:.0f} s")
    return "; ".join(words)


def _seconds(record: Record, reads: bool) -> float | None:
    """Return the seconds that a selection took; ``None`` where the record has none."""
    steps = record["cost"].get("stages_s") or {}
    counted = SELECTING | (EMBEDDING if reads else set())
    return sum(s for name, s in steps.items() if name in counted) if steps else None


def sections(grids: Sequence[Grid]) -> list[Section]:
    """Build a section for each grid: its table, a table for each task, tests, failed cells."""
    built = []
    for number, grid in enumerate(grids, start=1):
        tables = [_grid_table(grid, grid.tasks)]
        if len(grid.tasks) > 1:
            tables += [_grid_table(grid, [task]) for task in grid.tasks]
        for space, block in grid.spaces.items():
            if grid.own is not None and space == grid.own:
                continue  # these are among the other tables
            for table in (average_comparisons_table(block), failed_table(block)):
                if table is not None:
                    tables.append(replace(table, title=f"{table.title}, space {space}"))
        name = f"{number}_spaces" if len(grids) > 1 else "spaces"
        picture = Picture(name, "Loss by selector and space", drawing.to_svg(_figure(grid)))
        title = f"{grid.first.experiment}, selectors by spaces: {grid.first.label}"
        built.append(Section(title, tuple(tables), (picture,)))
    return built


def _grid_table(grid: Grid, tasks: Sequence[str]) -> Table:
    """Show selectors by spaces; those that read no space are in the first column."""
    free = ("",) * (len(grid.spaces) - 1)
    first = next(iter(grid.spaces))
    rows = [(f"{row} (no space)", _cell(grid, first, row, tasks), *free) for row in grid.references]
    rows += [(row, *(_cell(grid, space, row, tasks) for space in grid.spaces)) for row in grid.rows]
    draws = ", ".join(map(str, grid.draws))
    notes = (
        NOTE,
        f"All cells are on the draws that every space has: {len(grid.draws)} ({draws}). (n/N) "
        f"marks a row that is done in all its spaces on n of them. {seeds_note(grid.first)}",
        COST_NOTE,
        *(f"Space {space}. {note}" for space, b in grid.spaces.items() for note in flags_note(b)),
    )
    of = "mean of the tasks" if len(tasks) > 1 else tasks[0]
    columns = ("selector", *grid.spaces)
    return Table(f"Selectors by spaces, {of}", columns, tuple(rows), notes)


@mpl.rc_context(drawing.STYLE)
def _figure(grid: Grid) -> Figure:
    """Plot the difference to the arm none by selector, a panel for each space."""
    height = 0.8 + 0.26 * len(grid.rows)
    figure, axes = drawing.grid(len(grid.spaces), 2.4, height, grid.rows)
    lines = {row: ":" if row == "random" else "--" for row in grid.references}
    for axis, (space, block) in zip(axes, grid.spaces.items(), strict=True):
        axis.axvline(0, color="#444444", linewidth=1)
        for row, dash in lines.items():
            if draws := grid.draws_of[row]:
                mean = difference(grid, space, row, grid.tasks, draws).mean
                colour = drawing.look(block, row)["color"]
                axis.axvline(mean, color=colour, linestyle=dash, linewidth=1.2, label=one_line(row))
        for y, row in enumerate(grid.rows):
            if row in block.arms and (draws := grid.draws_of[row]):
                interval = difference(grid, space, row, grid.tasks, draws)
                drawing.whisker(axis, interval, y, 1.0, block, row)
        axis.set_title(one_line(space))
        axis.set_xlabel(f"loss minus none, nats\n({drawing.LOWER})")
        drawing.name_rows(axis, grid.rows)
        if axis is not axes[0]:
            axis.sharex(axes[0])
    shown = [
        f"{one_line(row)} {'dotted' if dash == ':' else 'dashed'}" for row, dash in lines.items()
    ]
    figure.suptitle(", ".join(["Loss minus that of none, mean and 95 % interval", *shown]))
    return figure
