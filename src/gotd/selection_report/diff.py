"""Two selections, side by side: what both took, what only one did, and why they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.columns import string_ids
from gotd.data.files import kind_of
from gotd.data.readers import all_columns
from gotd.selection_report.markdown import brief, cell, code, section, value_cell
from gotd.selection_report.measures import QUANTILES, jaccard

PREFIX, MANIFEST = "gotd_", "manifest.json"
COMPARED = ("id", "rank", "text", "domain", "replay")
"""Columns that are read, alone or with the prefix."""
MOST_DOMAINS, MOST_DIFFERENCES = 30, 40

_EXPECTED = ("request", "inputs", "rows", "diagnostics", "parameters", "name", "versions")
"""Parts of a manifest in which a difference says why selections differ."""


@dataclass(frozen=True)
class StoredSelection:
    """A selection that was read from the disk.

    Args:
        name: What to call it.
        rows: Columns ``id``, ``rank`` and, where known, ``text`` and ``domain``.
        manifest: What was recorded about it; empty where there is no manifest.
    """

    name: str
    rows: pd.DataFrame
    manifest: Mapping[str, Any]


Pair = tuple[StoredSelection, StoredSelection]


def compare(one: Path, other: Path, first: int = 5) -> str:
    """Compare two selections.

    Args:
        one: A folder of ``gotd select`` or of an experiment, or a file of rows.
        other: Another.
        first: Rows to show of what only one of them took.

    Returns:
        A page of Markdown.

    Raises:
        FileNotFoundError: If there is no selection.
        ValueError: If it cannot be read, or its rows have no ids.
    """
    both = _read(one), _read(other)
    if both[0].name == both[1].name:
        both = replace(both[0], name=str(one)), replace(both[1], name=str(other))
    names = [cell(selection.name) for selection in both]
    parts = [
        f"# {code(both[0].name)} and {code(both[1].name)}",
        _sizes(both, names),
        _domains(both, names),
        _lengths(both, names),
        _only(both[0], both[1], first),
        _only(both[1], both[0], first),
        _differences(both, names),
    ]
    return "\n".join(part for part in parts if part)


def _read(path: Path) -> StoredSelection:
    if not path.exists():
        raise FileNotFoundError(f"no selection at {path}; give a folder or a file of rows")
    files = _files(path)
    if not files:
        raise FileNotFoundError(
            f"{path} holds no selection: no selected.parquet and no selection.parquet"
        )
    if len(files) > 1:
        names = ", ".join(str(file) for file in files)
        raise ValueError(f"{path} holds {len(files)} budgets; name one file: {names}")
    file = files[0]
    return StoredSelection(path.name or str(path), _columns(_rows(file), file), _manifest(file))


def _files(path: Path) -> list[Path]:
    """Return the files of rows of a selection, one for each budget."""
    if path.is_file() or _is_dataset(path):
        return [path]
    if found := sorted(path.glob("select*.parquet")):
        return found
    # The reports of a file have a folder of their own, beside it.
    named = _read_manifest(path / MANIFEST).get("files", {}) if _has_manifest(path) else {}
    return [place for name in named if (place := path.with_name(name)).exists()]


def _is_dataset(path: Path) -> bool:
    return (path / "dataset_info.json").is_file()


def _has_manifest(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _rows(file: Path) -> pa.Table:
    """Read the columns that are compared, from a file in any format of an output."""
    parts = sorted(file.glob("*.arrow")) if _is_dataset(file) else [file]
    kind = "arrow" if _is_dataset(file) else kind_of(file)
    if kind == "parquet":
        try:
            return pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file} is damaged or not Parquet; copy it again") from error
    tables = [
        table.select([name for name in table.column_names if name.removeprefix(PREFIX) in COMPARED])
        for part in parts
        for table in all_columns(part)
    ]
    rows = pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    if kind != "csv":
        return rows
    # All columns of CSV are texts.
    for number, name in enumerate(rows.column_names):
        if name.removeprefix(PREFIX) == "rank":
            rows = rows.set_column(number, name, _whole_numbers(rows[name]))
        elif name.removeprefix(PREFIX) == "replay":
            rows = rows.set_column(number, name, pc.equal(rows[name].fill_null(""), "true"))
    return rows


def _whole_numbers(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return texts


def _columns(rows: pa.Table, file: Path) -> pd.DataFrame:
    """Return the columns that are compared; without a usable rank, rows are in their order."""
    if rows.num_rows == 0:
        raise ValueError(f"{file} has no rows; there is nothing to compare")
    if "gotd_id" in rows.column_names:  # a file with the original columns beside gotd's
        table = dict(zip(rows.column_names, rows.columns, strict=True))
        own = {name.removeprefix(PREFIX): table[name] for name in table if name.startswith(PREFIX)}
        rows = pa.table(table | own)
    if "replay" in rows.column_names and pa.types.is_boolean(rows["replay"].type):
        rows = rows.filter(pc.invert(rows["replay"].fill_null(False)))  # they were not selected
    columns = {"id": string_ids(rows, "id", str(file)), "rank": pa.array(range(rows.num_rows))}
    for name in ("text", "domain"):
        if name in rows.column_names and rows[name].null_count < rows.num_rows:
            try:
                columns[name] = rows[name].cast(pa.large_string()).fill_null("")
            except pa.ArrowException as error:
                raise ValueError(
                    f"{file}: column {name!r} holds {rows[name].type}, not strings; convert it "
                    "or leave it out"
                ) from error
    if "rank" in rows.column_names and pa.types.is_integer(rows["rank"].type):
        columns["rank"] = rows["rank"].fill_null(rows.num_rows + 1)
    return pa.table(columns).to_pandas()


def _manifest(file: Path) -> dict[str, Any]:
    """Return what was recorded about a file of rows; empty if there is nothing."""
    for folder in file.parent.glob("*.gotd"):
        if file.name.startswith(folder.stem) and _has_manifest(folder):
            manifest = _read_manifest(folder / MANIFEST)
            if file.name in manifest.get("files", {}):
                return manifest
    return _read_manifest(file.with_name(MANIFEST)) if _has_manifest(file.parent) else {}


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise ValueError(
            f"{path} is damaged or no manifest; write the selection again, or delete that file "
            "to compare the rows alone"
        )
    return manifest


def _sizes(both: Pair, names: Sequence[str]) -> str:
    ids = [set(selection.rows["id"]) for selection in both]
    shared = len(ids[0] & ids[1])
    rows = [
        ("rows", *(f"{len(selection.rows):,}" for selection in both)),
        ("distinct rows", *(f"{len(i):,}" for i in ids)),
        ("of these in both", f"{shared:,}", f"{shared:,}"),
        ("share of its rows", *(f"{100 * shared / len(i):.1f} %" for i in ids)),
    ]
    note = f"Jaccard index {jaccard(*ids):.4f}"
    if shared > 1:
        a, b = (selection.rows.filter(["id", "rank"]).sort_values("rank") for selection in both)
        ranks = a.drop_duplicates("id").merge(b.drop_duplicates("id"), on="id")
        correlation = ranks.corr("spearman", numeric_only=True).iloc[0, 1]
        note += f"; rank correlation of the rows in both {correlation:.4f}"
    return section("", ("", *names), rows, note + ".")


def _domains(both: Pair, names: Sequence[str]) -> str:
    if not all("domain" in selection.rows for selection in both):
        return ""
    counts = pd.concat([s.rows["domain"].value_counts() for s in both], axis=1).fillna(0)
    rows = [(name, int(a), int(b)) for name, a, b in counts.itertuples()]
    rows.sort(key=lambda row: (-abs(row[1] - row[2]), row[0]))
    left_out = len(rows) - MOST_DOMAINS
    note = f"{left_out:,} more differ less." if left_out > 0 else ""
    cells = [(cell(name), f"{a:,}", f"{b:,}") for name, a, b in rows[:MOST_DOMAINS]]
    return section("By domain", ("domain", *names), cells, note)


def _lengths(both: Pair, names: Sequence[str]) -> str:
    if not all("text" in selection.rows for selection in both):
        return ""
    lengths = [selection.rows["text"].str.len() for selection in both]
    rows = [
        (f"q{round(100 * q):02d}", *(f"{length.quantile(q):.0f}" for length in lengths))
        for q in QUANTILES
    ]
    return section("Length", ("characters", *names), rows)


def _only(one: StoredSelection, other: StoredSelection, first: int) -> str:
    alone = one.rows[~one.rows["id"].isin(other.rows["id"])]
    if alone.empty or first < 1:
        return ""
    head = ("rank", "id", "domain", "text")
    shown = pd.DataFrame(alone, columns=list(head)).head(first).fillna("")
    cells = [
        [str(rank), *(cell(str(value)) for value in values)]
        for rank, *values in shown.itertuples(index=False)
    ]
    return section(f"Only in {code(one.name)}", head, cells)


def _differences(both: Pair, names: Sequence[str]) -> str:
    a, b = (
        {
            path: value
            for part in _EXPECTED
            if part in selection.manifest
            for path, value in _flatten(selection.manifest[part], part)
        }
        for selection in both
    )
    if not a or not b:
        return ""
    rows = [
        (cell(path), *map(value_cell, _shown(a.get(path), b.get(path))))
        for path in {**a, **b}
        if a.get(path) != b.get(path)
    ]
    if not rows:
        return "\n## What was asked for\n\nThe same inputs, method and settings."
    left_out = len(rows) - MOST_DIFFERENCES
    note = f"{left_out:,} more differ." if left_out > 0 else ""
    title = "What was asked for, and differs"
    return section(title, ("", *names), rows[:MOST_DIFFERENCES], note)


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    """List what is in a manifest by its path; parts of an input go by their names."""
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        value = {
            str(part.get("file") or part.get("hub") or part.get("table") or number): part
            for number, part in enumerate(value, start=1)
        }
    if isinstance(value, Mapping):
        return [pair for name in value for pair in _flatten(value[name], f"{path}.{name}")]
    return [(path, value)]


def _shown(one: Any, other: Any) -> tuple[str, str]:
    """Format two values briefly, but not so briefly that they look the same."""
    short = brief(one), brief(other)
    return short if short[0] != short[1] else (json.dumps(one), json.dumps(other))
