"""Measures of a selection, each beside its value for the pool or for a random selection."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.pool import counted
from gotd.data.rows import Rows
from gotd.data.unique_ids import hash_strings
from gotd.selection_report.rows import embeddings_of
from gotd.selectors.topk import Best

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
FIRST_ROWS = 10
EXCERPT_CHARS = 240
MOST_DOMAINS = 1000
"""A column of addresses may have a domain for every row."""

COVERAGE_TARGETS, COVERAGE_ROWS = 2_000, 20_000
"""Coverage is measured on at most so many targets and selected rows, evenly spaced."""


class Measures:
    """Running counts over blocks of selected rows."""

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
        self._texts.append(_hashes(block["text"]))
        for row in block.slice(0, FIRST_ROWS - len(self.first_rows)).to_pylist():
            text = row.pop("text")
            self.first_rows.append({**row, "excerpt": plain_excerpt(text)})

    def copies_of(self, target: Rows) -> int:
        """Return how many rows have the letters and digits of a text of the target."""
        known = _hashes(pa.chunked_array([target.texts]))
        wordless = _hashes(pa.chunked_array([pa.array([""])]))  # such as "…"
        return int(np.isin(np.concatenate(self._texts), np.setdiff1d(known, wordless)).sum())

    def summary(
        self,
        pool: Mapping[str, Any],
        target_domains: Mapping[str, float] | None = None,
        under_covered: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return the measures beside those of the pool.

        Args:
            pool: Counts of the pool (`gotd.data.pool.pool_facts`).
            target_domains: Share of each domain in the target, where domains are known.
            under_covered: Domains that the base model lacks, where known.

        Returns:
            JSON: ``rows``, ``distinct_rows``, ``duplicate_texts`` (rows whose letters and
            digits repeat those of an earlier row), ``domains`` (rows), ``expected_domains``
            (mean rows under random choice), ``target_domains``, ``under_covered_share``,
            ``length_chars`` (quantiles of ``selected`` and ``pool``) and ``first_rows``.
            What cannot be known is ``None``.
        """
        ids, texts = np.concatenate(self._ids), np.concatenate(self._texts)
        distinct = np.unique(ids, return_index=True)[1]
        total = sum(pool["rows"])
        names = sorted(pool["domains"], key=lambda name: (-self.domains[name], name))
        # All that were selected, so that each budget counts the same domains.
        names = names[: max(MOST_DOMAINS, sum(count > 0 for count in self.domains.values()))]
        in_gap = sum(self.domains[name] for name in under_covered)
        return {
            "rows": self.rows,
            "distinct_rows": len(distinct),
            "duplicate_texts": len(distinct) - len(np.unique(texts[distinct])),
            "domains": {name: self.domains[name] for name in names if self.domains[name]},
            "expected_domains": {name: self.rows * pool["domains"][name] / total for name in names},
            "target_domains": target_domains,
            "under_covered_share": in_gap / self.rows if under_covered else None,
            "length_chars": {
                "selected": quantiles(sorted(self._lengths.items())),
                "pool": quantiles(pool["length_chars"]),
            },
            "first_rows": self.first_rows,
        }


def _hashes(texts: pa.ChunkedArray) -> np.ndarray:
    """Return hashes that are equal for near-copies."""
    return hash_strings(letters_and_digits(texts).combine_chunks())


def domain_shares(rows: Rows) -> dict[str, float] | None:
    """Return the share of each domain, the largest first; ``None`` without domains."""
    if rows.domains is None or rows.domains.null_count == len(rows.domains):
        return None
    counts = sorted(counted(rows.domains).items(), key=lambda item: (-item[1], str(item[0])))
    return {str(name): count / len(rows) for name, count in counts}


def letters_and_digits(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return only letters and digits, in lower case: equal for near-copies."""
    words = pc.replace_substring_regex(
        pc.utf8_lower(texts), pattern=r"[^\p{L}\p{N}]+", replacement=" "
    )
    return pc.utf8_trim_whitespace(words)


def quantiles(counts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Interpolate quantiles from pairs of value and count, values ascending."""
    values, number = np.array(counts, dtype=np.int64).T
    ends = np.cumsum(number)
    first_and_last = np.column_stack([ends - number, ends - 1]).ravel()
    positions = np.multiply(QUANTILES, ends[-1] - 1)
    found = np.interp(positions, first_and_last, values.repeat(2))
    names = (f"q{round(100 * q):02d}" for q in QUANTILES)
    return dict(zip(names, found.tolist(), strict=True))


def jaccard(one: Iterable[str], other: Iterable[str]) -> float:
    """Return the ids in both selections over the ids in either, each counted once."""
    a, b = set(one), set(other)
    return len(a & b) / max(1, len(a | b))


def coverage(
    best: Best, budget: int, candidates: Sequence[Rows], target: Rows, seed: int
) -> dict[str, Any] | None:
    """Measure how near the target's points are to the selection, and to a random one.

    A selection can be near the target on average and still leave parts of it uncovered:
    then ``mean_distance`` is low and ``share_nearer`` is low too.

    Args:
        best: The ranking.
        budget: Rows of it that are selected.
        candidates: The pool.
        target: The target.
        seed: Seed of the random selection.

    Returns:
        ``mean_distance``, the mean Euclidean distance of a target point to the nearest
        selected row; ``mean_distance_random``, the same for as many random rows;
        ``share_nearer``, the share of target points nearer to the selection than to the
        random rows; ``rows`` and ``targets`` that were measured. Rows of zeros, which the
        encoder could not read, are left out. ``None`` if nothing has an embedding.
    """
    if target.embeddings is None or any(shard.embeddings is None for shard in candidates):
        return None
    import torch  # not sklearn, whose import costs as much as a small selection

    rows = min(budget, COVERAGE_ROWS)
    positions = np.linspace(0, budget - 1, rows).astype(np.int64)
    points = np.linspace(0, len(target) - 1, min(len(target), COVERAGE_TARGETS)).astype(np.int64)
    wanted = _readable(np.asarray(target.embeddings)[points])
    # By position: no id has to be read for a random selection.
    ends = np.cumsum([len(shard) for shard in candidates])
    numbers = np.random.default_rng(seed).choice(ends[-1], size=rows, replace=False)
    shard = np.searchsorted(ends, numbers, side="right")
    random = np.column_stack([shard, numbers - np.r_[0, ends][shard]])
    chosen = [
        _readable(embeddings_of(candidates, where)) for where in (best.where[positions], random)
    ]
    if not all(map(len, (wanted, *chosen))):
        return None
    parts = torch.from_numpy(wanted).split(COVERAGE_TARGETS // 8)
    selected, at_random = (
        torch.cat([torch.cdist(part, torch.from_numpy(rows)).amin(1) for part in parts]).numpy()
        for rows in chosen
    )
    return {
        "mean_distance": float(selected.mean()),
        "mean_distance_random": float(at_random.mean()),
        "share_nearer": float((selected < at_random).mean()),
        "rows": rows,
        "targets": len(wanted),
    }


def _readable(embeddings: np.ndarray) -> np.ndarray:
    """Return the rows that are not zero."""
    return embeddings[embeddings.any(axis=1)]


def excerpt(text: str, length_chars: int = EXCERPT_CHARS) -> str:
    """Cut a text to one printable line, which is not escaped for anything yet."""
    text = text[: 100 * length_chars]  # a row may be a book
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= length_chars else line[: length_chars - 1].rstrip() + "…"


def plain_excerpt(text: str, length_chars: int = EXCERPT_CHARS) -> str:
    """Cut a text to one printable line in which no page or terminal interprets anything."""
    return html.escape(excerpt(text, length_chars), quote=False)
