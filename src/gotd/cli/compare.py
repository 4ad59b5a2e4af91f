"""``gotd compare``: files in, a table, paired tests and a page out."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gotd.cli.plan import print_plan
from gotd.cli.select import named_columns, parse_budgets
from gotd.data.hub.stream import HUB_RECORD
from gotd.data.inputs import check_role, named_parts
from gotd.data.pool import pool_facts
from gotd.data.sizes import CHARS_PER_TOKEN
from gotd.engine.progress import watch_terminal
from gotd.pipeline.experiment import Cell, plan_cell, run_cell
from gotd.runs.own_model import OwnModel
from gotd.runs.own_task import (
    CheckedRows,
    OwnTask,
    check_rows,
    lay_out,
    takes_budget,
    with_counts,
)
from gotd.runs.sweep import add_overlaps, check_writable, report
from gotd.storage import progress
from gotd.storage.artifacts import Step
from gotd.storage.hub_models import use_hub_folder
from gotd.storage.printing import command_line, printable

log = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        0 if every cell is done, 1 if one failed.

    Raises:
        ValueError: If something that was asked for cannot be had; one line.
        OSError: If a file cannot be read or written; one line.
    """
    logging.getLogger("gotd.storage.artifacts").setLevel(logging.WARNING)
    use_hub_folder(options.store / "hub")
    own = _own_task(options)
    model = OwnModel.find(own.model)
    log.info("%s", model.described)
    check_writable(options.store)
    rows = check_rows(own)
    configs = lay_out(own, rows)
    with progress.watch(watch_terminal()):
        if takes_budget(own) or model.needs_text:
            _count_pool(own, configs, rows)
        planned = [(plan_cell(config, name), config, name) for config, name in configs]
        # Methods without a budget are the same cell at each of several budgets.
        distinct = list({each[0].record.key: each for each in planned}.values())
        cells = [cell for cell, _, _ in distinct]
        pending = sum(not cell.is_done for cell in cells)
        if pending:
            print_plan(cells)
        for number, (cell, config, name) in enumerate(distinct, 1):
            if not cell.is_done:
                run_cell(config, name)
                log.info("%s: cell %d of %d", _words(cell), number, len(cells))
    return _report(cells, own.name)


def _own_task(options: argparse.Namespace) -> OwnTask:
    outcome = options.outcome or ("loss" if options.target else "labels")
    given = {role: getattr(options, role) for role in ("train", "test", "target")}
    wanted = ("train", "test") if outcome == "labels" else ("target",)
    for role, names in given.items():
        if role in wanted and not names:
            raise ValueError(f"--outcome {outcome} needs --{' and --'.join(wanted)}")
        if role not in wanted and names:
            raise ValueError(
                f"--{role} is not read by --outcome {outcome}, which reads "
                f"--{' and --'.join(wanted)}; leave it out"
            )
    columns, target_columns = named_columns(options)
    path = {role: tuple(given[role]) for role in wanted}
    path["candidates"] = tuple(options.candidates)
    record = options.store / HUB_RECORD
    if options.role != "all":
        parts = named_parts(path["candidates"], columns, record)
        check_role(options.role, [*parts, *named_parts(path[wanted[0]], target_columns, record)])
    return OwnTask(
        path=path,
        methods=tuple(dict.fromkeys(name.strip() for name in options.methods.split(","))),
        budgets=tuple(parse_budgets(options.budget)),
        seeds=options.seeds,
        store=str(options.store),
        model=options.model,
        label=options.label_column,
        columns=columns,
        target_columns=target_columns,
        chunks={
            "unit": options.unit,
            "length_chars": options.length_chars,
            "min_chars": options.min_chars,
        },
        keep_overlap=options.keep_overlap,
        settings=tuple(options.set),
    )


def _count_pool(
    own: OwnTask, configs: Sequence[tuple[DictConfig, str]], checked: CheckedRows
) -> None:
    """Read the pool before anything is trained, and check that the budgets fit.

    Raises:
        ValueError: If a budget is above the rows of the pool.
    """
    selects = takes_budget(own)
    # Where the base alone reads the pool, one cell that selects is laid out to find it.
    one = replace(own, methods=("random",), seeds=1, budgets=own.budgets[:1])
    cell, pool = _with_pool(configs if selects else lay_out(one, checked))
    facts = pool_facts(cell.store.get(pool))
    rows = sum(facts["rows"])
    if selects and max(own.budgets) > rows:
        raise ValueError(
            f"the budget {max(own.budgets):,} is larger than the pool of {rows:,} candidates; "
            "lower it or add candidates"
        )
    chars = sum(length * count for length, count in facts["length_chars"])
    with_counts(configs, rows, round(max(1.0, chars / rows / CHARS_PER_TOKEN), 1))


def _with_pool(configs: Sequence[tuple[DictConfig, str]]) -> tuple[Cell, Step]:
    """Return the first cell that selects from the pool, and the step of its pool."""
    for config, name in configs:
        cell = plan_cell(config, name)
        for step in cell.record.ancestors():
            if step.kind == "pool" and step.name == "candidates":
                return cell, step
    raise AssertionError("no cell reads the pool")


def _words(cell: Cell) -> str:
    outcome: Any = cell.outcome()
    axes, metrics = cell.axes, outcome["metrics"]
    score = f"{metrics['headline_name']} {metrics['headline']:.3f}" if metrics else "failed"
    budget = f" budget {axes['budget']}" if axes["budget"] else ""
    return f"{axes['arm']}{budget} seed {axes['seed']}: {score}"


def _report(cells: Sequence[Cell], task: str) -> int:
    """Print scores and tests, and write the page."""
    outcomes = [(cell, record) for cell in cells if (record := cell.outcome()) is not None]
    add_overlaps(outcomes)
    keys = "".join(sorted(cell.record.key for cell in cells))
    name = f"compare-{task}-{hashlib.sha256(keys.encode()).hexdigest()[:8]}"
    folder = cells[0].store.root / "reports" / name
    status = report(
        outcomes, len(cells), folder, command_line(["gotd", *sys.argv[1:]]), "", tests=True
    )
    print(printable(f"page: {Path(folder) / 'report.html'}"))
    return status
