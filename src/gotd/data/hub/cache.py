"""Files of rows that were fetched, and of which commit: written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

RECIPE = b"gotd.recipe"


def is_kept(path: Path, recipe: dict[str, Any]) -> bool:
    """Tell whether a file holds what a recipe (data set, revision, sampling) gives."""
    if not path.is_file():
        return False
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(RECIPE, b"null")) == recipe


def keep(path: Path, recipe: dict[str, Any], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write a Parquet file whole or not at all, its recipe inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    schema = schema.with_metadata({RECIPE: json.dumps(recipe).encode()})
    try:
        with pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table.cast(schema))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def keep_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def recorded(path: Path) -> dict[str, str]:
    """Read which commit of each data set was used.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged; delete it, and the newest commits are used and recorded"
        ) from error


def remember(path: Path, dataset: str, commit: str) -> str:
    """Record the commit of a data set, unless another run has done so meanwhile.

    Returns:
        The commit that is recorded.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = {dataset: commit, **recorded(path)}
        keep_text(path, json.dumps(known, indent=1, sort_keys=True))
    return known[dataset]
