"""What enters a cache key: the fields that change the bytes of an artifact, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from gotd.storage.files import known_checksum

RUN_ONLY = frozenset(
    {
        "batch_tokens",
        "checkpoint_every_steps",
        "device",
        "devices",
        "engine",
        "gradient_checkpointing",
        "per_device_batch_size",
        "ray_address",
        "store",
        "strategy",
        "threads",
        "tracker",
        "workers",
    }
)
"""Settings of how a step runs. They are in no key, no record and no name of a variant.

Batch sizes and devices change sums in the last digit and, with dropout, the random masks.
"""


def added_later(default: Any) -> Any:
    """Return a dataclass field that is left out of the key while at its default.

    Use it for a field added to a class that is already in keys: old artifacts stay valid.
    """
    return dataclasses.field(default=default, metadata={"added_later": True})


def key_fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that enter a key, as JSON by field name.

    Fields in `RUN_ONLY` and unset fields declared by `added_later` are left out. A path of a
    file is replaced by the file's checksum.
    """
    fields = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        unset = "added_later" in field.metadata and content == field.default
        if field.init and field.name not in RUN_ONLY and not unset:
            is_file = isinstance(content, Path) and content.is_file()
            fields[field.name] = {"sha256": known_checksum(content)} if is_file else content
    return json.loads(json.dumps(fields))


def identity(value: Any) -> dict[str, Any]:
    """Return the key fields of a dataclass with the key name and version of its class.

    A renamed class keeps its keys because its key name is stated in the class. A subclass
    cannot take the keys of its parent by mistake, since it must state its own.

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
            f"{kind.__name__} enters a cache key but has no key name; "
            f'add `key_name: ClassVar[str] = "{kind.__name__}"` to the class'
        )
    return {
        **key_fields(value),
        "class": kind.key_name,
        "version": getattr(kind, "version", 1),
    }


def source_identity(source: Any, part: str, task: str | None = None) -> dict[str, Any]:
    """Return the part of a source's identity that a step depends on.

    A changed file of one task then leaves the candidates and their artifacts valid. The
    identity of a source without parts, such as a generated world, is returned in full.

    Args:
        source: The source.
        part: ``candidates``, ``pretraining`` or ``tasks``. Where pre-training text is no part
            of its own, it is identified with the candidates.
        task: The task, for the part ``tasks``.
    """
    parts = source.identity()
    if part == "pretraining" and part not in parts:
        part = "candidates"
    if part not in parts:
        return parts
    content = parts[part] if task is None else parts[part].get(task)
    return {"name": parts["name"], "version": parts["version"], part: content}
