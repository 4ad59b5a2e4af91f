"""What one cell of an experiment left behind: its record, on disk and in memory.

A record is a plain JSON object, one line of a ``.jsonl`` file. Axes are fields, never
parsed from file names. Everything outside ``cost`` is reproducible byte for byte, so the
fingerprint of a set of records names the numbers a table was built from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gotd.storage.files import write_text

Record = dict[str, Any]

SCHEMA_VERSION = 1
FIELDS = (
    "schema_version",
    "key",
    "experiment",
    "scale",
    "status",
    "axes",
    "metrics",
    "n_eval",
    "selection",
    "curves",
    "seeds",
    "config",
    "versions",
    "data",
    "parents",
    "error",
    "cost",
)
AXES = ("task", "arm", "model", "budget", "seed", "tuning", "source", "protocol")


class RecordError(ValueError):
    """A record does not follow the schema; the message names file, line and field."""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != ""


_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "schema_version": (lambda v: v == SCHEMA_VERSION, f"{SCHEMA_VERSION}"),
    "key": (_is_name, "a non-empty string"),
    "experiment": (_is_name, "a non-empty string"),
    "scale": (_is_name, "a non-empty string"),
    "status": (lambda v: v in ("done", "failed"), "'done' or 'failed'"),
    "axes": (lambda v: isinstance(v, dict), "an object"),
    "metrics": (lambda v: isinstance(v, dict), "an object"),
    "n_eval": (lambda v: v is None or _is_count(v), "a count or null"),
    "selection": (lambda v: v is None or isinstance(v, dict), "an object or null"),
    "curves": (lambda v: isinstance(v, dict), "an object"),
    "seeds": (lambda v: isinstance(v, dict), "an object"),
    "config": (lambda v: isinstance(v, dict), "an object"),
    "versions": (lambda v: isinstance(v, dict), "an object"),
    "data": (lambda v: isinstance(v, dict), "an object"),
    "parents": (lambda v: isinstance(v, list), "a list"),
    "error": (lambda v: v is None or isinstance(v, dict), "an object or null"),
    "cost": (lambda v: isinstance(v, dict), "an object"),
}


def validate(record: Any, where: str = "record") -> Record:
    """Check a record against the schema and return it unchanged.

    Args:
        record: What was read; anything JSON can hold.
        where: Prefix of the error message, such as ``glue.jsonl, line 3``.

    Raises:
        RecordError: At the first field that is missing, unknown or of the wrong kind.
    """
    if not isinstance(record, dict):
        raise RecordError(f"{where}: a record is a JSON object, not {type(record).__name__}")
    for field in FIELDS:
        if field not in record:
            raise RecordError(f"{where}: field '{field}' is missing")
        accepts, wanted = _TYPES[field]
        if not accepts(record[field]):
            raise RecordError(
                f"{where}: field '{field}' must be {wanted}, not {_short(record[field])}"
            )
    unknown = sorted(set(record) - set(FIELDS))
    if unknown:
        raise RecordError(f"{where}: field '{unknown[0]}' is not in schema {SCHEMA_VERSION}")
    _validate_axes(record["axes"], where)
    _validate_outcome(record, where)
    _validate_selection(record["selection"], where)
    _validate_curves(record["curves"], where)
    return record


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _validate_axes(axes: Mapping[str, Any], where: str) -> None:
    for name in ("task", "arm", "model"):
        if not _is_name(axes.get(name)):
            raise RecordError(
                f"{where}: field 'axes.{name}' must be a non-empty string, "
                f"not {_short(axes.get(name))}"
            )
    if "seed" not in axes or not _is_count(axes["seed"]):
        raise RecordError(
            f"{where}: field 'axes.seed' must be a count, not {_short(axes.get('seed'))}"
        )
    if axes.get("budget") is not None and not _is_count(axes["budget"]):
        raise RecordError(
            f"{where}: field 'axes.budget' must be a count or null, not {_short(axes['budget'])}"
        )
    for name, value in axes.items():
        if isinstance(value, dict | list):
            raise RecordError(f"{where}: field 'axes.{name}' must be a single value")


def _validate_outcome(record: Record, where: str) -> None:
    """Hold a done record to a finite headline, a failed one to its error."""
    metrics = record["metrics"]
    if record["status"] == "failed":
        error = record["error"] or {}
        for name in ("type", "message"):
            if not isinstance(error.get(name), str):
                raise RecordError(
                    f"{where}: field 'error.{name}' must be a string, because the cell failed"
                )
        if metrics:
            raise RecordError(f"{where}: field 'metrics' must be empty, because the cell failed")
        return
    if record["error"] is not None:
        raise RecordError(f"{where}: field 'error' must be null, because the cell is done")
    if not _is_name(metrics.get("headline_name")):
        raise RecordError(f"{where}: field 'metrics.headline_name' must be a non-empty string")
    if not _is_number(metrics.get("headline")):
        raise RecordError(
            f"{where}: field 'metrics.headline' must be a finite number, "
            f"not {_short(metrics.get('headline'))}; a cell without a score is a failed cell"
        )
    for name, value in metrics.items():
        if name != "headline_name" and value is not None and not _is_number(value):
            raise RecordError(
                f"{where}: field 'metrics.{name}' must be a finite number or null, "
                f"not {_short(value)}"
            )


def _validate_selection(selection: Mapping[str, Any] | None, where: str) -> None:
    if selection is None:
        return
    for name in ("rows", "distinct_rows"):
        if not _is_count(selection.get(name)):
            raise RecordError(
                f"{where}: field 'selection.{name}' must be a count, "
                f"not {_short(selection.get(name))}"
            )
    if selection["distinct_rows"] > selection["rows"]:
        raise RecordError(f"{where}: field 'selection.distinct_rows' exceeds 'selection.rows'")
    for name in ("domains", "target_domains"):
        shares = selection.get(name) or {}
        if not isinstance(shares, dict) or not all(_is_number(v) for v in shares.values()):
            raise RecordError(f"{where}: field 'selection.{name}' must map domains to numbers")
    share = selection.get("under_covered_share")
    if share is not None and not (_is_number(share) and 0 <= share <= 1):
        raise RecordError(
            f"{where}: field 'selection.under_covered_share' must lie in [0, 1] or be null, "
            f"not {_short(share)}"
        )


def _validate_curves(curves: Mapping[str, Any], where: str) -> None:
    for name, points in curves.items():
        if not isinstance(points, list) or not all(
            isinstance(p, list | tuple) and len(p) == 2 and all(_is_number(v) for v in p)
            for p in points
        ):
            raise RecordError(f"{where}: field 'curves.{name}' must be a list of [step, value]")


def to_line(record: Record) -> str:
    """Write a record as one line of JSON with its keys in canonical order.

    Top-level fields stand in the order of ``FIELDS``, axes in the order of ``AXES`` (others
    after them by name), everything deeper by name. NaN and infinity are refused.
    """
    ordered = {field: _sorted(record[field]) for field in FIELDS if field in record}
    axes = ordered.get("axes", {})
    ordered["axes"] = {name: axes[name] for name in sorted(axes, key=_axis_order)}
    return json.dumps(ordered, ensure_ascii=False, allow_nan=False)


def _axis_order(name: str) -> tuple[int, str]:
    return (AXES.index(name) if name in AXES else len(AXES), name)


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _sorted(value[k]) for k in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_sorted(v) for v in value]
    return value


def read_jsonl(path: Path) -> list[Record]:
    """Read and validate every record of one file; blank lines are skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        RecordError: At the first bad line, naming file, line and field.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such records file; run an experiment first")
    records = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                value = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise RecordError(f"{where}: not UTF-8; this is no file of records") from error
            except json.JSONDecodeError as error:
                raise RecordError(
                    f"{where}: not JSON ({error.msg} at column {error.colno}); "
                    "if a killed run left half a line, delete that line"
                ) from error
            records.append(validate(value, where))
    return records


def write_jsonl(records: Iterable[Record], path: Path) -> None:
    """Write records in canonical form, all or nothing.

    Raises:
        RecordError: If a record breaks the schema; nothing is written then.
    """
    lines = [to_line(validate(record, f"record {i}")) for i, record in enumerate(records, 1)]
    write_text(path, "".join(line + "\n" for line in lines))


def merge(*sets: Sequence[Record]) -> list[Record]:
    """Join record sets, keep the latest of each key, and sort them canonically.

    A cell that failed and was run again has one key and two records. A done one wins over a
    failed one, then the later ``cost.started_at``, then the later position.
    """
    best: dict[str, tuple[tuple[bool, float, int], Record]] = {}
    position = 0
    for records in sets:
        for record in records:
            rank = (record["status"] == "done", _started(record), position)
            position += 1
            if record["key"] not in best or rank > best[record["key"]][0]:
                best[record["key"]] = (rank, record)
    return sorted((record for _, record in best.values()), key=canonical_order)


def _started(record: Record) -> float:
    try:
        return datetime.fromisoformat(record["cost"]["started_at"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return -math.inf


def canonical_order(record: Record) -> tuple[Any, ...]:
    """Sort key of a record: experiment, scale, the axes in their order, then the key."""
    axes = record["axes"]
    values = [natural_order(axes.get(name)) for name in AXES]
    others = tuple(sorted((k, str(v)) for k, v in axes.items() if k not in AXES))
    return (record["experiment"], record["scale"], *values, others, record["key"])


def natural_order(value: Any) -> tuple[int, float, str]:
    """Order axis values of mixed kinds: absent first, then numbers, then words."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (1, float(value), "")
    return (2, 0.0, str(value))


def fingerprint(records: Iterable[Record]) -> str:
    """Return the SHA-256 of the records, whatever their order, without ``cost``.

    Two sets with one fingerprint give the same tables, on any machine at any speed.
    """
    lines = sorted(
        to_line({field: value for field, value in record.items() if field != "cost"})
        for record in records
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
