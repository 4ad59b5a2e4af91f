"""Run the cells of an experiment that are missing, and tabulate what is there.

Hydra launches; a cell that is done returns at once from its record, so the same command
again is how a sweep resumes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pyarrow.parquet as pq
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from gotd.config.build import register
from gotd.config.discovery import conf_folder
from gotd.pipeline.experiment import Cell
from gotd.runs.expand import SweepError, expand, expand_cells, holds_task, resolve, variant
from gotd.storage.artifacts import ArtifactError

log = logging.getLogger(__name__)


def run(experiment: str, arguments: Sequence[str] | None = None) -> int:
    """Run an experiment as its command line says, then print and write its tables.

    Args:
        experiment: Name of a file in conf/experiment.
        arguments: Hydra overrides and flags; the process's own by default.

    Returns:
        Exit status: 0 if every cell is done, 1 if one failed or is missing, 2 if nothing
        can run as asked (one line says why), 130 if it was interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    overrides = [f"experiment={experiment}", *given]
    if any(flag in given for flag in ("--help", "-h", "--hydra-help", "--info")):
        _launch(overrides)
        return 0
    try:
        if "--cfg" in given:
            (config, _), *_ = expand([o for o in overrides if o not in ("--cfg", "job")])
            print(OmegaConf.to_yaml(config))  # noqa: T201 - the first cell's, whole
            return 0
        _refuse_flags(given)
        # The arm without a selection is one cell at every budget of a sweep.
        expanded, skipped = expand_cells(overrides)
        cells = list({cell.record.key: cell for cell in expanded}.values())
        pending = sum(not cell.is_done for cell in cells)
        if pending:
            _probe(cells[0].store.root)
            print(f"{experiment}: {len(cells)} cells, {pending} to run{_except(skipped)}")  # noqa: T201
            _launch(overrides)
        command = f"python experiments/{experiment}.py {' '.join(given)}".rstrip()
        status = report_cells(cells, command, _report_name(cells, given), skipped)
        if pending:
            cells[0].tracker.tabulate([r for cell in cells if (r := cell.outcome()) is not None])
    except (ValueError, OSError, ArtifactError) as error:
        print(f"{experiment}: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return 2
    except KeyboardInterrupt:
        print(f"{experiment}: interrupted; the same command goes on here", file=sys.stderr)  # noqa: T201
        return 130
    return status


def _except(skipped: Sequence[str]) -> str:
    """Name the tasks that were left out because the source does not hold them."""
    return f"; skipped, not in the source: {', '.join(skipped)}" if skipped else ""


def _refuse_flags(given: Sequence[str]) -> None:
    for flag in given:
        if flag.startswith("-") and flag not in ("-m", "--multirun"):
            raise SweepError(f"there is no flag {flag}; overrides are written name=value")


def _probe(root: Path) -> None:
    """Make sure of the store before Hydra, whose own errors name no remedy, writes there."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write into {root} ({error.strerror}); choose another store=…"
        ) from error


def _report_name(cells: Sequence[Cell], given: Sequence[str]) -> str:
    """Name a sweep's report: the experiment's own, or one with a hash for another set of cells."""
    first = cells[0].record.parameters
    name = f"{first['experiment']}-{first['scale']}"
    how = ("hydra", "store", "workers", "threads", "tracker", "scale", "source.path")
    if all(override.startswith(how) for override in given):
        return name
    keys = sorted(cell.record.key for cell in cells)
    return f"{name}-{hashlib.sha256(''.join(keys).encode()).hexdigest()[:8]}"


def report_cells(
    cells: Sequence[Cell], command: str, name: str, skipped: Sequence[str] = ()
) -> int:
    """Print the table of a sweep and write its report beside the artifacts.

    Args:
        cells: What the sweep holds, done or not.
        command: What made it; stands at the head of every table.
        name: Folder of the report, below ``<store>/reports``.
        skipped: Tasks that the source does not hold.

    Returns:
        0 if every cell is done, else 1.
    """
    from rich.console import Console

    from gotd.reporting.records import write_jsonl
    from gotd.reporting.report import console_table, write_report

    # A pipe has no width; the table of eight tasks needs more than the usual 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 140)
    records = [record for cell in cells if (record := cell.outcome()) is not None]
    if not records:
        console.print("no cell has run yet")
        return 1
    add_overlaps(cells, records)
    place = cells[0].store.root / "reports" / name
    paper = conf_folder().parent / "results" / "paper"
    place.mkdir(parents=True, exist_ok=True)
    write_jsonl(records, place / "records.jsonl")
    write_report(records, place, paper=paper if paper.is_dir() else None, command=command)
    console.print(console_table(records))
    failed = [record for record in records if record["status"] == "failed"]
    for record in failed:
        axes = record["axes"]
        console.print(
            f"failed: {axes['task']} {axes['arm']} seed {axes['seed']}: "
            f"{record['error']['message']}",
            markup=False,
        )
    missing = len(cells) - len(records)
    console.print(
        f"{len(records) - len(failed)} cells done, {len(failed)} failed, {missing} missing"
        f"{_except(skipped)}; report: {place}",
        markup=False,
        soft_wrap=True,
    )
    return 0 if not failed and not missing else 1


def add_overlaps(cells: Sequence[Cell], records: Sequence[dict[str, Any]]) -> None:
    """Put into each record how far its selection agrees with the other arms' for its task.

    Done here and not in the cell, because what else was run is no part of it.
    """
    from gotd.selection_report.measures import jaccard

    rows: dict[str, dict[str, Any]] = defaultdict(dict)
    where = {}
    for cell in cells:
        chosen = cell.record.inputs.get("selection")
        if chosen is not None and cell.is_done and cell.store.is_done(chosen):
            axes = {k: v for k, v in cell.axes.items() if k != "arm"}
            where[cell.record.key] = str(axes)
            table = pq.read_table(cell.store.folder(chosen) / "selection.parquet", columns=["id"])
            rows[str(axes)][cell.axes["arm"]] = table["id"]
    for record in records:
        place = where.get(record["key"])
        if place is not None:
            own = rows[place][record["axes"]["arm"]]
            record["selection"]["overlap"] = {
                arm: round(jaccard(own, ids), 6)
                for arm, ids in sorted(rows[place].items())
                if arm != record["axes"]["arm"]
            }


def _launch(overrides: Sequence[str]) -> None:
    """Hand the command line to Hydra, which runs every cell through its launcher."""
    register()
    GlobalHydra.instance().clear()
    os.environ.setdefault("HYDRA_FULL_ERROR", "0")
    before = sys.argv
    sys.argv = [before[0], *resolve(overrides)]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(
            _run_job
        )()
    finally:
        sys.argv = before


def _run_job(config: DictConfig) -> str:
    """Run the cell of one Hydra job; the launcher keeps the record's status."""
    from gotd.pipeline.experiment import run_cell

    if not holds_task(config):
        return "skipped"  # named once for the sweep
    if config.threads is not None:
        import torch

        torch.set_num_threads(config.threads)
    name = variant(list(HydraConfig.get().overrides.task))
    began = time.perf_counter()
    record = run_cell(config, name)
    axes, metrics = record["axes"], record["metrics"]
    budget = "" if axes["budget"] is None else f" budget {axes['budget']}"
    log.info(
        "%s %s%s seed %s: %s (%.0f s)",
        axes["task"],
        axes["arm"],
        f"{budget} {axes['variant'] or ''}".rstrip(),
        axes["seed"],
        f"{metrics['headline']:.3f}" if metrics else "failed",
        time.perf_counter() - began,
    )
    return str(record["status"])
