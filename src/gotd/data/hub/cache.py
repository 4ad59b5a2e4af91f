"""Parquet files of rows that were fetched, each with the recipe it was made by."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.storage.files import atomic_write

RECIPE = b"gotd.recipe"


def is_cached(path: Path, recipe: dict[str, Any]) -> bool:
    """Return whether a file holds what a recipe (data set, revision, sampling) describes."""
    if not path.is_file():
        return False
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(RECIPE, b"null")) == recipe


def write_cached(
    path: Path, recipe: dict[str, Any], schema: pa.Schema, tables: Iterable[pa.Table]
) -> None:
    """Write a Parquet file atomically, its recipe inside."""
    schema = schema.with_metadata({RECIPE: json.dumps(recipe).encode()})
    with atomic_write(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.cast(schema))
