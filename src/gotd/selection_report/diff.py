"""Two selections, side by side: what both took, what only one did, and why they differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.columns import string_ids
from gotd.data.pool import counted
from gotd.selection_report.markdown import markdown_table, plain
from gotd.selection_report.measures import quantiles

MOST_DOMAINS, MOST_DIFFERENCES, MOST_VALUES = 30, 40, 3

_EXPECTED = ("request", "inputs", "rows", "diagnostics", "parameters", "name", "versions")
"""Parts of a manifest in which a difference says why selections differ."""


@dataclass(frozen=True)
class Taken:
    """A selection as it stands on the disk.

    Args:
        name: What to call it.
        rows: Columns ``id`` and, where known, ``text``, ``domain`` and ``rank``.
        manifest: What was written down about it.
    """

    name: str
    rows: pa.Table
    manifest: Mapping[str, Any] = field(default_factory=dict)


def compare(one: Path, other: Path, first: int = 5) -> str:
    """Compare two selections.

    Args:
        one: A folder of ``gotd select`` or of an experiment, or a Parquet file.
        other: Another.
        first: Rows to show of what only one of them took.

    Returns:
        A page of Markdown.

    Raises:
        FileNotFoundError: If there is no selection.
        ValueError: If it cannot be read, or its rows have no ids.
    """
    a, b = _read(one), _read(other)
    if a.name == b.name:
        a, b = Taken(str(one), a.rows, a.manifest), Taken(str(other), b.rows, b.manifest)
    parts = [
        f"# {plain(a.name)} and {plain(b.name)}\n",
        _sizes(a, b),
        _domains(a, b),
        _lengths(a, b),
        _only(a, b, first),
        _only(b, a, first),
        _differences(a, b),
    ]
    return "\n".join(part for part in parts if part)


def _read(path: Path) -> Taken:
    if path.is_dir():
        files = sorted(path.glob("selected*.parquet")) or sorted(path.glob("selection.parquet"))
        if not files:
            raise FileNotFoundError(
                f"{path} holds no selection: no selected.parquet and no selection.parquet"
            )
        if len(files) > 1:
            names = ", ".join(str(file) for file in files)
            raise ValueError(f"{path} holds {len(files)} budgets; name one file: {names}")
        file = files[0]
    elif path.is_file():
        file = path
    else:
        raise FileNotFoundError(f"no selection at {path}; give a folder or a Parquet file")
    try:
        rows = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is damaged or not Parquet; copy it again") from error
    return Taken(path.name or str(path), _known(rows, file), _manifest(file))


def _known(rows: pa.Table, file: Path) -> pa.Table:
    """Take what is compared: ids that are strings, and what else of its kind is there."""
    if rows.num_rows == 0:
        raise ValueError(f"{file} has no rows; there is nothing to compare")
    kept = {"id": string_ids(rows, "id", str(file))}
    for name in ("text", "domain"):
        if name in rows.column_names and rows[name].null_count < rows.num_rows:
            try:
                kept[name] = rows[name].cast(pa.large_string()).fill_null("")
            except pa.ArrowException as error:
                raise ValueError(
                    f"{file}: column {name!r} holds {rows[name].type}, not strings; convert it "
                    "or leave it out"
                ) from error
    if "rank" in rows.column_names and pa.types.is_integer(rows["rank"].type):
        kept["rank"] = rows["rank"].fill_null(rows.num_rows + 1)
    return pa.table(kept)


def _manifest(file: Path) -> dict[str, Any]:
    path = file.with_name("manifest.json")
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        found = error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} is damaged or no manifest; write the selection again, or delete that file "
            "to compare the rows alone"
        )
    return found


def _sizes(a: Taken, b: Taken) -> str:
    ids_a, ids_b = (pc.unique(taken.rows["id"]) for taken in (a, b))
    both = int(pc.sum(pc.is_in(ids_a, value_set=ids_b)).as_py() or 0)
    either = len(ids_a) + len(ids_b) - both
    rank = _rank_correlation(a, b)
    rows = [
        ("rows", f"{a.rows.num_rows:,}", f"{b.rows.num_rows:,}"),
        ("distinct rows", f"{len(ids_a):,}", f"{len(ids_b):,}"),
        ("of these in both", *([f"{both:,}"] * 2)),
        ("share of its rows", *(f"{100 * both / max(1, len(i)):.1f} %" for i in (ids_a, ids_b))),
    ]
    correlation = "" if rank is None else f"; rank correlation of the rows in both {rank:.4f}"
    return (
        markdown_table(("", plain(a.name), plain(b.name)), rows)
        + f"\n\nJaccard index {both / max(1, either):.4f}{correlation}."
    )


def _rank_correlation(a: Taken, b: Taken) -> float | None:
    """Spearman's correlation of the order in which both took the rows that both took."""
    first = [_first_places(taken.rows) for taken in (a, b)]
    joined = first[0].join(first[1], keys="id", right_suffix="_other", join_type="inner")
    if joined.num_rows < 2:
        return None
    one, other = (
        np.argsort(np.argsort(joined[name].to_numpy())) for name in ("place", "place_other")
    )
    return float(np.corrcoef(one, other)[0, 1])


def _first_places(rows: pa.Table) -> pa.Table:
    place = rows["rank"] if "rank" in rows.column_names else pa.array(np.arange(rows.num_rows))
    table = pa.table({"id": rows["id"], "place": place})
    return table.group_by("id").aggregate([("place", "min")]).rename_columns(["id", "place"])


def _domains(a: Taken, b: Taken) -> str:
    if not all("domain" in taken.rows.column_names for taken in (a, b)):
        return ""
    counts = [counted(taken.rows["domain"]) for taken in (a, b)]
    names = sorted(
        {*counts[0], *counts[1]},
        key=lambda name: (-abs(counts[0].get(name, 0) - counts[1].get(name, 0)), str(name)),
    )
    rows = [(plain(str(name)), *(f"{c.get(name, 0):,}" for c in counts)) for name in names]
    table = markdown_table(("domain", plain(a.name), plain(b.name)), rows[:MOST_DOMAINS])
    left_out = len(rows) - MOST_DOMAINS
    more = f"\n\n{left_out:,} more differ less." if left_out > 0 else ""
    return f"\n## By domain\n\n{table}{more}"


def _lengths(a: Taken, b: Taken) -> str:
    if not all("text" in taken.rows.column_names for taken in (a, b)):
        return ""
    found = [
        quantiles(sorted(counted(pc.utf8_length(taken.rows["text"])).items())) for taken in (a, b)
    ]
    rows = [(name, *(f"{f[name]:.0f}" for f in found)) for name in found[0]]
    head = ("characters", plain(a.name), plain(b.name))
    return "\n## Length\n\n" + markdown_table(head, rows)


def _only(a: Taken, b: Taken, first: int) -> str:
    alone = a.rows.filter(pc.invert(pc.is_in(a.rows["id"], value_set=pc.unique(b.rows["id"]))))
    if alone.num_rows == 0 or first < 1:
        return ""
    shown = []
    for row in alone.slice(0, first).to_pylist():
        text = row.get("text")
        shown.append(
            (
                str(row.get("rank", "")),
                plain(row["id"]),
                plain(row.get("domain") or ""),
                "" if text is None else plain(text),
            )
        )
    head = ("rank", "id", "domain", "text")
    return f"\n## Only in {plain(a.name)}\n\n" + markdown_table(head, shown)


def _differences(a: Taken, b: Taken) -> str:
    flat = [
        {
            path: value
            for part in _EXPECTED
            if part in taken.manifest
            for path, value in _flatten(taken.manifest[part], part)
        }
        for taken in (a, b)
    ]
    if not all(flat):
        return ""
    rows = [
        (plain(path), *(plain(cell) for cell in _shown(*(f.get(path) for f in flat))))
        for path in dict.fromkeys([*flat[0], *flat[1]])
        if flat[0].get(path) != flat[1].get(path)
    ]
    if not rows:
        return "\n## What was asked for\n\nThe same."
    head = ("", plain(a.name), plain(b.name))
    left_out = len(rows) - MOST_DIFFERENCES
    more = f"\n\n{left_out:,} more differ." if left_out > 0 else ""
    table = markdown_table(head, rows[:MOST_DIFFERENCES])
    return f"\n## What was asked for, and differs\n\n{table}{more}"


def _flatten(value: Any, path: str) -> list[tuple[str, Any]]:
    """List what is in a manifest by its path; parts of an input go by their names."""
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        value = {_part_name(part, number): part for number, part in enumerate(value, start=1)}
    if isinstance(value, Mapping):
        return [pair for name in value for pair in _flatten(value[name], f"{path}.{name}")]
    return [(path, value)]


def _part_name(part: Mapping[str, Any], number: int) -> str:
    return str(part.get("file") or part.get("hub") or part.get("table") or number)


def _shown(one: Any, other: Any) -> tuple[str, str]:
    """Write two values short, but not so short that they look the same."""
    short = _short(one), _short(other)
    if short[0] != short[1]:
        return short
    return json.dumps(one), json.dumps(other)


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        if len(value) > MOST_VALUES:
            return f"{len(value)} values, the last {_short(value[-1])}"
        return ", ".join(map(_short, value))
    if isinstance(value, str):
        return value[:12] if re.fullmatch("[0-9a-f]{40,64}", value) else value
    return json.dumps(value)
