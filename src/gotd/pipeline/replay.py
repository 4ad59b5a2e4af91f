"""General rows that are mixed into a selection, so that a model does not forget them (replay).

They are sampled by a hash of (seed, id), so a smaller draw is a prefix of a larger one and the
order of the files does not matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gotd.config.schemas import Chunking
from gotd.data.base import Part
from gotd.data.columns import NUMBERED, Columns, NoShape
from gotd.data.inputs import named_parts
from gotd.data.left_out.record import reasons
from gotd.data.original_rows import OriginalRows
from gotd.data.pool import open_pool, pool_facts
from gotd.data.sampling import uniform_by_id
from gotd.data.unique_ids import hash_strings
from gotd.pipeline.steps import left_out, pools
from gotd.pipeline.token_budget import rows_reaching
from gotd.selection_report.rows import BLOCK_ROWS, blocks
from gotd.selectors.topk import Best, smallest_rows

if TYPE_CHECKING:
    from gotd.pipeline.select import Prepared

SELECTED = "selected"
"""Reason for which rows with the text of a selected one are left out."""


@dataclass(frozen=True)
class Replay:
    """Which rows are mixed in, and how many.

    Args:
        parts: Their sources.
        share: Their share of the rows of the output, or of its tokens where the budget is in
            tokens; in (0, 1).
        columns: The columns that are read.

    Raises:
        ValueError: If the share is not in (0, 1).
    """

    parts: Sequence[Part]
    share: float
    columns: Columns

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"the share of replay must be above 0% and below 100%: {self.share}")

    def beside(self, selected: int) -> int:
        """Return rows or tokens of replay beside so many that were selected; 1 at least."""
        return max(1, round(selected * self.share / (1 - self.share)))


def parse_replay(given: str, columns: Columns, record: Path) -> Replay:
    """Read ``general.jsonl:20%``; the shape of the rows is found in each file.

    Args:
        given: What was typed.
        columns: Columns of the candidates, which count where no shape is found.
        record: As for `named_parts`.

    Raises:
        ValueError: If there is no share above 0% and below 100%, or rows cannot be read.
        FileNotFoundError: If there is no such file.
    """
    name, colon, share = given.rpartition(":")
    match = re.fullmatch(r"(\d*\.?\d+)(%?)", share[:40])
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not (colon and name and 0 < value < 1):
        raise ValueError(
            "--replay takes FILE:SHARE with a share above 0% and below 100%, such as "
            f"general.jsonl:20%, not {given[-60:]!r}"
        )
    try:
        found = replay_columns(columns)
        return Replay(named_parts([name], found, record), value, found)
    except NoShape:
        return Replay(named_parts([name], columns, record), value, columns)


def replay_columns(columns: Columns) -> Columns:
    """Return the columns of replay, whose rows are numbered where those of the candidates are."""
    return Columns(id=NUMBERED if columns.id == NUMBERED else None)


class ReplayRows:
    """The rows that can be mixed in, read into the store.

    Duplicates among them and overlap with test sets are left out as they are among the
    candidates. `leave_out_selected` leaves out those that were selected.

    Args:
        prepared: The scored request, which names the replay.
        replay: The replay.

    Raises:
        ValueError: If rows cannot be read.
    """

    def __init__(self, prepared: Prepared, replay: Replay) -> None:
        self.replay, self._prepared = replay, prepared
        rules = prepared.request.leave_out
        rules = left_out.LeaveOut(None, rules.exclude, rules.dedup)
        pool = pools.pool("replay", replay.parts, Chunking("whole"), replay.columns)
        prepared.run_step("replay", pool)
        self.left_out: dict[str, int] = {}
        if rules.parameters:
            prepared.run_step("replay_left_out", left_out.left_out(pool, rules, replay.parts))
            self.left_out = reasons(prepared.folder("replay_left_out"))
        kept = None
        if sum(self.left_out.values()) == sum(pool_facts(prepared.folder("replay"))["rows"]):
            raise ValueError(
                f"--replay: no row is left after {', '.join(self.left_out)} rows are; give others"
            )
        if self.left_out:
            inputs = {"pool": pool, "left_out": prepared.steps["replay_left_out"]}
            prepared.run_step("replay_kept", left_out.kept(inputs))
            kept = prepared.folder("replay_kept")
        self._shards = open_pool(prepared.folder("replay"), kept=kept)
        self._rows = sum(map(len, self._shards))

    @cached_property
    def _chances(self) -> list[np.ndarray]:
        seed = self._prepared.request.seed
        return [uniform_by_id(shard.ids, seed, "replay") for shard in self._shards]

    def leave_out_selected(self, rows: int) -> None:
        """Leave out the rows that have the text of a selected one; they come last.

        Texts are compared by hashes of eight bytes.

        Args:
            rows: Rows of the largest selection. A smaller one has the same replay, so it is a
                part of that beside a larger one.
        """
        ranked = self._prepared.ranked
        found = [_hashes(b["text"]) for b in blocks(ranked.best, ranked.candidates, rows)]
        selected, count = np.unique(np.concatenate(found)), 0
        for chances, shard in zip(self._chances, self._shards, strict=True):
            for start in range(0, len(shard), BLOCK_ROWS):
                same = np.isin(_hashes(shard.texts.slice(start, BLOCK_ROWS)), selected)
                chances[start : start + BLOCK_ROWS][same] = np.inf
                count += int(same.sum())
        self._rows -= count
        if count:
            self.left_out = {**self.left_out, SELECTED: count}

    def first(self, rows: int) -> Best:
        """Return the first rows by their hash.

        Raises:
            ValueError: If there are fewer.
        """
        if rows > self._rows:
            raise ValueError(
                f"--replay has {self._rows:,} rows{self._without}, fewer than the {rows:,} that "
                f"its share of {self.replay.share:.4g} takes; lower the share or add rows"
            )
        ids = [shard.ids for shard in self._shards]
        return smallest_rows(self._chances, ids, rows, self._prepared.engine)

    @property
    def _without(self) -> str:
        """Return in words that selected rows are left out, if some are."""
        count = self.left_out.get(SELECTED)
        return f" beside the {count:,} with the text of a selected row" if count else ""

    def rows_of(self, tokens: int, count: Callable[[Sequence[str]], Sequence[int]]) -> int:
        """Return how many rows have so many tokens.

        Raises:
            ValueError: If all rows have fewer.
        """
        limit, have = min(1024, self._rows), self._rows
        if not have:
            self.first(1)
        while True:
            best = self.first(limit)
            texts = (b["text"].to_pylist() for b in blocks(best, self._shards, limit))
            rows, reached = rows_reaching(tokens, texts, count)
            if reached >= tokens:
                return rows
            if limit == have:
                raise ValueError(
                    f"--replay has {reached:,} tokens{self._without}, fewer than the {tokens:,} "
                    f"that its share of {self.replay.share:.4g} takes; lower the share or add rows"
                )
            limit = min(have, max(2 * limit, math.ceil(1.2 * limit * tokens / max(1, reached))))

    def originals(self, rows: int, folder: Path) -> OriginalRows:
        """Copy the first rows with all their columns into an empty folder."""
        identities = self._prepared.steps["replay"].parameters["parts"]
        return OriginalRows(self.replay.parts, identities, self.first(rows).ids, folder)

    def blocks(self, rows: int, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield the first rows with the columns of the selected ones; they have no rank.

        Args:
            rows: How many.
            schema: Columns of the selected rows.
        """
        for block in blocks(self.first(rows), self._shards, rows):
            columns: dict[str, Any] = {name: block[name] for name in ("id", "text", "domain")}
            columns["replay"] = pa.repeat(pa.scalar(True), len(block))
            missing = {field.name: pa.nulls(len(block), field.type) for field in schema}
            yield pa.table(missing | columns).select(schema.names).cast(schema)

    def stated(self) -> dict[str, Any]:
        """Return what a manifest states."""
        parts = self._prepared.steps["replay"].parameters["parts"]
        return {
            "share": self.replay.share,
            "inputs": parts,
            "rows": self._rows,
            "left_out_rows": self.left_out,
        }


def _hashes(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return hash_strings(texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts)
