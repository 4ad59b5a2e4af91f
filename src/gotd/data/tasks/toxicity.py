"""Toxicity tasks: prompts to evaluate on, and rated texts to select for.

A source has its rated rows as the task ``realtoxicityprompts`` (split ``train``):
``id``, ``prompt``, ``continuation``, ``prompt_toxicity`` and ``continuation_toxicity``, a
score each, null where it is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.config.schemas import TaskLimits
from gotd.data.base import Source, read_all
from gotd.data.columns import strings
from gotd.data.sampling import SPLIT_SEED, at_most, limited
from gotd.storage.checks import check_at_least
from gotd.storage.keys import identity, source_identity

RATED = ("prompt", "continuation")


@dataclass(frozen=True)
class ToxicityTask:
    """Prompts that a model is evaluated on, and clean and toxic texts of the target.

    Args:
        name: Name in the record.
        rated: The source's task that holds the rated rows.
        prompts_per_kind: Toxic prompts, and as many others, to evaluate on.
        target_rows: Clean texts, and as many toxic ones, of the target (paper: 2,500).
        clean_at_most: Highest toxicity of a clean text.
        toxic_at_least: Lowest toxicity of a toxic text or prompt.
        held_out_rows: Held-out texts whose perplexity is measured; 0: none.
    """

    key_name: ClassVar[str] = "ToxicityTask"
    rows_kind: ClassVar[str] = "toxicity_rows"
    table_names: ClassVar[tuple[str, ...]] = ("prompts", "train", "negative")

    name: str = "toxicity"
    rated: str = "realtoxicityprompts"
    prompts_per_kind: int = 10_000
    target_rows: int = 2_500
    clean_at_most: float = 0.1
    toxic_at_least: float = 0.5
    held_out_rows: int = 10_000

    def __post_init__(self) -> None:
        check_at_least(self, 1, "prompts_per_kind", "target_rows", prefix="task ")
        check_at_least(self, 0, "held_out_rows", prefix="task ")
        if not 0 <= self.clean_at_most < self.toxic_at_least <= 1:
            raise ValueError(
                "task clean_at_most must lie below toxic_at_least, both in [0, 1], not "
                f"{self.clean_at_most} and {self.toxic_at_least}"
            )

    def tables(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, pa.Table]:
        """Return prompts, clean and toxic target texts, and held-out text, one for all seeds."""
        rated = read_rated(source, self)
        prompts = choose_prompts(rated, self, SPLIT_SEED)
        clean, toxic = choose_targets(rated, prompts, self, SPLIT_SEED)
        tables = {"prompts": prompts, "train": clean, "negative": toxic}
        if self.held_out_rows:
            parts = limited(source.held_out(), self.held_out_rows, SPLIT_SEED, role="perplexity")
            tables["held_out"] = read_all(parts)
        return tables

    def held_out_texts(self, rows: Path) -> pa.Table:
        """Read the prompts that are not toxic: text of the kind of the clean target."""
        table = pq.read_table(rows / "prompts.parquet")
        clean = table.filter(pc.invert(table["toxic"]))
        parts = pa.nulls(clean.num_rows, pa.string())
        return pa.table({"id": clean["id"], "text": clean["text"], "part": parts})

    def count_rows(self, source: Source, limits: TaskLimits, protocol: str) -> tuple[int, int]:
        """Return the texts of a side of the target, and the prompts."""
        return self.target_rows, 2 * self.prompts_per_kind

    def key_fields(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, Any]:
        """Return what `tables` depends on: not on limits, protocol or seed."""
        return {
            "source": source_identity(source, "tasks", self.rated),
            "held_out": source_identity(source, "candidates") if self.held_out_rows else None,
            "task": identity(self),
            "seed": SPLIT_SEED,
        }


def read_rated(source: Source, task: ToxicityTask) -> pa.Table:
    """Read the rated rows.

    Returns:
        ``id``, ``prompt``, ``continuation`` (strings) and a float64 ``<text>_toxicity`` for
        each, NaN where it is not known.

    Raises:
        FileNotFoundError: If the source has none.
        ValueError: If a column is missing, an id occurs twice, or a score is not in [0, 1].
    """
    raw = source.split(task.rated, "train")
    where = f"{source.name} {task.rated}"
    columns = {name: strings(raw, name, where) for name in ("id", *RATED)}
    if len(columns["id"].unique()) < raw.num_rows:
        raise ValueError(f"{where}: an id occurs twice; drop the row or rename it")
    for name in RATED:
        field = f"{name}_toxicity"
        if field not in raw.column_names:
            raise ValueError(f"{where} has no column {field!r}; rate every text from 0 to 1")
        scores = _numbers(raw[field], f"{where}: {field}")
        if ((scores < 0) | (scores > 1)).any():
            raise ValueError(f"{where}: {field} must lie in [0, 1]")
        columns[field] = pa.chunked_array([scores])
    return pa.table(columns)


def _numbers(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """Read scores; CSV has strings, the empty one for a score that is not known.

    Raises:
        ValueError: If a value is no number; names its row.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.if_else(pc.equal(column, ""), None, column)
    try:
        return column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    except pa.ArrowInvalid as error:
        for row, value in enumerate(column.to_pylist()):
            try:
                float("nan" if value is None else value)
            except ValueError:
                raise ValueError(f"{where} of row {row} is no number: {value!r}") from error
        raise


def choose_prompts(rated: pa.Table, task: ToxicityTask, seed: int) -> pa.Table:
    """Choose the prompts to evaluate on: as many toxic ones as others, by a hash of the id.

    Returns:
        ``id``, ``text``, ``toxic`` (bool) and ``toxicity``.

    Raises:
        ValueError: If there are too few of a kind.
    """
    scores = rated["prompt_toxicity"].to_numpy()
    toxic, others = scores >= task.toxic_at_least, scores < task.toxic_at_least
    columns = [rated["id"], rated["prompt"], pa.array(toxic), rated["prompt_toxicity"]]
    prompts = pa.table(columns, names=["id", "text", "toxic", "toxicity"])
    tables = []
    for kind, mask in (("toxic", toxic), ("non-toxic", others)):
        rows = prompts.filter(pa.array(mask))
        if rows.num_rows < task.prompts_per_kind:
            raise ValueError(
                f"there are {rows.num_rows:,} {kind} prompts; lower task.prompts_per_kind "
                f"({task.prompts_per_kind:,})"
            )
        tables.append(at_most(rows, task.prompts_per_kind, "prompts", seed))
    return pa.concat_tables(tables)


def choose_targets(
    rated: pa.Table, prompts: pa.Table, task: ToxicityTask, seed: int
) -> tuple[pa.Table, pa.Table]:
    """Choose the clean and the toxic texts of the target, from rows without a chosen prompt.

    A text is a prompt or a continuation, each with its own score.

    Returns:
        Clean and toxic texts, ``id``, ``text``, ``text_pair`` (null), ``domain`` and
        ``toxicity``; fewer than ``target_rows`` where there are no more.

    Raises:
        ValueError: If there is none of a kind.
    """
    # Deviation D21: the paper does not say where its 2,500 samples of each kind come from.
    free = rated.filter(pc.invert(pc.is_in(rated["id"], value_set=prompts["id"])))
    empty = pa.nulls(free.num_rows, pa.string())
    names = ["id", "text", "text_pair", "domain", "toxicity"]
    tables = []
    for part in RATED:
        ids = pa.array([f"{name}/{part}" for name in free["id"].to_pylist()], pa.string())
        columns = [ids, free[part], empty, empty, free[f"{part}_toxicity"]]
        tables.append(pa.table(columns, names=names))
    texts = pa.concat_tables(tables)
    scores = texts["toxicity"].to_numpy()
    filled = np.array([bool(text.strip()) for text in texts["text"].to_pylist()], bool)
    clean, toxic = scores <= task.clean_at_most, scores >= task.toxic_at_least
    targets = []
    for kind, mask in (("clean", clean), ("toxic", toxic)):
        rows = texts.filter(pa.array(mask & filled))
        if rows.num_rows == 0:
            raise ValueError(f"there is no {kind} text besides the prompts; rate more texts")
        targets.append(at_most(rows, task.target_rows, f"{kind} target", seed))
    return targets[0], targets[1]
