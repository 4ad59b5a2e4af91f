"""The candidates with the lowest toxicity score, whatever their content.

The second step of RealToxicityPrompts' detoxification by data: score every candidate with
a classifier and select the lowest. The scores come from the step ``pool_scores``, or from
a file, and are joined here by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Ranking, Scores, Selector


@dataclass(frozen=True)
class LeastToxic(Selector):
    """Rank candidates by a toxicity score, lowest first; the target is not read.

    Args:
        scores: Parquet file with columns ``id`` (string) and ``score`` (number,
            higher is more toxic), one row per candidate; other rows are ignored. ``None``
            until the experiment's scorer has scored the pool.

    Source: GOT-D (ICLR 2024) §3.1, the "RTP" arm, after Gehman et al. (2020).
    """

    key_name: ClassVar[str] = "LeastToxic"
    name: ClassVar[str] = "least_toxic"
    requires: ClassVar[frozenset[str]] = frozenset({"scores"})

    scores: Path | None = None

    def __post_init__(self) -> None:
        if self.scores is not None:
            object.__setattr__(self, "scores", Path(self.scores))

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank by the score in the file, ties by id.

        Raises:
            FileNotFoundError: If the file of scores does not exist.
            ValueError: If it lacks a column or a candidate, or repeats an id.
        """
        ids, values = self._read()
        per_shard = list(engine.map(lambda shard: self._join(shard, ids, values), candidates))
        return Scores(per_shard).ranking(candidates, limit)

    def _read(self) -> tuple[pa.Array, np.ndarray]:
        if self.scores is None:
            raise ValueError(f"{self.name}: the pool has no toxicity scores; set scores to a file")
        if not self.scores.is_file():
            raise FileNotFoundError(f"{self.name}: no file of scores at {self.scores}")
        missing = {"id", "score"} - set(pq.read_schema(self.scores).names)
        if missing:
            raise ValueError(f"{self.name}: {self.scores} has no column {sorted(missing)[0]!r}")
        table = pq.read_table(self.scores, columns=["id", "score"])
        if len(pc.unique(table["id"])) < len(table):
            raise ValueError(f"{self.name}: an id occurs twice in {self.scores}")
        ids = table["id"].cast(pa.string()).combine_chunks()
        return ids, table["score"].cast(pa.float64()).to_numpy()

    def _join(self, shard: Rows, ids: pa.Array, values: np.ndarray) -> np.ndarray:
        rows = pc.index_in(shard.ids.cast(pa.string()), value_set=ids)
        if rows.null_count:
            row = shard.ids.filter(pc.is_null(rows))[0].as_py()
            raise ValueError(
                f"{self.name}: {self.scores} has no score for candidate {row!r} "
                f"({rows.null_count} such rows); score all candidates of the pool"
            )
        scores = values[rows.to_numpy()]
        if np.isnan(scores).any():
            row = shard.ids[int(np.argmax(np.isnan(scores)))].as_py()
            raise ValueError(f"{self.name}: the score of candidate {row!r} is not a number")
        return scores
