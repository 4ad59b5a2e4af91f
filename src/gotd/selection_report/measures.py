"""What was chosen, in numbers, beside what chance would have chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.pool import counted
from gotd.data.rows import Rows
from gotd.data.unique_ids import hash_strings
from gotd.selection_report.report import plain_excerpt
from gotd.selection_report.rows import embeddings_of
from gotd.selectors.topk import Best

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FIRST_ROWS = 10
MOST_DOMAINS = 1000
"""A column of addresses may have a domain for every row."""

COVERAGE_TARGETS, COVERAGE_ROWS = 2_000, 20_000
"""Coverage is measured on so many targets and chosen rows at most, spread evenly."""


class Measures:
    """Counts blocks of chosen rows as they pass by on their way to a file."""

    def __init__(self) -> None:
        self.rows = 0
        self.domains: Counter[str] = Counter()
        self.first_rows: list[dict[str, Any]] = []
        self._lengths: Counter[int] = Counter()
        self._ids: list[np.ndarray] = []
        self._texts: list[np.ndarray] = []

    def add(self, block: pa.Table) -> None:
        """Count a block of `gotd.selection_report.rows.blocks`."""
        self.rows += block.num_rows
        self.domains.update(counted(block["domain"]))
        self._lengths.update(counted(pc.utf8_length(block["text"])))
        self._ids.append(hash_strings(block["id"].combine_chunks()))
        self._texts.append(hash_strings(bare(block["text"]).combine_chunks()))
        for row in block.slice(0, FIRST_ROWS - len(self.first_rows)).to_pylist():
            text = row.pop("text")
            self.first_rows.append({**row, "excerpt": plain_excerpt(text)})

    def summary(self, pool: Mapping[str, Any]) -> dict[str, Any]:
        """Give the numbers, beside the pool's (`gotd.data.pool.pool_facts`)."""
        ids, texts = np.concatenate(self._ids), np.concatenate(self._texts)
        distinct = np.unique(ids, return_index=True)[1]
        total = sum(pool["rows"])
        names = sorted(pool["domains"], key=lambda name: (-self.domains[name], name))
        # All that were chosen, so that what another budget names has its count here.
        names = names[: max(MOST_DOMAINS, sum(count > 0 for count in self.domains.values()))]
        return {
            "rows": self.rows,
            "distinct_rows": len(distinct),
            "repeated_texts": len(distinct) - len(np.unique(texts[distinct])),
            "domains": {
                name: {
                    "rows": self.domains[name],
                    "at_random": self.rows * pool["domains"][name] / total,
                    "pool": pool["domains"][name],
                }
                for name in names
            },
            "length_chars": {
                "selected": quantiles(sorted(self._lengths.items())),
                "pool": quantiles(pool["length_chars"]),
            },
            "first_rows": self.first_rows,
        }


def bare(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Leave only letters and digits, in lower case: equal for near-copies."""
    words = pc.replace_substring_regex(
        pc.utf8_lower(texts), pattern=r"[^\p{L}\p{N}]+", replacement=" "
    )
    return pc.utf8_trim_whitespace(words)


def quantiles(counts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Interpolate quantiles from pairs of value and count, values ascending."""
    values, number = np.array(counts, dtype=np.int64).T
    ends = np.cumsum(number)
    found = {}
    for q in QUANTILES:
        place = q * (ends[-1] - 1)
        low, high = np.searchsorted(ends, [np.floor(place), np.ceil(place)], side="right")
        part = place - np.floor(place)
        found[f"q{round(100 * q):02d}"] = float(values[low] + part * (values[high] - values[low]))
    return found


def coverage(best: Best, budget: int, candidates: Sequence[Rows], target: Rows) -> dict[str, Any]:
    """Measure how near the target's points are to the selection, and to a random one.

    Args:
        best: The ranking.
        budget: Rows that count.
        candidates: The pool, with embeddings.
        target: The target, with embeddings.

    Returns:
        Mean Euclidean distance of a target point to the nearest chosen row, the same for
        as many random rows, the share of target points that are nearer to the selection
        than to the random rows, and how many rows and points were looked at.
    """
    rows = min(budget, COVERAGE_ROWS)
    places = np.linspace(0, budget - 1, rows).astype(np.int64)
    points = np.linspace(0, len(target) - 1, min(len(target), COVERAGE_TARGETS)).astype(np.int64)
    wanted = np.asarray(target.embeddings)[points]
    chosen = _nearest(wanted, embeddings_of(best, candidates, places))
    chance = _nearest(wanted, embeddings_of(_random(candidates, rows), candidates, np.arange(rows)))
    return {
        "mean_distance": float(chosen.mean()),
        "mean_distance_random": float(chance.mean()),
        "share_nearer": float((chosen < chance).mean()),
        "rows": rows,
        "targets": len(points),
    }


def _random(candidates: Sequence[Rows], rows: int) -> Best:
    """Draw rows without looking at an id: only a yardstick, not a selection."""
    ends = np.cumsum([len(shard) for shard in candidates])
    drawn = np.random.default_rng(0).choice(ends[-1], size=rows, replace=False)
    shard = np.searchsorted(ends, drawn, side="right")
    return Best(pa.nulls(rows), np.zeros(rows), shard, drawn - np.r_[0, ends][shard])


def _nearest(wanted: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Give each wanted point's distance to the nearest row: float64 ``[m]``."""
    origin = wanted.mean(axis=0)
    y = wanted - origin
    nearest = np.full(len(wanted), np.inf)
    for start in range(0, len(rows), 4096):
        x = rows[start : start + 4096] - origin
        squared = np.square(x).sum(axis=1)[None, :] - 2.0 * (y @ x.T)
        np.minimum(nearest, squared.min(axis=1), out=nearest)
    return np.sqrt(np.maximum(nearest + np.square(y).sum(axis=1), 0.0))
