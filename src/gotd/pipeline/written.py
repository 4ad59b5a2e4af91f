"""A selection is written: rows, manifest, report and data card."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from gotd.data.columns import Columns
from gotd.data.original_rows import OriginalRows
from gotd.data.pool import pool_facts
from gotd.pipeline.amounts import Budgets
from gotd.pipeline.formats import (
    DATASET,
    FOLDER_FORMAT,
    Block,
    Layout,
    open_writer,
    written_suffix,
)
from gotd.pipeline.map import map_of
from gotd.pipeline.output import (
    CARD,
    KIND,
    MANIFEST,
    PAGE,
    REPORT,
    Output,
    OutputError,
    cannot_write,
    is_of_an_input,
)
from gotd.pipeline.ranked_pool import SelectedRows
from gotd.pipeline.select import SIDES, Prepared, StepTime
from gotd.pipeline.weights import WeightedPool
from gotd.reporting.selection_page import selection_page
from gotd.selection_report.markdown import card, report, weights_report
from gotd.storage.artifacts import checksum, write_json
from gotd.storage.environment import code, hardware, peak_memory_gib, versions
from gotd.storage.files import atomic_write, followed, remove_left_over
from gotd.storage.keys import identity
from gotd.storage.model_files import model_identity
from gotd.storage.progress import tick


def write_selection(
    prepared: Prepared,
    budgets: Budgets,
    output: Output,
    *,
    command: str,
    explain: bool = False,
    licence: str | None = None,
    removed: Path | None = None,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Write the rows of each budget, manifest, report, its page and the data card.

    Args:
        prepared: The scored request.
        budgets: What to take; with several, the files' names end in ``-<rows>``.
        output: The folder, or the file and its folder.
        command: What was typed.
        explain: Add to each row which target it serves.
        licence: Of the texts, where it is known.
        removed: File for the candidates that were left out, each with its reason; a symbolic
            link is followed.
        weights: File for a weight of every candidate; a symbolic link is followed.

    Returns:
        The manifest.

    Raises:
        ValueError: If a source has changed since it was read.
        OSError: If the folder cannot be written or the disk is full.
    """
    began, files = time.perf_counter(), output.file_names(budgets.labels)
    with ExitStack() as beside_it, output.filling(list(files.values())) as folder:
        # They get their names after the selection, so that they are not there without one.
        beside = _write_weights(prepared, weights, beside_it) if weights else {}
        beside |= _write_removed(prepared, removed, beside_it) if removed else {}
        written = _write_budgets(prepared, budgets, folder, output, explain)
        sampled = map_of(prepared, max(files))
        elapsed_s = time.perf_counter() - began
        prepared.times.append(StepTime("select", False, elapsed_s, elapsed_s, peak_memory_gib()))
        summaries = written.pop("summaries")
        manifest = {
            **describe(prepared, command),
            "budgets": list(files),
            "budgets_stated": budgets.stated,
            "summaries": {str(budget): summary for budget, summary in summaries.items()},
            **written,
            **beside,
        }
        write_json(folder / MANIFEST, manifest)
        text = report(manifest, summaries)
        (folder / REPORT).write_text(text, "utf-8")
        page = selection_page(text, manifest, summaries[max(files)], sampled)
        (folder / PAGE).write_text(page, "utf-8")
        above = "../" if output.suffix else ""
        files = {budget: f"{above}{name}" for budget, name in files.items()}
        (folder / CARD).write_text(card(manifest, summaries, files, licence), "utf-8")
    return manifest


def _write_budgets(
    prepared: Prepared, budgets: Budgets, folder: Path, output: Output, explain: bool
) -> dict[str, Any]:
    """Write the rows of each budget; return ``columns``, ``files`` and ``summaries``."""
    summaries: dict[int, dict[str, Any]] = {}
    written: dict[str, dict[str, Any]] = {}
    files = output.file_names(budgets.labels)
    rows = WrittenRows(prepared, budgets, folder, prefixed=output.suffix is not None)
    for budget, name in files.items():
        selected = prepared.select(budget, explain=explain)
        with open_writer(folder / name, output.suffix or FOLDER_FORMAT) as writer:
            for block in rows.blocks(selected):
                writer.write(block)
        measured = selected.summary(prepared.request.seed)
        summaries[budget] = measured | budgets.summary(budget)
        replayed = {"replay_rows": budgets.replay[budget]} if budgets.replay else {}
        written[name] = {"rows": budget, **replayed, **_checksums(folder / name)}
    rows.close()
    return {"columns": rows.names, "files": written, "summaries": summaries}


def write_weights(prepared: Prepared, output: Output, *, command: str) -> dict[str, Any]:
    """Write a weight for every candidate, manifest and report, without a selection.

    Args:
        prepared: The scored request.
        output: The file and its folder.
        command: What was typed.

    Returns:
        The manifest.

    Raises:
        ValueError: If a source has changed since it was read.
        OSError: If the folder cannot be written or the disk is full.
    """
    began, (name,) = time.perf_counter(), output.file_names({1: "1"}).values()
    with output.filling([name]) as folder:
        pool = WeightedPool(prepared)
        pool.write(folder / name, file_suffix(output.out, "--weights"))
        elapsed_s = time.perf_counter() - began
        prepared.times.append(StepTime("weights", False, elapsed_s, elapsed_s, peak_memory_gib()))
        files = {name: {"rows": pool.summary()["rows"], **_checksums(folder / name)}}
        manifest = {**describe(prepared, command), "weights": pool.summary(), "files": files}
        write_json(folder / MANIFEST, manifest)
        (folder / REPORT).write_text(weights_report(manifest), "utf-8")
    return manifest


def rows_to_write(prepared: Prepared, budgets: Budgets, weights: bool) -> int:
    """Return the rows that are read and written, which count as progress."""
    candidates = sum(pool_facts(prepared.folder("candidates"))["rows"])
    general = 0 if prepared.replay is None else sum(pool_facts(prepared.folder("replay"))["rows"])
    return candidates * (2 if weights else 1) + general + sum(set(budgets.rows))


def _write_weights(prepared: Prepared, path: Path, stack: ExitStack) -> dict[str, Any]:
    """Write a file of weights that gets its name when the stack closes."""
    pool, path = WeightedPool(prepared), followed(path)
    with _beside("--weights", path, stack) as (part, suffix):
        pool.write(part, suffix)
    return {"weights": {**pool.summary(), "file": path.name, "sha256": checksum(part)}}


def _write_removed(prepared: Prepared, path: Path, stack: ExitStack) -> dict[str, Any]:
    """Write the list of what was left out, which gets its name when the stack closes."""
    rows, path = 0, followed(path)
    with _beside("--removed", path, stack) as (part, suffix), open_writer(part, suffix) as writer:
        for table in prepared.removed():
            writer.write(Block(table, 0, None, Layout(Columns(), prefixed=False)))
            rows += table.num_rows
    return {"removed": {"rows": rows, "file": path.name, "sha256": checksum(part)}}


@contextmanager
def _beside(option: str, path: Path, stack: ExitStack) -> Iterator[tuple[Path, str]]:
    """Yield the unfinished version of a file, renamed when the stack closes, and its suffix."""
    remove_left_over(path.parent)
    stack.enter_context(_naming(option, path))  # it also gets its name there
    part = stack.enter_context(atomic_write(path))
    with _naming(option, path):
        yield part, file_suffix(path, option)


def file_suffix(path: Path, option: str) -> str:
    """Return the suffix of a file that is written beside the selection.

    Args:
        path: The file.
        option: Names it in an error.

    Raises:
        ValueError: If no such file is written.
    """
    suffix = written_suffix(path.name)
    if suffix is not None and suffix != DATASET:
        return suffix
    raise ValueError(f"{option} {path}: the name must end in .jsonl, .jsonl.gz, .parquet or .csv")


@contextmanager
def _naming(option: str, path: Path) -> Iterator[None]:
    """Add the option and its file to an error of the system; that of an input stays."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError) or is_of_an_input(error):
            raise
        named = path if error.filename is None else Path(os.fsdecode(error.filename))
        is_part = named.parent == path.parent and named.name.startswith(path.name)
        if named != path.parent and not is_part:
            raise
        raise cannot_write(error, path, option) from error


def _checksums(rows: Path) -> dict[str, Any]:
    if not rows.is_dir():
        return {"sha256": checksum(rows)}
    return {"sha256": {path.name: checksum(path) for path in sorted(rows.iterdir())}}


class WrittenRows:
    """The selected rows, and those of replay after them, with the columns that are written.

    Args:
        prepared: The scored request.
        budgets: What to take.
        folder: Receives copies of the original rows, until `close`.
        prefixed: As for `gotd.pipeline.formats.Layout`.

    Raises:
        ValueError: If a source has changed since it was read.
    """

    def __init__(
        self, prepared: Prepared, budgets: Budgets, folder: Path, *, prefixed: bool
    ) -> None:
        request = prepared.request
        self._replay, self._replay_rows = prepared.replay, budgets.replay
        self._copies = folder / "originals"
        self._originals: OriginalRows | None = None
        self._replayed: OriginalRows | None = None
        if request.unit == "whole":  # a chunk of ``fixed`` is no original row
            chosen, general = self._copies / "chosen", self._copies / "replay"
            chosen.mkdir(parents=True)
            identities = prepared.steps["candidates"].parameters["parts"]
            ids = prepared.ranked.best.ids[: max(budgets.rows)]
            self._originals = OriginalRows(request.candidates, identities, ids, chosen)
            if self._replay is not None:
                general.mkdir()
                self._replayed = self._replay.originals(max(budgets.replay.values()), general)
                # One file has one type for each column.
                self._originals.types.add(self._replayed.types)
                self._replayed.types = self._originals.types
        self._layout = Layout(request.columns, prefixed, keeps_text=self._replay is not None)
        self.names: list[str] = []

    def blocks(self, selected: SelectedRows) -> Iterator[Block]:
        """Yield the rows of a budget, best first, and then those of replay."""
        start, schema = 0, None
        for table in selected.blocks():
            if self._replay is not None:
                table = table.append_column("replay", pa.repeat(pa.scalar(False), len(table)))
            block = Block(table, start, self._originals, self._layout)
            self.names, schema = block.names, table.schema
            yield block
            tick(len(table))
            start += len(table)
        if self._replay is None or schema is None:
            return
        start = 0
        for table in self._replay.blocks(self._replay_rows[selected.budget], schema):
            yield Block(table, start, self._replayed, self._layout)
            start += len(table)

    def close(self) -> None:
        """Delete the copies."""
        self._originals = self._replayed = None
        shutil.rmtree(self._copies, ignore_errors=True)


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
            **asdict(request.bounds),
            "leave_out": request.leave_out.parameters,
            "seed": request.seed,
            "columns": asdict(request.columns),
            "target_columns": asdict(request.target_columns),
        },
        "inputs": {side: prepared.steps[side].parameters["parts"] for side in SIDES},
        "rows": {side: sum(pools[side]["rows"]) for side in SIDES},
        "competing_rows": prepared.competing,
        "blank_rows": {side: pools[side]["blank_rows"] for side in SIDES},
        "short_rows": {side: pools[side].get("short_rows", 0) for side in SIDES},
        "left_out_rows": prepared.left_out,
        **({} if prepared.replay is None else {"replay": prepared.replay.stated()}),
        "keys": {name: step.key for name, step in prepared.steps.items()},
        **prepared.ranked.outcome,
        "steps": [asdict(time) for time in prepared.times],
        "peak_memory_gib": max([peak_memory_gib(), *(t.peak_memory_gib for t in built)]),
        "versions": versions(),
        "code": code(),
        "hardware": hardware(),
    }
