"""Evaluation of rows range by range, so that a killed evaluation can resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.storage.files import atomic_write

ROWS_PER_RANGE = 256
"""Rows between two resume points; no batch crosses a range, so ranges are independent."""


def by_range(
    rows: pa.Table, evaluate: Callable[[pa.Table], pa.Table], work: Path | None
) -> pa.Table:
    """Apply a function to ranges of rows, and store each finished range in ``work``.

    Args:
        rows: ``[n]`` rows with a column ``id``.
        evaluate: Maps some rows to as many results with the same ``id``.
        work: Folder of the finished ranges, of these rows and this function alone;
            ``None`` stores nothing.

    Returns:
        ``[n]`` results in the order of ``rows``.

    Raises:
        ValueError: If a stored range is of other rows.
    """
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
    return pa.concat_tables(
        [
            _range(rows.slice(start, ROWS_PER_RANGE), start, evaluate, work)
            for start in range(0, rows.num_rows, ROWS_PER_RANGE)
        ]
    )


def _range(
    rows: pa.Table, start: int, evaluate: Callable[[pa.Table], pa.Table], work: Path | None
) -> pa.Table:
    if work is None:
        return evaluate(rows)
    path = work / f"range-{start:012d}.parquet"
    if not path.exists():
        with atomic_write(path) as part:
            pq.write_table(evaluate(rows), part)
    # Read back also at first: Parquet has its own name for the items of a list, and a resumed
    # run must give the same table.
    results = pq.read_table(path)
    if results["id"].to_pylist() != rows["id"].to_pylist():
        raise ValueError(f"{path} holds other rows than these; delete the folder {work}")
    return results
