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
import pandas as pd
import pyarrow as pa
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
    reads_target: ClassVar[bool] = False

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
        scores = self._read()
        per_shard = list(engine.map(lambda shard: self._join(shard, scores), candidates))
        return Scores(per_shard).ranking(candidates, limit)

    def _read(self) -> pd.Series:
        if self.scores is None:
            raise ValueError(f"{self.name}: the pool has no toxicity scores; set scores to a file")
        if not self.scores.is_file():
            raise FileNotFoundError(f"{self.name}: no file of scores at {self.scores}")
        table = self._table()
        ids = table["id"].to_pylist()
        scores = pd.Series(table["score"].to_numpy(), index=ids)
        if np.isinf(scores.to_numpy()).any():
            raise ValueError(f"{self.name}: {self.scores} holds an infinite score; score it again")
        if not scores.index.is_unique:
            raise ValueError(f"{self.name}: an id occurs twice in {self.scores}")
        return scores

    def _table(self) -> pa.Table:
        """Read ids as strings and scores as numbers."""
        remedy = "give a Parquet file with a string `id` and a number `score` for each candidate"
        try:
            names = pq.read_schema(self.scores).names
            missing = {"id", "score"} - set(names)
            if missing:
                raise ValueError(f"{self.name}: {self.scores} has no column {sorted(missing)[0]!r}")
            table = pq.read_table(self.scores, columns=["id", "score"])
            kinds = {"id": pa.string(), "score": pa.float64()}
            if pa.types.is_string(table["score"].type) or pa.types.is_boolean(table["score"].type):
                raise pa.ArrowInvalid(f"score holds {table['score'].type}")
            return table.cast(pa.schema(kinds))
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{self.name}: {self.scores}: {reason}; {remedy}") from error

    def _join(self, shard: Rows, scores: pd.Series) -> np.ndarray:
        joined = scores.reindex(shard.ids.to_pylist())
        missing = joined.index[np.isnan(joined.to_numpy())]
        if len(missing):
            raise ValueError(
                f"{self.name}: {self.scores} has no score for candidate {missing[0]!r} "
                f"({len(missing)} such rows), or none that is a number; score all candidates"
            )
        return joined.to_numpy()
