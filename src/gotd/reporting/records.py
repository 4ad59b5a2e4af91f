"""The record of one cell of an experiment, on disk and in memory.

A record is a plain JSON object, one line of a ``.jsonl`` file. Axes are fields, never
parsed from file names. Everything outside ``cost`` is reproducible byte for byte, so the
fingerprint of a set of records identifies the numbers that a table was built from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from gotd.storage.files import write_text

Record = dict[str, Any]

SCHEMA_VERSION = 1
AXES = ("task", "arm", "model", "budget", "seed", "tuning", "source", "protocol")


class RecordError(ValueError):
    """Violation of the schema by a record; the message names file, line and field."""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(point, list | tuple) and len(point) == 2 and all(map(_is_number, point))
        for point in value
    )


Rule = tuple[str, Callable[[Any], bool]]
"""What a field must be, in words and as a test."""

_VERSION: Rule = (f"{SCHEMA_VERSION}", lambda v: v == SCHEMA_VERSION)
_NAME: Rule = ("a non-empty string", lambda v: isinstance(v, str) and v != "")
_STRING: Rule = ("a string, because the cell failed", lambda v: isinstance(v, str))
_STATUS: Rule = ("'done' or 'failed'", lambda v: v in ("done", "failed"))
_OBJECT: Rule = ("an object", lambda v: isinstance(v, dict))
_OBJECT_OR_NULL: Rule = ("an object or null", lambda v: v is None or isinstance(v, dict))
_LIST: Rule = ("a list", lambda v: isinstance(v, list))
_COUNT: Rule = ("a count", _is_count)
_COUNT_OR_NULL: Rule = ("a count or null", lambda v: v is None or _is_count(v))
_SCORE: Rule = ("a finite number; a cell without a score is a failed cell", _is_number)
_NUMBER_OR_NULL: Rule = ("a finite number or null", lambda v: v is None or _is_number(v))
_SINGLE: Rule = ("a single value", lambda v: not isinstance(v, dict | list))
_TRUTH: Rule = ("true or false", lambda v: isinstance(v, bool))
_CURVE: Rule = ("a list of [step, value]", _is_curve)
_SHARE_OR_NULL: Rule = (
    "a number in [0, 1] or null",
    lambda v: v is None or (_is_number(v) and 0 <= v <= 1),
)
_DOMAINS: Rule = (
    "an object of domains with numbers, or null",
    lambda v: v is None or (isinstance(v, dict) and all(map(_is_number, v.values()))),
)
_NULL: Rule = ("null, because the cell is done", lambda v: v is None)
_EMPTY: Rule = ("empty, because the cell failed", lambda v: v == {})

_FIELDS: dict[str, Rule] = {
    "schema_version": _VERSION,
    "key": _NAME,
    "experiment": _NAME,
    "scale": _NAME,
    "status": _STATUS,
    "axes": _OBJECT,
    "metrics": _OBJECT,
    "n_eval": _COUNT_OR_NULL,
    "selection": _OBJECT_OR_NULL,
    "curves": _OBJECT,
    "seeds": _OBJECT,
    "config": _OBJECT,
    "versions": _OBJECT,
    "data": _OBJECT,
    "parents": _LIST,
    "error": _OBJECT_OR_NULL,
    "cost": _OBJECT,
}
FIELDS = tuple(_FIELDS)
_OF_STATUS: dict[str, dict[str, Rule]] = {
    "done": {"error": _NULL, "metrics.headline_name": _NAME, "metrics.headline": _SCORE},
    "failed": {"error.type": _STRING, "error.message": _STRING, "metrics": _EMPTY},
}
_AXES = {"task": _NAME, "arm": _NAME, "model": _NAME, "seed": _COUNT, "budget": _COUNT_OR_NULL}
_METRICS = {"headline_name": _NAME, "headline_higher_is_better": _TRUTH}
_SELECTION = {
    "rows": _COUNT,
    "distinct_rows": _COUNT,
    "domains": _DOMAINS,
    "target_domains": _DOMAINS,
    "under_covered_share": _SHARE_OR_NULL,
}


def _rules(record: Record) -> Iterator[tuple[str, Rule]]:
    """Yield every field that a record must have or has, with its rule."""
    yield from _FIELDS.items()
    yield from ((f"axes.{name}", rule) for name, rule in _AXES.items())
    yield from ((f"axes.{name}", _SINGLE) for name in record["axes"])
    yield from _OF_STATUS[record["status"]].items()
    for name in record["metrics"]:
        yield f"metrics.{name}", _METRICS.get(name, _NUMBER_OR_NULL)
    yield from ((f"curves.{name}", _CURVE) for name in record["curves"])
    if record["selection"] is not None:
        yield from ((f"selection.{name}", rule) for name, rule in _SELECTION.items())


def validate(record: Any, where: str = "record") -> Record:
    """Validate a record against the schema and return it unchanged.

    Args:
        record: What was read; anything JSON can hold.
        where: Prefix of the error message, such as ``glue.jsonl, line 3``.

    Raises:
        RecordError: At the first field that is missing, unknown or of the wrong kind.
    """
    if not isinstance(record, dict):
        raise RecordError(f"{where}: a record is a JSON object, not {type(record).__name__}")
    if unlike := set(FIELDS) ^ set(record):
        field = min(unlike)
        problem = "is missing" if field in FIELDS else f"is not in schema {SCHEMA_VERSION}"
        raise RecordError(f"{where}: field '{field}' {problem}")
    for field, (wanted, accepts) in _rules(record):
        # A metric's name may hold dots, so only the first one divides.
        parent, _, name = field.partition(".")
        value = (record[parent] or {}).get(name) if name else record[parent]
        if not accepts(value):
            text = repr(value)
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise RecordError(f"{where}: field '{field}' must be {wanted}, not {shown}")
    selection = record["selection"]
    if selection is not None and selection["distinct_rows"] > selection["rows"]:
        raise RecordError(f"{where}: field 'selection.distinct_rows' exceeds 'selection.rows'")
    return record


def to_line(record: Record) -> str:
    """Write a record as one line of JSON with its keys in canonical order.

    Top-level fields are in the order of ``FIELDS``, axes in the order of ``AXES`` (others
    after them by name), everything deeper by name. NaN and infinity are errors.
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
    """Merge record sets, with the latest record of each key, in canonical order.

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
    """Return the sort key of a record: experiment, scale, the axes in their order, then the key."""
    axes = record["axes"]
    values = [natural_order(axes.get(name)) for name in AXES]
    others = tuple(sorted((k, str(v)) for k, v in axes.items() if k not in AXES))
    return (record["experiment"], record["scale"], *values, others, record["key"])


def natural_order(value: Any) -> tuple[int, float, str]:
    """Return the sort key of an axis value: absent first, then numbers, then words."""
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
