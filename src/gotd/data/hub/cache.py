"""Files of rows that were fetched, and of which commit: written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.storage.files import atomic_write, locked, write_json

RECIPE = b"gotd.recipe"


def is_kept(path: Path, recipe: dict[str, Any]) -> bool:
    """Tell whether a file holds what a recipe (data set, revision, sampling) gives."""
    if not path.is_file():
        return False
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(RECIPE, b"null")) == recipe


def keep(path: Path, recipe: dict[str, Any], schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write a Parquet file whole or not at all, its recipe inside."""
    schema = schema.with_metadata({RECIPE: json.dumps(recipe).encode()})
    with (
        atomic_write(path) as part,
        pq.ParquetWriter(part, schema, compression="zstd") as writer,
    ):
        for table in tables:
            writer.write_table(table.cast(schema))


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
    with locked(path.with_name(f"{path.name}.lock")):
        known = {dataset: commit, **recorded(path)}
        write_json(path, known)
    return known[dataset]
