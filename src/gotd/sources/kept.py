"""Files of rows that were fetched: written whole or not at all, how they were got inside them."""

from __future__ import annotations

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
