"""Copy losses and records to Weights & Biases, offline by default.

The records are the truth and the tracker is a copy: nothing reads it back, and a run without
it gives the same tables. Every call of wandb runs in a thread of its own, behind a bounded
queue. So neither an error of wandb nor a network that hangs stops or delays a cell; the run
in question warns once. The id of a run is the key of the cell's record.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from gotd.reporting.cells import blocks
from gotd.reporting.records import Record
from gotd.reporting.tables import scores_table
from gotd.training.tracking import Run

log = logging.getLogger(__name__)

RUN_NAME_AXES = ("task", "arm", "budget", "seed")
QUEUE_SIZE = 1000
"""Calls that wait for wandb; more are dropped."""
FINISH_TIMEOUT_S = 10.0
"""Longest wait for a run to be written. Later calls may still succeed in the background."""

_silent: set[str] = set()
"""Folders of trackers whose server did not answer: each cell would wait for it again."""

Call = Callable[[Any], None]
"""Work on an open wandb run."""


@dataclass(frozen=True)
class NoTracker:
    """Tracks nothing; it is its own run."""

    def start(
        self, key: str, experiment: str, axes: Mapping[str, Any], config: Mapping[str, Any]
    ) -> NoTracker:
        """Return a run that records nothing."""
        return self

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Drop a point."""

    def finish(self, record: Mapping[str, Any] | None = None, failed: bool = False) -> None:
        """Drop a record."""

    def tabulate(self, records: Sequence[Record]) -> None:
        """Drop the tables."""


@dataclass(frozen=True)
class WandbTracker:
    """One Weights & Biases run per cell.

    All files of wandb are written below ``directory``, never in the home folder. With
    ``mode="offline"`` no connection leaves this machine. Without the package one warning is
    logged and nothing is tracked.

    Args:
        directory: Folder for runs, caches and settings; made when first used.
        project: Name of the project.
        mode: ``offline`` writes runs that ``wandb sync`` uploads later, ``online`` uploads.
    """

    directory: str
    project: str = "gotd"
    mode: Literal["online", "offline"] = "offline"

    def __post_init__(self) -> None:
        if self.mode not in ("online", "offline"):
            raise ValueError(
                f"tracker mode must be online or offline, not {self.mode!r} "
                "(tracker=none tracks nothing)"
            )
        for name in ("directory", "project"):
            if not getattr(self, name):
                raise ValueError(f"tracker {name} must not be empty")

    def start(
        self, key: str, experiment: str, axes: Mapping[str, Any], config: Mapping[str, Any]
    ) -> Run:
        """Open the run of a cell with its configuration.

        Args:
            key: Key of the record; becomes the id of the run.
            experiment: Groups the runs.
            axes: Task, arm and so on; become the name, the tags and part of the config.
            config: The cell's configuration, JSON-able.
        """
        if not _has_wandb() or self.directory in _silent:
            return NoTracker()
        name = "-".join(str(axes[n]) for n in RUN_NAME_AXES if n in axes)
        # The web page filters by them; it takes 64 characters at most.
        tags = [f"{n}:{v}"[:64] for n, v in axes.items() if v not in (None, "") and n != "seed"]

        def open_run() -> Any:
            _redirect_files(Path(self.directory))
            import wandb

            return wandb.init(
                project=self.project,
                dir=self.directory,
                mode=self.mode,
                id=key,
                resume="allow" if self.mode == "online" else None,
                name=name,
                group=experiment,
                tags=tags,
                config={**config, "axes": dict(axes)},
                # Several cells may be open in one process; none becomes the global run.
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    symlink=False,
                    disable_git=True,
                    disable_code=True,
                    disable_job_creation=True,
                    finish_timeout=FINISH_TIMEOUT_S,  # also at the exit of the process
                    x_disable_stats=True,
                    x_disable_meta=True,
                    x_disable_machine_info=True,
                    x_save_requirements=False,
                ),
            )

        return WandbRun(open_run, name, partial(_silent.add, self.directory))

    def tabulate(self, records: Sequence[Record]) -> None:
        """Write the scores of a whole sweep as one ``wandb.Table`` for each block."""
        for block in blocks(records):
            table = scores_table(block)
            key = hashlib.sha256(f"{block.experiment}: {block.label}".encode()).hexdigest()
            axes = {"task": "table", "arm": "all", **block.axes}
            run = self.start(key, block.experiment, axes, {"notes": list(table.notes)})
            if isinstance(run, WandbRun):
                run.log_table("scores", table.columns, table.rows)
            run.finish()


class WandbRun:
    """An open run, whose calls a daemon thread makes one after the other.

    Args:
        open_run: Returns what ``wandb.init`` returns.
        name: Name in warnings.
        on_silence: Called if wandb does not answer in time.
    """

    def __init__(
        self,
        open_run: Callable[[], Any],
        name: str,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self._on_silence = name, on_silence
        self._failed = self._closed = self._warned = False
        self._curves: set[str] = set()
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(open_run,), daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to one live curve per name."""
        live = {f"live/{name}": value for name, value in values.items()}
        self._send(lambda run: self._add_point(run, step, live))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table."""
        self._send(lambda run: run.log({name: _table(columns, rows)}))

    def finish(self, record: Mapping[str, Any] | None = None, failed: bool = False) -> None:
        """Add curves, metrics and tables of a record, and close the run in any case.

        Returns after `FINISH_TIMEOUT_S` even if wandb does not answer; a second call does
        nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._failed = failed if record is None else record["status"] == "failed"
        if record is not None:
            self._send(lambda run: self._add_record(run, record))
        self._calls.put(None)
        self._thread.join(FINISH_TIMEOUT_S)
        if self._thread.is_alive():
            self._warn(
                f"no answer within {FINISH_TIMEOUT_S:g} s; the cells that follow in this process "
                "are not tracked"
            )
            self._on_silence()

    def _send(self, call: Call) -> None:
        if self._calls.qsize() < QUEUE_SIZE:
            self._calls.put(call)
        elif self._thread.is_alive():
            self._warn("it does not keep up, and points were dropped")

    def _work(self, open_run: Callable[[], Any]) -> None:
        """Open the run, make the calls and close the run; an error ends all tracking of it."""
        try:
            run, failed = open_run(), True
            try:
                for call in iter(self._calls.get, None):
                    call(run)
                failed = self._failed
            finally:
                run.finish(exit_code=int(failed))
        except Exception as error:  # noqa: BLE001 - whatever wandb raises, the cell goes on
            self._warn(str(error))

    def _warn(self, reason: str) -> None:
        if not self._warned:
            log.warning("the wandb run %s is incomplete (its record is not): %s", self.name, reason)
        self._warned = True

    def _add_point(self, run: Any, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve; every curve has a step axis of its own."""
        for name, value in values.items():
            if name not in self._curves:
                run.define_metric(f"{name}/step", hidden=True)
                run.define_metric(f"{name}/value", step_metric=f"{name}/step")
                self._curves.add(name)
            run.log({f"{name}/step": step, f"{name}/value": value})

    def _add_record(self, run: Any, record: Mapping[str, Any]) -> None:
        for name, points in record["curves"].items():
            for step, value in points:
                self._add_point(run, step, {name: value})
        summary = {"status": record["status"], **record["metrics"], **_numbers(record["cost"])}
        if record["error"] is not None:
            summary["error"] = record["error"]
        numbers = sorted(_numbers(record["metrics"]).items())
        tables = {"metrics": _table(["metric", "value"], numbers)}
        if (selection := record["selection"]) is not None:
            summary["selection"] = {
                k: v for k, v in selection.items() if not isinstance(v, dict | list)
            }
            target, selected = (selection.get(n) or {} for n in ("target_domains", "domains"))
            names = sorted({*selected, *target})
            shares = [[name, selected.get(name, 0), target.get(name, 0.0)] for name in names]
            tables["selection"] = _table(["domain", "selected_rows", "target_share"], shares)
        run.summary.update(summary)
        run.log(tables)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


@cache
def _has_wandb() -> bool:
    """Return whether the package is installed; warn once if it is not."""
    if importlib.util.find_spec("wandb") is not None:
        return True
    log.warning(
        "wandb is not installed, so cells are not tracked (the records are complete); "
        "install it or set tracker=none"
    )
    return False


def _redirect_files(directory: Path) -> None:
    """Set the environment by which wandb writes all its files below ``directory``."""
    folders = {"WANDB_DIR": directory}
    for part in ("cache", "data", "config", "artifact"):
        folders[f"WANDB_{part.upper()}_DIR"] = directory / part
    for name, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder.resolve())
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # else crash reports are sent even offline
