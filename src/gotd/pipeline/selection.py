"""A selection in memory, as the Python interface returns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.column_types import to_json
from gotd.reporting.selection_page import selection_page
from gotd.selection_report.map_rows import SelectionMap
from gotd.selection_report.markdown import report
from gotd.storage.files import atomic_write

if TYPE_CHECKING:
    import datasets
    import pandas as pd

JSONL_ROWS = 1024
"""Rows that become Python objects at once."""


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """The chosen rows, best first.

    Args:
        table: Columns ``id``, ``text``, ``score`` (lower was selected first), ``rank``
            (from 1) and ``domain``; with explanations ``target_id`` and ``target_share``.
        summary: What was chosen, in numbers, beside what chance would have chosen.
        manifest: Everything needed to get it again.
        removed: Candidates that were left out: ``id``, ``reason``, ``because`` and ``text``.
        map: Samples of pool, target and selection on a plane; ``None`` without vectors.
    """

    table: pa.Table
    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]
    removed: pa.Table
    map: SelectionMap | None = None

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def ids(self) -> list[str]:
        """Return the ids of the rows."""
        return self.table["id"].to_pylist()

    @property
    def texts(self) -> list[str]:
        """Return the texts of the rows."""
        return self.table["text"].to_pylist()

    @property
    def scores(self) -> Any:
        """Return the scores of the rows: float64 ``[budget]``."""
        return self.table["score"].to_numpy()

    @property
    def rank(self) -> Any:
        """Return the ranks of the rows, from 1: int64 ``[budget]``."""
        return self.table["rank"].to_numpy()

    @property
    def report(self) -> str:
        """Return the report on the selection, in Markdown."""
        return report(self.manifest, {len(self): self.summary})

    @property
    def page(self) -> str:
        """Return the report with a map of the rows, as a page of HTML that loads nothing."""
        return selection_page(self.report, self.manifest, self.summary, self.map)

    def __repr__(self) -> str:
        method, rows = self.manifest["request"]["method"], self.manifest["rows"]["candidates"]
        return f"Selection({len(self):,} of {rows:,} rows by {method})"

    def to_jsonl(self, path: str | Path) -> None:
        """Write the rows to a file of JSON lines."""
        with atomic_write(Path(path)) as part, part.open("w", encoding="utf-8") as file:
            for batch in self.table.to_batches(JSONL_ROWS):
                file.writelines(to_json(row) + "\n" for row in batch.to_pylist())

    def to_dataset(self) -> datasets.Dataset:
        """Return the rows as a `datasets.Dataset`."""
        from datasets import Dataset

        return Dataset(self.table)

    def to_parquet(self, path: str | Path) -> None:
        """Write the rows to a Parquet file."""
        pq.write_table(self.table, path, compression="zstd")

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a data frame."""
        return self.table.to_pandas()
