"""Mirror records to Weights & Biases, offline unless told otherwise.

The records are the truth and the tracker a copy: nothing reads it back, and a run without
it gives the same tables. So no error of wandb's reaches a cell: the run concerned warns once
and the sweep goes on. One run per cell; its id is the record's key, so a cell that is
mirrored twice stays one run once it is synchronised.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

from gotd.reporting.cells import blocks
from gotd.reporting.records import Record
from gotd.reporting.tables import scores_table

log = logging.getLogger(__name__)

_NAMED = ("task", "arm", "budget", "seed")


class Run(Protocol):
    """One cell while it is being tracked."""

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to the history."""
        ...

    def finish(self, record: Record | None) -> None:
        """Add what the record holds and close; ``None`` when there is no record."""
        ...


class Tracker(Protocol):
    """Anything that can keep a copy of what cells do."""

    def start(
        self, key: str, experiment: str, axes: Mapping[str, Any], config: Mapping[str, Any]
    ) -> Run:
        """Open the run of a cell; the configuration is written first."""
        ...

    def mirror(self, record: Record) -> None:
        """Open, fill and close the run of a finished cell."""
        ...

    def tabulate(self, records: Sequence[Record]) -> None:
        """Keep the tables of a whole sweep, as a run of its own."""
        ...


@dataclass(frozen=True)
class NoRun:
    """Forgets what it is told."""

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Forget a point."""

    def finish(self, record: Record | None) -> None:
        """Forget a record."""


@dataclass(frozen=True)
class NoTracker:
    """Tracks nothing."""

    def start(
        self, key: str, experiment: str, axes: Mapping[str, Any], config: Mapping[str, Any]
    ) -> NoRun:
        """Open nothing."""
        return NoRun()

    def mirror(self, record: Record) -> None:
        """Copy nothing."""

    def tabulate(self, records: Sequence[Record]) -> None:
        """Keep nothing."""


@dataclass(frozen=True)
class WandbTracker:
    """Keeps one Weights & Biases run per cell.

    Everything wandb writes lies under ``directory``, never in the home folder, and with
    ``mode="offline"`` no socket beyond this machine is opened. Where the package is absent
    one warning is given and nothing is tracked.

    Args:
        directory: Folder for runs, caches and settings; made when first used.
        project: Name of the project.
        mode: ``offline`` writes runs to be synchronised later, ``online`` sends them,
            ``disabled`` keeps nothing.
    """

    directory: str
    project: str = "gotd"
    mode: Literal["online", "offline", "disabled"] = "offline"

    def __post_init__(self) -> None:
        if self.mode not in ("online", "offline", "disabled"):
            raise ValueError(f"tracker mode must be online, offline or disabled, not {self.mode!r}")
        for name in ("directory", "project"):
            if not getattr(self, name):
                raise ValueError(f"tracker {name} must not be empty")

    def start(
        self, key: str, experiment: str, axes: Mapping[str, Any], config: Mapping[str, Any]
    ) -> Run:
        """Open the run of a cell with its configuration.

        Args:
            key: The record's key; becomes the id of the run.
            experiment: Groups the runs.
            axes: Task, arm and so on; become the name, the tags and part of the config.
            config: The cell's configuration, JSON-able.
        """
        if self.mode == "disabled":
            return NoRun()
        if not _has_wandb():
            return NoRun()
        name = "-".join(str(axes[n]) for n in _NAMED if n in axes)
        try:
            _keep_inside(Path(self.directory))
            import wandb

            run = wandb.init(
                project=self.project,
                dir=self.directory,
                mode=self.mode,
                id=key,
                resume="allow" if self.mode == "online" else None,
                name=name,
                group=experiment,
                tags=_tags(axes),
                config={**config, "axes": dict(axes)},
                # Several cells may be open in one process; none becomes the global run.
                reinit="create_new",
                settings=_quiet_settings(),
            )
        except Exception as error:
            if not _is_of_tracking(error):
                raise
            log.warning("wandb could not open run %s, so it is not tracked: %s", name, error)
            return NoRun()
        return WandbRun(run, name)

    def mirror(self, record: Record) -> None:
        """Copy a finished cell, done or failed."""
        run = self.start(record["key"], record["experiment"], record["axes"], record["config"])
        run.finish(record)

    def tabulate(self, records: Sequence[Record]) -> None:
        """Keep the scores of a whole sweep as one ``wandb.Table`` for each block."""
        for block in blocks(records):
            table = scores_table(block)
            key = hashlib.sha256(f"{block.experiment}: {block.label}".encode()).hexdigest()
            axes = {"task": "table", "arm": "all", **block.axes}
            run = self.start(key, block.experiment, axes, {"notes": list(table.notes)})
            if isinstance(run, WandbRun):
                run.keep_table("scores", table.columns, table.rows)


@dataclass
class WandbRun:
    """An open run; errors of wandb's end in one warning, all others are raised.

    Args:
        run: What ``wandb.init`` returned.
        name: Stands in the warning.
        warned: Whether the warning was given.
    """

    run: Any = field(repr=False)
    name: str
    warned: bool = field(default=False, init=False)

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Add a point to the history."""
        with self._warning_once():
            self.run.log(dict(values), step=step)

    def finish(self, record: Record | None) -> None:
        """Add curves, metrics and tables of the record, then close the run in any case."""
        failed = True
        with self._warning_once():
            try:
                if record is not None:
                    self._copy(record)
                    failed = record["status"] == "failed"
            finally:
                self.run.finish(exit_code=int(failed))

    def keep_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add one table and close the run in any case."""
        import wandb

        with self._warning_once():
            try:
                data: Any = [list(row) for row in rows]
                self.run.log({name: wandb.Table(columns=list(columns), data=data)})
            finally:
                self.run.finish()

    @contextmanager
    def _warning_once(self) -> Iterator[None]:
        """Turn what wandb raises into a warning, the first time; then into nothing."""
        try:
            yield
        except Exception as error:
            if not _is_of_tracking(error):
                raise
            if not self.warned:
                log.warning("wandb run %s is incomplete (its record is not): %s", self.name, error)
            self.warned = True

    def _copy(self, record: Record) -> None:
        for name, points in record["curves"].items():
            # Every curve has a step of its own: epochs and updates do not share an axis.
            self.run.define_metric(f"{name}/step", hidden=True)
            self.run.define_metric(f"{name}/value", step_metric=f"{name}/step")
            for step, value in points:
                self.run.log({f"{name}/step": step, f"{name}/value": value})
        self.run.summary.update(
            {
                "status": record["status"],
                **record["metrics"],
                **{n: v for n, v in record["cost"].items() if isinstance(v, int | float)},
            }
        )
        if record["error"] is not None:
            self.run.summary.update({"error": record["error"]})
        self._copy_tables(record)

    def _copy_tables(self, record: Record) -> None:
        import wandb

        tables = {}
        selection = record["selection"]
        if selection is not None:
            target = selection.get("target_domains") or {}
            chosen = selection.get("domains") or {}
            names = sorted({*chosen, *target})
            if names:
                tables["selection"] = wandb.Table(
                    columns=["domain", "selected_rows", "target_share"],
                    data=[[n, chosen.get(n, 0), target.get(n, 0.0)] for n in names],
                )
            facts = {n: v for n, v in selection.items() if not isinstance(v, dict | list)}
            self.run.summary.update({"selection": facts})
        metrics = {n: v for n, v in record["metrics"].items() if isinstance(v, int | float)}
        if metrics:
            tables["metrics"] = wandb.Table(
                columns=["metric", "value"], data=[[n, v] for n, v in sorted(metrics.items())]
            )
        if tables:
            self.run.log(tables)


def _tags(axes: Mapping[str, Any]) -> list[str]:
    """Tag a run with its axes, so that the web page can filter by them; 64 signs at most."""
    return [f"{n}:{v}"[:64] for n, v in axes.items() if v not in (None, "") and n != "seed"]


def _is_of_tracking(error: Exception) -> bool:
    """Say whether wandb, its service or the disk failed, rather than this code.

    What wandb raises when its service dies does not derive from ``wandb.Error``, so classes
    are known by the package that defines them.
    """
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "wandb"


@cache
def _has_wandb() -> bool:
    """Look once for the package and warn once where it is absent."""
    if importlib.util.find_spec("wandb") is not None:
        return True
    log.warning(
        "wandb is not installed, so cells are not tracked (the records are complete); "
        "install it or set tracker=none"
    )
    return False


def _keep_inside(directory: Path) -> None:
    """Point every folder wandb may write to below ``directory``; it reads the environment."""
    for name, part in (
        ("WANDB_DIR", "."),
        ("WANDB_CACHE_DIR", "cache"),
        ("WANDB_DATA_DIR", "data"),
        ("WANDB_CONFIG_DIR", "config"),
        ("WANDB_ARTIFACT_DIR", "artifacts"),
    ):
        folder = (directory / part).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # else crash reports go out even offline


def _quiet_settings() -> Any:
    """Turn off what costs time or looks around: a run then opens in some ten milliseconds."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        symlink=False,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
