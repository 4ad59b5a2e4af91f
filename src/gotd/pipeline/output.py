"""The folder of a selection: written completely or not at all."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gotd.data.pool import pool_facts
from gotd.pipeline.select import SIDES, Prepared, StepTime
from gotd.selection_report.markdown import card, report
from gotd.storage.artifacts import checksum, write_json
from gotd.storage.environment import code, hardware, peak_memory_gib, versions
from gotd.storage.files import locked
from gotd.storage.keys import identity
from gotd.storage.model_files import model_identity

MANIFEST, REPORT, CARD = "manifest.json", "report.md", "README.md"

KIND = "selection"
"""Value of ``kind`` in the manifest of a folder that this module wrote."""


class Output:
    """The folder of a selection.

    Args:
        folder: The folder to create; a symbolic link is followed.
        overwrite: Replace a folder that something else wrote.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        try:
            self.folder, self.overwrite = folder.resolve(), overwrite
        except RuntimeError as error:
            raise ValueError(f"{folder} is a link that leads to itself; remove it") from error

    def _beside(self, ending: str) -> Path:
        return self.folder.with_name(f".{self.folder.name}.{ending}")

    @contextmanager
    def claimed(self, inputs: Sequence[Path], store: Path) -> Iterator[None]:
        """Lock the folder for this run, after checking that it can be written.

        Args:
            inputs: Files that are read; a folder that holds one is never replaced.
            store: Folder of the artifacts, which would be replaced with the folder around it.

        Raises:
            ValueError: If something else is there, an input or the store, or another run
                writes there.
            OSError: If nothing can be written there.
        """
        for path in (*inputs, store):
            if path.resolve().is_relative_to(self.folder):
                what = "store" if path is store else "input"
                raise ValueError(f"{self.folder} holds the {what} {path}; choose another --out")
        lock = self._beside("lock")
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(lock, wait=False))
            except BlockingIOError as error:
                raise ValueError(
                    f"another gotd select is writing {self.folder}; wait until it is done, or "
                    "choose another --out"
                ) from error
            except OSError as error:
                raise _named(error, self.folder) from error
            stack.callback(lock.unlink, missing_ok=True)
            old = self._beside("old")
            if old.exists() and not self.folder.exists():  # killed while it was replaced
                old.rename(self.folder)
            self._check_replaceable()
            yield

    def _check_replaceable(self) -> None:
        if self.folder.exists() and not self._may_replace():
            raise ValueError(
                f"{self.folder} exists and was not written by gotd select; choose another "
                "--out, or give --overwrite (which never replaces a folder that holds folders)"
            )

    def _may_replace(self) -> bool:
        if not self.folder.is_dir():
            return False
        inside = list(self.folder.iterdir())
        if not inside or (self.overwrite and not any(path.is_dir() for path in inside)):
            return True
        try:
            manifest = json.loads((self.folder / MANIFEST).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
            return False
        ours = {MANIFEST, REPORT, CARD, *manifest.get("files", {})}
        return {path.name for path in inside} <= ours

    @contextmanager
    def filling(self) -> Iterator[Path]:
        """Yield a folder to fill, which becomes the selection when the block succeeds.

        Raises:
            ValueError: If the folder has come to hold something else meanwhile.
            OSError: If the folder cannot be written or the disk is full.
        """
        part, old = self._beside("part"), self._beside("old")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            yield part
            self._check_replaceable()
            shutil.rmtree(old, ignore_errors=True)
            if self.folder.exists():
                self.folder.rename(old)
            part.rename(self.folder)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise _named(error, self.folder) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def write_selection(
    prepared: Prepared,
    budgets: Sequence[int],
    output: Output,
    *,
    command: str,
    explain: bool = False,
    licence: str | None = None,
) -> dict[str, Any]:
    """Write ``selected.parquet`` (one per budget), manifest, report and data card.

    Args:
        prepared: The scored request.
        budgets: Rows to take; with several, files are ``selected-<budget>.parquet``.
        output: The folder.
        command: What was typed.
        explain: Add to each row which target it serves.
        licence: Of the texts, where it is known.

    Returns:
        The manifest.

    Raises:
        OSError: If the folder cannot be written or the disk is full.
    """
    began = time.perf_counter()
    files = {budget: f"selected-{budget}.parquet" for budget in sorted(set(budgets))}
    if len(budgets) == 1:
        files = {budgets[0]: "selected.parquet"}
    summaries: dict[int, dict[str, Any]] = {}
    written: dict[str, dict[str, Any]] = {}
    with output.filling() as folder:
        for budget, name in files.items():
            selected = prepared.select(budget, explain=explain)
            selected.write(folder / name)
            summaries[budget] = selected.summary(prepared.request.seed)
            written[name] = {"rows": budget, "sha256": checksum(folder / name)}
        elapsed_s = time.perf_counter() - began
        prepared.times.append(StepTime("select", False, elapsed_s, elapsed_s, peak_memory_gib()))
        manifest = {
            **describe(prepared, command),
            "budgets": list(files),
            "summaries": {str(budget): summary for budget, summary in summaries.items()},
            "files": written,
        }
        write_json(folder / MANIFEST, manifest)
        (folder / REPORT).write_text(report(manifest, summaries), "utf-8")
        (folder / CARD).write_text(card(manifest, summaries, files, licence), "utf-8")
    return manifest


def describe(prepared: Prepared, command: str) -> dict[str, Any]:
    """Return the manifest: everything needed to repeat a selection."""
    request = prepared.request
    built = [time for time in prepared.times if not time.found]
    pools = {side: pool_facts(prepared.folder(side)) for side in SIDES}
    return {
        "kind": KIND,
        "version": 1,
        "command": command,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": {
            "method": request.method_name,
            "parameters": identity(request.method),
            "encoder": request.encoder.name if request.embeds else None,
            "encoder_identity": request.encoder.identity() if request.embeds else None,
            **({} if request.model is None else {"model": model_identity(request.model)}),
            "unit": request.unit,
            "length_chars": request.length_chars,
            "min_chars": request.min_chars,
            "seed": request.seed,
            "columns": asdict(request.columns),
            "target_columns": asdict(request.target_columns),
        },
        "inputs": {side: [part.identity() for part in getattr(request, side)] for side in SIDES},
        "rows": {side: sum(pools[side]["rows"]) for side in SIDES},
        "blank_rows": {side: pools[side]["blank_rows"] for side in SIDES},
        "short_rows": {side: pools[side].get("short_rows", 0) for side in SIDES},
        "keys": {name: step.key for name, step in prepared.steps.items()},
        **prepared.ranked.outcome,
        "steps": [asdict(time) for time in prepared.times],
        "peak_memory_gib": max([peak_memory_gib(), *(t.peak_memory_gib for t in built)]),
        "versions": versions(),
        "code": code(),
        "hardware": hardware(),
    }


def _named(error: OSError, folder: Path) -> OSError:
    """Return an error that names the folder and the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return OSError(
            f"no space left for {folder}; free some space and run the same command again"
        )
    reason = error.strerror or str(error)
    return OSError(f"cannot write {folder}: {reason}; choose another --out")
