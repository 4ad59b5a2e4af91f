"""A target without labels: texts to select for, and others on which the loss is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.config.schemas import TaskLimits
from gotd.data.base import Source
from gotd.data.sizes import expected_rows
from gotd.storage.keys import identity, source_identity

PART = "target"
"""The only part of the target, of which the loss is a mean."""


@dataclass(frozen=True)
class HeldOutTarget:
    """Texts of one kind, which the source splits into ``target`` and ``held_out``.

    Args:
        name: Name in the record.
    """

    key_name: ClassVar[str] = "HeldOutTarget"
    rows_kind: ClassVar[str] = "held_out_target"
    table_names: ClassVar[tuple[str, ...]] = ("train", "held_out")

    name: str

    def tables(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, pa.Table]:
        """Return the target and the texts to evaluate on.

        Raises:
            FileNotFoundError: If the source has no such splits.
        """
        target, held_out = (source.split(self.name, split) for split in ("target", "held_out"))
        pair = pa.nulls(target.num_rows, pa.string())
        part = pa.array([PART] * held_out.num_rows, pa.string())
        return {
            "train": target.append_column("text_pair", pair),
            "held_out": held_out.append_column("part", part),
        }

    def held_out_texts(self, rows: Path) -> pa.Table:
        """Read the texts to evaluate on."""
        return pq.read_table(rows / "held_out.parquet", columns=["id", "text", "part"])

    def count_rows(self, source: Source, limits: TaskLimits, protocol: str) -> tuple[int, int]:
        """Return the texts of the target, and those to evaluate on."""
        target, held_out = (
            expected_rows(source, f"{self.name}/{split}") for split in ("target", "held_out")
        )
        return target, held_out

    def key_fields(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, Any]:
        """Return what `tables` depends on: not on limits, protocol or seed."""
        return {
            "source": source_identity(source, "tasks", self.name),
            "task": identity(self),
        }
