"""Write a selection as a folder, whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gotd.artifacts import checksum, write_json
from gotd.machine import code, hardware, peak_memory_gib, versions
from gotd.pool import pool_facts
from gotd.select.pipeline import SIDES, Prepared, StageTime
from gotd.select.report import card, report
from gotd.stages.identity import identity

MANIFEST, REPORT, CARD = "manifest.json", "report.md", "README.md"

KIND = "selection"
"""Value of ``kind`` in the manifest of a folder that this module wrote."""


@dataclass(frozen=True)
class Output:
    """Where a selection goes.

    Args:
        folder: The folder to make.
        overwrite: Replace a folder that something else wrote.
    """

    folder: Path
    overwrite: bool = False

    @property
    def part(self) -> Path:
        """Where it is written until it is whole."""
        return self.folder.with_name(f".{self.folder.name}.part")

    def claim(self, inputs: Sequence[Path]) -> None:
        """See to it, before any work is done, that the folder can be written.

        Args:
            inputs: Files that are read; a folder that holds one is never replaced.

        Raises:
            ValueError: If something else is there, or an input.
            OSError: If nothing can be written there.
        """
        holding = [path for path in inputs if path.resolve().is_relative_to(self.folder.resolve())]
        if holding:
            raise ValueError(f"{self.folder} holds the input {holding[0]}; choose another --out")
        if self.folder.exists() and not self._may_replace():
            raise ValueError(
                f"{self.folder} is there and was not written by gotd select; choose another "
                "--out, or say --overwrite (which never replaces a folder that holds folders)"
            )
        try:
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir(parents=True)
            (self.part / MANIFEST).write_text("", "utf-8")
            shutil.rmtree(self.part)
        except OSError as error:
            raise _named(error, self.folder) from error

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
        ours = {MANIFEST, REPORT, CARD, *manifest.get("files", {})}
        return manifest.get("kind") == KIND and {path.name for path in inside} <= ours

    @contextmanager
    def filling(self) -> Iterator[Path]:
        """Give a folder to fill; it becomes the selection when the block ends well."""
        try:
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir(parents=True)
            yield self.part
            if self.folder.exists():
                old = self.folder.with_name(f".{self.folder.name}.old")
                shutil.rmtree(old, ignore_errors=True)
                self.folder.rename(old)
                self.part.rename(self.folder)
                shutil.rmtree(old)
            else:
                self.part.rename(self.folder)
        except OSError as error:
            raise _named(error, self.folder) from error
        finally:
            shutil.rmtree(self.part, ignore_errors=True)


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
    files = {
        budget: "selected.parquet" if len(budgets) == 1 else f"selected-{budget}.parquet"
        for budget in sorted(set(budgets))
    }
    summaries: dict[int, dict[str, Any]] = {}
    with output.filling() as folder:
        for budget, name in files.items():
            chosen = prepared.select(budget, explain=explain)
            writer = None
            for block in chosen.blocks():
                writer = writer or pq.ParquetWriter(folder / name, block.schema, compression="zstd")
                writer.write_table(block)
            assert writer is not None  # a budget is at least 1
            writer.close()
            summaries[budget] = chosen.summary()
        manifest = {
            **describe(prepared, command),
            "budgets": list(files),
            "summaries": {str(budget): found for budget, found in summaries.items()},
            "files": {
                name: {"rows": budget, "sha256": checksum(folder / name)}
                for budget, name in files.items()
            },
        }
        elapsed_s = time.perf_counter() - began
        last = StageTime("select", False, elapsed_s, elapsed_s, peak_memory_gib())
        manifest["stages"].append(asdict(last))
        write_json(folder / MANIFEST, manifest)
        (folder / REPORT).write_text(report(manifest, summaries), "utf-8")
        (folder / CARD).write_text(card(manifest, summaries, files, licence), "utf-8")
    return manifest


def describe(prepared: Prepared, command: str) -> dict[str, Any]:
    """Write down everything needed to get a selection again."""
    request = prepared.request
    facts = {side: pool_facts(prepared.folder(side)) for side in SIDES}
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
            "unit": request.unit,
            "length_chars": request.length_chars,
            "seed": request.seed,
            "columns": asdict(request.columns),
            "target_columns": asdict(request.target_columns),
        },
        "inputs": {
            "target": [part.identity() for part in request.target],
            "candidates": [part.identity() for part in request.candidates],
        },
        "rows": {side: sum(facts[side]["rows"]) for side in SIDES},
        "blank_rows": {side: facts[side]["blank_rows"] for side in SIDES},
        "keys": {name: stage.key for name, stage in prepared.stages.items()},
        **prepared.outcome,
        "stages": [asdict(time) for time in prepared.times],
        "peak_memory_gib": peak(prepared),
        "versions": versions(),
        "code": code(),
        "hardware": hardware(),
    }


def peak(prepared: Prepared) -> float:
    """Give the most memory that any stage of this run took, in GiB."""
    built = [time.peak_memory_gib for time in prepared.times if not time.found]
    return max([peak_memory_gib(), *built])


def _named(error: OSError, folder: Path) -> OSError:
    """Say what cannot be written and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return OSError(
            f"no space left for {folder}; free some space and run the same command again"
        )
    reason = error.strerror or str(error)
    return OSError(f"cannot write {folder}: {reason}; choose another --out")
