"""A weight for every row of the pool, with all its columns: what to draw how often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.base import check_unchanged
from gotd.data.column_types import ColumnTypes, records_of
from gotd.data.original_rows import read_with_originals
from gotd.data.pool import open_pool
from gotd.data.readers import original_rows
from gotd.pipeline.formats import Block, Layout, open_writer
from gotd.pipeline.ranked_pool import open_pools, scores_file
from gotd.pipeline.select import Prepared
from gotd.selectors.weights import Weighting
from gotd.storage.memmap import open_array
from gotd.storage.progress import tick

BLOCK_ROWS = 8192


@dataclass(frozen=True)
class SourceRows:
    """Consecutive rows of a source with all their columns, for a `Block` that begins at 0.

    Args:
        types: The columns of the output.
        rows: The rows.
    """

    types: ColumnTypes
    rows: pa.RecordBatch

    @property
    def schema(self) -> pa.Schema:
        """Return the columns of the output."""
        return self.types.schema

    def records(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return some rows as objects."""
        return records_of(self.rows.slice(start, stop - start))

    def table(self, start: int, stop: int) -> pa.Table:
        """Return some rows with the columns of `schema`."""
        return self.types.uniform(self.rows.slice(start, stop - start))


class WeightedPool:
    """The weights of a pool, computed from the scores of a request.

    Args:
        prepared: The scored request.

    Raises:
        ValueError: If the method makes a list, or no row has a score.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared, self._scored = prepared, prepared.score_for_weights()
        self._method = prepared.request.method
        self._weighting = Weighting.of(self._scores, self._method.weight_scale)
        self._rows, self._domains = 0, defaultdict[str, float](float)

    @cached_property
    def _candidates(self) -> list[Any]:
        folders = {name: self._prepared.folder(name) for name in self._prepared.steps}
        return open_pools(folders, only_readable=self._prepared.request.embeds)[1]

    @cached_property
    def _scores(self) -> list[np.ndarray]:
        return [open_array(self._scored / scores_file(n)) for n in range(len(self._candidates))]

    def write(self, path: Path, suffix: str) -> None:
        """Write every row of the candidates, in their order, with its weight.

        Memory is a block of rows; sources are read again.

        Args:
            path: File to write.
            suffix: Format of the file.

        Raises:
            ValueError: If a source has changed since it was read.
        """
        one_schema = not suffix.startswith(".jsonl")
        with open_writer(path, suffix) as writer:
            for block in self._blocks(one_schema):
                self._count(block.selected)
                writer.write(block)
                tick(len(block.selected))

    def summary(self) -> dict[str, Any]:
        """Return what a manifest states about the weights that were written.

        Returns:
            ``meaning``, ``scale``, ``rows`` that were written, ``competing_rows`` that have a
            score, ``effective_rows`` and ``domains``, the share of all weight by domain.
        """
        weighting, total = self._weighting, sum(self._domains.values())
        return {
            "meaning": self._method.weight,
            "scale": weighting.scale if np.isfinite(weighting.scale) else None,
            "rows": self._rows,
            "competing_rows": weighting.rows,
            "effective_rows": weighting.effective_rows,
            "domains": {name: w / total for name, w in sorted(self._domains.items())},
        }

    def _count(self, rows: pa.Table) -> None:
        self._rows += len(rows)
        sums = rows.group_by("domain").aggregate([("weight", "sum")])
        for name, weight in zip(*(sums[n].to_pylist() for n in sums.column_names), strict=True):
            self._domains[name] += weight

    def _blocks(self, one_schema: bool) -> Iterator[Block]:
        request = self._prepared.request
        layout, competing = Layout(request.columns, prefixed=True), self._competing()
        if request.unit != "whole":  # a chunk of several rows has no columns of its own
            for shard in open_pool(self._prepared.folder("candidates")):
                for start in range(0, len(shard), BLOCK_ROWS):
                    rows = shard.slice(start, start + BLOCK_ROWS)
                    assert rows.domains is not None
                    read = pa.table([rows.ids, rows.texts, rows.domains], ["id", "text", "domain"])
                    yield Block(self._joined(read, competing), 0, None, layout)
            return
        identities = self._prepared.steps["candidates"].parameters["parts"]
        types = self._types() if one_schema else None
        for part, identity in zip(request.candidates, identities, strict=True):
            check_unchanged(part, identity)
            for read, rows in read_with_originals(part):
                for start in range(0, rows.num_rows, BLOCK_ROWS):
                    noted = ColumnTypes()
                    batch = noted.note(rows.slice(start, BLOCK_ROWS), part.label)
                    own = self._joined(read.slice(start, BLOCK_ROWS), competing)
                    yield Block(own, 0, SourceRows(types or noted, batch), layout)
            check_unchanged(part, identity)

    def _types(self) -> ColumnTypes:
        """Read all sources for the types of their columns."""
        types = ColumnTypes()
        for part in self._prepared.request.candidates:
            for rows in original_rows(part):
                if rows.num_rows:
                    types.note(rows, part.label)
        return types

    def _competing(self) -> _Cursor:
        def blocks() -> Iterator[pa.Table]:
            for shard, scores in zip(self._candidates, self._scores, strict=True):
                for start in range(0, len(shard), BLOCK_ROWS):
                    ids = shard.ids[start : start + BLOCK_ROWS].cast(pa.string())
                    score = np.asarray(scores[start : start + BLOCK_ROWS])
                    yield pa.table({"id": ids, "score": score})

        return _Cursor(blocks())

    def _joined(self, read: pa.Table, competing: _Cursor) -> pa.Table:
        """Return ``id``, ``text``, ``weight``, ``score`` and ``domain`` of rows of the pool."""
        scores = competing.scores(read["id"].combine_chunks())
        known = ~np.isnan(scores)
        weights = np.zeros(len(scores))
        weights[known] = self._weighting.weights(scores[known])
        score = pa.array(scores, mask=~known)
        columns = {"id": read["id"], "text": read["text"], "weight": weights, "score": score}
        return pa.table(columns | {"domain": read["domain"]})


class _Cursor:
    """Rows that have a score, in the order of the pool, taken as the pool is walked."""

    def __init__(self, blocks: Iterator[pa.Table]) -> None:
        self._blocks, self._held = blocks, pa.table({"id": pa.array([], pa.string()), "score": []})

    def scores(self, ids: pa.Array) -> np.ndarray:
        """Return the scores of the next rows of the pool; NaN for those without one.

        Args:
            ids: ``[n]`` their ids, in the order of the pool.
        """
        while len(self._held) < len(ids) and (more := next(self._blocks, None)) is not None:
            held = self._held.cast(more.schema)
            self._held = pa.concat_tables([held, more])
        first = self._held.slice(0, len(ids)).combine_chunks()
        found = pc.index_in(ids, value_set=first["id"].combine_chunks())
        self._held = self._held.slice(len(ids) - found.null_count)
        scores = np.full(len(ids), np.nan)
        values = first["score"].to_numpy()
        scores[found.is_valid().to_numpy(zero_copy_only=False)] = values[found.drop_null()]
        return scores
