"""Say what decides a step's bytes, and nothing else: the parts that make up a key."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from gotd.storage.artifacts import checksum

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
"""Fields that change how fast a step runs, not what it is meant to write: in no key.

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
    """Return the fields of a dataclass that decide bytes, with the key name of its class.

    The key name is stated in the class, so a renamed class keeps its keys, and a subclass
    cannot take the keys of its parent by mistake.

    Args:
        value: A frozen dataclass whose class states ``key_name``.

    Returns:
        JSON: ``class`` (the key name), ``version`` (1 where none is stated), and the fields.

    Raises:
        TypeError: If the class itself states no ``key_name``.
    """
    kind = type(value)
    if "key_name" not in vars(kind):
        raise TypeError(
            f"{kind.__name__} enters a cache key and states no name for it; "
            f'add `key_name: ClassVar[str] = "{kind.__name__}"` to the class'
        )
    return {
        **deciding(value),
        "class": kind.key_name,
        "version": getattr(kind, "version", 1),
    }


def _content(value: Any) -> Any:
    """Give a file's checksum in place of where it stands."""
    return {"sha256": checksum(value)} if isinstance(value, Path) and value.is_file() else value


def source_identity(source: Any, part: str, task: str | None = None) -> dict[str, Any]:
    """Give the part of a source's identity that a step hangs on.

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
