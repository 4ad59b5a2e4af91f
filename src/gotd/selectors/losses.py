"""Losses of the candidates under a language model, from a file that a step has written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.rows import Rows


def mean_losses(path: Path | None, candidates: Sequence[Rows], reader: str) -> list[np.ndarray]:
    """Read the mean loss per predicted token of every candidate.

    Args:
        path: Parquet file with columns ``id``, ``loss`` (nats) and ``tokens``, one row per
            candidate; other rows are ignored.
        candidates: The pool, in shards.
        reader: Name of the caller, for messages.

    Returns:
        Per shard ``[n]`` float64 nats; NaN for a text without a token to predict.

    Raises:
        ValueError: If there is no file, or it lacks a candidate.
    """
    if path is None or not path.is_file():
        raise ValueError(f"{reader}: the pool has no losses yet; give a model, which computes them")
    table = pq.read_table(path, columns=["id", "loss", "tokens"])
    ids = table["id"].cast(pa.string()).combine_chunks()
    loss, tokens = table["loss"].to_numpy(), table["tokens"].to_numpy()
    means = np.divide(loss, tokens, out=np.full(len(loss), np.nan), where=tokens > 0)
    found = []
    for shard in candidates:
        rows = pc.index_in(shard.ids.cast(pa.string()), value_set=ids)
        if rows.null_count:
            missing = shard.ids.filter(rows.is_null())[0].as_py()
            raise ValueError(
                f"{reader}: {path} has no loss of candidate {missing!r} "
                f"({rows.null_count} such rows); compute the losses of all candidates"
            )
        found.append(means[rows.to_numpy()])
    return found
