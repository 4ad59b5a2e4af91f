"""The record of one cell of an experiment, on disk and in memory.

A record is a plain JSON object, one line of a ``.jsonl`` file. Axes are fields, never
parsed from file names. Everything outside ``cost`` is reproducible byte for byte, so the
fingerprint of a set of records identifies the numbers that a table was built from.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import reprlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError

from gotd.storage.files import write_text

Record = dict[str, Any]

SCHEMA_VERSION = 1
AXES = ("task", "arm", "model", "budget", "seed", "tuning", "source", "protocol")


class RecordError(ValueError):
    """Violation of the schema by a record; the message names file, line and field."""


Name = Annotated[str, Field(min_length=1)]
Count = NonNegativeInt
Domains = dict[str, FiniteFloat] | None


class _Fields(BaseModel, strict=True):
    """Fields of an object; strict, so that no text or truth value passes for a number."""


class _Axes(_Fields, extra="allow"):
    """Axes of a cell; further ones have single values."""

    __pydantic_extra__: dict[str, str | FiniteFloat | bool | None]  # pyright: ignore
    task: Name
    arm: Name
    model: Name
    seed: Count
    budget: Count | None = None


class _Metrics(_Fields, extra="allow"):
    """Scores of a done cell; a metric may be null, the headline may not."""

    __pydantic_extra__: dict[str, FiniteFloat | None]  # pyright: ignore
    headline_name: Name
    headline: FiniteFloat
    headline_higher_is_better: bool = True


class _Error(_Fields):
    """Reason why a cell failed."""

    type: str
    message: str


class _Selection(_Fields):
    """Report of a selection; the fields that the tables need."""

    rows: Count
    distinct_rows: Count
    domains: Domains = None
    target_domains: Domains = None
    under_covered_share: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    first_rows: list[dict] | None = None


class _Cost(_Fields):
    """What a cell took; the fields that the tables need."""

    elapsed_s: FiniteFloat | None = None
    peak_memory_gib: FiniteFloat | None = None
    stages_s: dict[str, FiniteFloat] | None = None
    hardware: dict | None = None
    code: dict | None = None


class _Record(_Fields, extra="forbid"):
    """Fields of every record, in their order on disk."""

    schema_version: Literal[1]
    key: Name
    experiment: Name
    scale: Name
    status: Literal["done", "failed"]
    axes: _Axes
    metrics: Any
    n_eval: Count | None
    selection: _Selection | None
    curves: dict[str, list[Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]]]
    seeds: dict
    config: dict
    versions: dict
    data: dict
    parents: list
    error: Any
    cost: _Cost


class _Done(_Record):
    """Record of a cell that is done."""

    metrics: _Metrics
    error: None


class _Failed(_Record):
    """Record of a cell that failed."""

    metrics: Annotated[dict, Field(max_length=0)]
    error: _Error


FIELDS = tuple(_Record.model_fields)


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
    try:
        (_Failed if record.get("status") == "failed" else _Done).model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"][:2]))
        wanted = first["msg"].replace("Input", "it").partition(" or instance of")[0]
        problems = {
            "missing": "is missing",
            "extra_forbidden": f"is not in schema {SCHEMA_VERSION}",
        }
        problem = problems.get(first["type"], f"is {reprlib.repr(first['input'])}: {wanted}")
        raise RecordError(f"{where}: field '{field}' {problem}") from None
    selection = record["selection"]
    if selection is not None and selection["distinct_rows"] > selection["rows"]:
        raise RecordError(f"{where}: field 'selection.distinct_rows' exceeds 'selection.rows'")
    return record


def to_line(record: Record) -> str:
    """Write a record as one line of JSON with its keys in canonical order.

    Top-level fields are in the order of ``FIELDS``, axes in the order of ``AXES`` (others
    after them by name), everything deeper by name. NaN and infinity are errors.
    """
    plain = json.loads(json.dumps(record, sort_keys=True, allow_nan=False))
    axes = plain.get("axes", {})
    plain["axes"] = {name: axes[name] for name in sorted(axes, key=_axis_order)}
    ordered = {field: plain[field] for field in FIELDS if field in plain}
    return json.dumps(ordered, ensure_ascii=False)


def _axis_order(name: str) -> tuple[int, str]:
    return (AXES.index(name) if name in AXES else len(AXES), name)


def read_jsonl(path: Path) -> list[Record]:
    """Read and validate every record of one file; blank lines are skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        RecordError: At the first bad line, naming file, line and field.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such records file; run an experiment first")
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)  # of an editor
    lines = enumerate(content.split(b"\n"), start=1)
    return [_parse(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def _parse(line: bytes, where: str) -> Record:
    """Parse and validate one line of a file."""
    try:
        return validate(json.loads(line.decode("utf-8")), where)
    except UnicodeDecodeError as error:
        raise RecordError(f"{where}: not UTF-8; this is no file of records") from error
    except json.JSONDecodeError as error:
        raise RecordError(
            f"{where}: not JSON ({error.msg} at column {error.colno}); "
            "if a killed run left half a line, delete that line"
        ) from error


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
    tries = sorted(
        (record for records in sets for record in records),
        key=lambda record: (record["status"] == "done", _started(record)),
    )
    best = {record["key"]: record for record in tries}  # the last one of a key stays
    return sorted(best.values(), key=canonical_order)


def _started(record: Record) -> float:
    with suppress(KeyError, TypeError, ValueError):
        return datetime.fromisoformat(record["cost"]["started_at"]).timestamp()
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
