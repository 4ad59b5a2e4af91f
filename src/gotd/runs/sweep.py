"""Run the cells of an experiment that are missing, and write their tables.

Hydra launches the cells. A finished cell returns at once from its record, so the same
command resumes a sweep.
"""

from __future__ import annotations

import gc
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
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gotd.config.build import register
from gotd.config.discovery import conf_folder
from gotd.pipeline.experiment import Cell
from gotd.runs.expand import (
    Job,
    SweepError,
    compose_shared,
    composing,
    expand,
    expand_cells,
    one_line,
    resolve,
)
from gotd.runs.flags import check_flags
from gotd.runs.overrides import is_run_only, variant
from gotd.runs.process import (
    closed_output_ignored,
    killed_worker,
    stopped_as_interrupted,
    warnings_logged,
)
from gotd.storage.errors import ArtifactError, StoreError, explained
from gotd.storage.printing import command_line, printable

log = logging.getLogger(__name__)


class SweepStopped(BaseException):
    """An error of every cell alike; Hydra lets it pass, where it gathers each `Exception`."""


Outcome = tuple[Cell, dict[str, Any]]
"""A cell that ran, and its record."""


def run(experiment: str, arguments: Sequence[str] | None = None) -> int:
    """Run an experiment, then print and write its tables.

    Args:
        experiment: Name of a folder in conf/experiment, or of a file in it (``glue/micro``).
        arguments: Hydra overrides and flags; ``None`` for those of the process.

    Returns:
        Exit status: 0 if every cell is done, 1 if one failed or is missing, 2 if the command
        is invalid (one line has the reason), 130 if it was interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with stopped_as_interrupted(), closed_output_ignored():
        return _run(experiment, given)


def _run(experiment: str, given: Sequence[str]) -> int:
    """Run an experiment; see `run`."""
    overrides = [f"experiment={experiment}", *given]
    if any(flag in given for flag in ("--help", "-h", "--info")):
        _explain(overrides)
        return 0
    try:
        check_flags(overrides)
        if "--cfg" in given:
            (config, _), *_ = expand([o for o in overrides if o not in ("--cfg", "job")])
            print(OmegaConf.to_yaml(config))  # noqa: T201
            return 0
        return _run_missing(experiment, overrides)
    except (ValueError, OSError, ArtifactError, SweepStopped) as error:
        print(printable(f"{experiment}: {error}"), file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print(printable(f"{experiment}: interrupted; the same command resumes"), file=sys.stderr)  # noqa: T201
        return 130


def _run_missing(experiment: str, overrides: Sequence[str]) -> int:
    """Run the cells without a record and report all cells."""
    jobs, skipped = expand_cells(overrides)
    # The arm without a selection is the same cell at every budget of a sweep.
    jobs_by_key = {cell.record.key: job for job, cell in jobs.items()}
    cells = [jobs[job] for job in jobs_by_key.values()]
    pending = [job for job in jobs_by_key.values() if not jobs[job].is_complete]
    names = printable(", ".join(skipped))
    left_out = f"; skipped, not in the source: {names}" if skipped else ""
    if pending:
        check_writable(cells[0].store.root)
        print(printable(f"{experiment}: {len(cells)} cells, {len(pending)} to run{left_out}"))  # noqa: T201
        with explained(cells[0].store.root):
            _launch(overrides, pending)
    outcomes = [(cell, record) for cell in cells if (record := cell.outcome()) is not None]
    add_overlaps(outcomes)
    folder = cells[0].store.root / "reports" / _report_name(experiment, cells, overrides[1:])
    command = command_line(["gotd", "run", *overrides])
    status = report(outcomes, len(cells), folder, command, left_out)
    if pending:
        try:
            cells[0].tracker.tabulate([record for _, record in outcomes])
        except Exception as error:  # noqa: BLE001 - a tracker may come from any package
            log.warning("the tracker has no tables: %s", error)
    return status


def check_writable(root: Path) -> None:
    """Raise an error with a remedy if the store cannot be written; Hydra's has none."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write into {root} ({error.strerror}); choose another store=…"
        ) from error


def _report_name(experiment: str, cells: Sequence[Cell], given: Sequence[str]) -> str:
    """Return a sweep's folder name: the experiment's, with a hash if it has other cells."""
    first, asked = cells[0].record.parameters, experiment.partition("/")[0]
    # An experiment of the cells of another one has a report of its own.
    known = first["experiment"] if first["experiment"].startswith(asked) else asked
    name = f"{known}-{first['scale']}"
    if all(is_run_only(override) or override.startswith(("scale=", "-")) for override in given):
        return name
    keys = sorted(cell.record.key for cell in cells)
    return f"{name}-{hashlib.sha256(''.join(keys).encode()).hexdigest()[:8]}"


def report(
    outcomes: Sequence[Outcome],
    cells: int,
    folder: Path,
    command: str,
    left_out: str,
    tests: bool = False,
) -> int:
    """Print the table of a sweep and write its report.

    Args:
        outcomes: The cells that ran.
        cells: Number of all cells.
        folder: Folder of the report.
        command: The command, for the head of every table.
        left_out: Words about skipped tasks.
        tests: Print the paired tests, too.

    Returns:
        0 if every cell is done, else 1.
    """
    from rich.console import Console

    from gotd.reporting.records import write_jsonl
    from gotd.reporting.report import console_table, console_tests, write_report

    # A pipe has no width; the table of eight tasks needs more than the usual 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 140)
    records = [record for _, record in outcomes]
    if not records:
        console.print("no cell has run yet")
        return 1
    paper = conf_folder().parent / "results" / "paper"
    try:
        write_jsonl(records, folder / "records.jsonl")
        write_report(records, folder, paper=paper if paper.is_dir() else None, command=command)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no memory"
        raise OSError(
            f"the report {folder} cannot be written ({reason}); the records are kept: free some "
            "space and run the same command again"
        ) from error
    console.print(console_table(records))
    if tests and (tested := console_tests(records)) is not None:
        console.print(tested)
    failed = [record for record in records if record["status"] == "failed"]
    for record in failed:
        axes, message = record["axes"], record["error"]["message"]
        line = f"failed: {axes['task']} {axes['arm']} seed {axes['seed']}: {message}"
        console.print(printable(line), markup=False)
    missing = cells - len(records)
    said = f"{len(records) - len(failed)} cells done, {len(failed)} failed, {missing} missing"
    console.print(
        printable(f"{said}{left_out}; report: {folder}"),
        markup=False,
        soft_wrap=True,
    )
    return 0 if not failed and not missing else 1


def add_overlaps(outcomes: Sequence[Outcome]) -> None:
    """Add to each record the overlap of its selection with those of the other arms.

    This is not part of the cell, because it depends on which other cells were run.
    """
    from gotd.pipeline.ranked_pool import SELECTED
    from gotd.selection_report.measures import jaccard

    selections: dict[str, dict[str, tuple[dict[str, Any], list[str]]]] = defaultdict(dict)
    for cell, record in outcomes:
        step = cell.record.inputs.get("selection")
        if step is not None and cell.is_done and cell.store.is_done(step):
            table = pq.read_table(cell.store.folder(step) / SELECTED, columns=["id"])
            same = str({name: value for name, value in cell.axes.items() if name != "arm"})
            selections[same][cell.axes["arm"]] = (record, table["id"].to_pylist())
    for arms in selections.values():
        for arm, (record, ids) in arms.items():
            record["selection"]["overlap"] = {
                other: round(jaccard(ids, others), 6)
                for other, (_, others) in sorted(arms.items())
                if other != arm
            }


def _explain(overrides: Sequence[str]) -> None:
    """Print what Hydra knows of the configuration, by its own flags."""
    register()
    GlobalHydra.instance().clear()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints an error, and ends the process
    before = sys.argv
    sys.argv = [before[0], *resolve(overrides)]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(
            _run_job
        )()
    except (HydraException, OmegaConfBaseException) as error:
        raise SweepError(one_line(error)) from error
    finally:
        sys.argv = before


def _launch(overrides: Sequence[str], jobs: Sequence[Job]) -> None:
    """Run cells by Hydra's launcher.

    Hydra's sweeper would compose every cell of the command twice, done or not, at half a
    second each. These cells were composed and planned before.

    Args:
        overrides: The command, which says which launcher runs them.
        jobs: Overrides of each cell to run.
    """
    try:
        with composing():
            config = compose_shared(overrides)
            HydraConfig.instance().set_config(config)
            callbacks = Callbacks(config)
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=HydraContext(GlobalHydra.instance().config_loader(), callbacks),
                task_function=_run_job,
                config=config,
            )
            callbacks.on_multirun_start(config=config, config_name="config")
            # The launcher adds Hydra's own overrides; one with ~ cannot be applied twice.
            of_cells = [[o for o in job if not o.lstrip("+~").startswith("hydra")] for job in jobs]
            for job in launcher.launch(of_cells, initial_job_idx=0):
                _ = job.return_value  # raises the error of a job that failed
            callbacks.on_multirun_end(config=config, config_name="config")
    except (HydraException, OmegaConfBaseException) as error:
        raise SweepError(one_line(error)) from error
    except RuntimeError as error:
        if (killed := killed_worker(error)) is None:
            raise
        raise SweepStopped(killed) from error


def _run_job(config: DictConfig) -> str:
    """Run the cell of one Hydra job and return the status of its record."""
    from gotd.pipeline.experiment import run_cell

    name = variant(list(HydraConfig.get().overrides.task))
    began = time.perf_counter()
    try:
        with warnings_logged():  # this may be a worker of the launcher
            record = run_cell(config, name)
    except StoreError as error:
        raise SweepStopped(str(error)) from error
    elapsed_s = time.perf_counter() - began
    _freeze_libraries()
    axes, metrics = record["axes"], record["metrics"]
    budget = None if axes["budget"] is None else f"budget {axes['budget']}"
    words = filter(None, (axes["task"], axes["arm"], budget, axes["variant"]))
    score = f"{metrics['headline']:.3f}" if metrics else "failed"
    log.info("%s seed %s: %s (%.0f s)", " ".join(words), axes["seed"], score, elapsed_s)
    return str(record["status"])


def _freeze_libraries() -> None:
    """Leave what the libraries hold out of later collections, once in a process.

    They hold very many objects, and a collection after every stage looks at each of them.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
