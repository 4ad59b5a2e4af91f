"""What was chosen, beside what chance would have chosen.

Users of data selection ask first which corpus dominates, whether rows repeat, how
long they are and what they look like; one report per selection answers that.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import LocalEngine
from gotd.selectors.base import smallest

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
EXCERPT_CHARS = 240


def selection_report(
    rows: pa.Table,
    candidates: Sequence[Rows],
    target: Rows,
    *,
    under_covered: Sequence[str] = (),
    others: Mapping[str, pa.Array] | None = None,
    first: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """Describe a selection beside its pool.

    Args:
        rows: The selected rows, best first, with columns ``id`` and ``score``;
            an id may repeat. The budget is their number.
        candidates: The whole pool.
        target: What was selected for; with embeddings on both sides the coverage of
            the target is measured, with domains its mixture is given.
        under_covered: Domains that the base model lacks, where known.
        others: Ids chosen by other arms, by the arm's name.
        first: Rows to show.
        seed: Seed of the random selection that coverage is compared with.

    Returns:
        A JSON-able dictionary: ``rows``, ``distinct_rows``, ``domains`` (rows per
        domain), ``expected_domains`` (mean under random choice), ``target_domains``
        (shares), ``under_covered_share``, ``lengths``, ``duplicate_texts``,
        ``overlap``, ``coverage`` and ``first_rows``. What cannot be known is ``None``.

    Raises:
        ValueError: If a selected id is not in the pool.
    """
    chosen = _join(rows["id"], candidates)
    domains = _counts(chosen["domain"])
    return {
        "rows": rows.num_rows,
        "distinct_rows": len(pc.unique(rows["id"])),
        "domains": domains,
        "expected_domains": _expected(candidates, rows.num_rows),
        "target_domains": None if target.domains is None else _shares(target.domains),
        "under_covered_share": _share_in(domains, under_covered, rows.num_rows),
        "lengths": {
            "selected": _lengths([chosen["text"]]),
            "pool": _lengths([shard.texts for shard in candidates]),
        },
        "duplicate_texts": _duplicate_texts(chosen),
        "overlap": {name: jaccard(rows["id"], ids) for name, ids in sorted((others or {}).items())},
        "coverage": coverage(rows["id"], candidates, target, seed),
        "first_rows": _first_rows(rows, chosen, first),
    }


def jaccard(one: pa.ChunkedArray | pa.Array, other: pa.ChunkedArray | pa.Array) -> float:
    """Divide the ids in both selections by the ids in either, each counted once."""
    a, b = set(one.to_pylist()), set(other.to_pylist())
    return len(a & b) / max(1, len(a | b))


def coverage(
    ids: pa.ChunkedArray | pa.Array, candidates: Sequence[Rows], target: Rows, seed: int
) -> dict[str, Any] | None:
    """Measure how near the target's points are to the selection.

    For every target point, the Euclidean distance to the nearest selected row and to
    the nearest row of a random selection with as many distinct rows. A selection can
    be near the target as a whole and still leave parts of it uncovered: then the mean
    is low and many points are ``farther`` than by chance.

    Args:
        ids: Selected ids.
        candidates: The pool.
        target: The target.
        seed: Seed of the random selection, a hash of (seed, id).

    Returns:
        ``mean_distance``, ``mean_distance_random``, and ``share_nearer``, the share of
        target points that are nearer to the selection than to the random one; ``None``
        without embeddings.
    """
    # Imported here: text-only arms report without the compiler behind it.
    from gotd.selectors.neighbours import nearest_distances

    pool = [shard.embeddings for shard in candidates]
    if target.embeddings is None or any(rows is None for rows in pool):
        return None
    distinct = pc.unique(ids)
    chance = [uniform_by_id(shard.ids, seed, "coverage") for shard in candidates]
    random_ids, _ = smallest(chance, [shard.ids for shard in candidates], len(distinct))
    engine = LocalEngine()
    found = []
    for wanted in (distinct, random_ids):
        selected = _embeddings_of(wanted, candidates)
        found.append(np.sqrt(nearest_distances(selected, [target], engine)[0]))
    return {
        "mean_distance": float(found[0].mean()),
        "mean_distance_random": float(found[1].mean()),
        "share_nearer": float((found[0] < found[1]).mean()),
    }


def _join(ids: pa.ChunkedArray, candidates: Sequence[Rows]) -> pa.Table:
    """Look up text and domain of the selected ids, in their order."""
    wanted = pc.unique(ids)
    parts = []
    for shard in candidates:
        kept = pc.is_in(shard.ids, value_set=wanted)
        nothing = pa.nulls(len(shard), pa.string())
        table = pa.table(
            {
                "id": shard.ids.cast(pa.string()),
                "text": shard.texts.cast(pa.large_string()),
                "domain": nothing if shard.domains is None else shard.domains.cast(pa.string()),
            }
        )
        parts.append(table.filter(kept))
    found = pa.concat_tables(parts)
    place = pc.index_in(ids, value_set=found["id"].combine_chunks())
    if place.null_count:
        missing = ids.filter(pc.is_null(place))[0].as_py()
        raise ValueError(f"selected row {missing!r} is not among the candidates")
    return found.take(place)


def _embeddings_of(ids: pa.Array, candidates: Sequence[Rows]) -> np.ndarray:
    parts = []
    for shard in candidates:
        kept = np.flatnonzero(pc.is_in(shard.ids, value_set=ids))
        if len(kept) and shard.embeddings is not None:
            parts.append(np.asarray(shard.embeddings[kept], dtype=np.float32))
    return np.concatenate(parts)


def _counts(domains: pa.ChunkedArray | pa.Array) -> dict[str, int] | None:
    if domains.null_count == len(domains):
        return None
    counted = pc.value_counts(domains)
    pairs = ((row["values"].as_py(), row["counts"].as_py()) for row in counted)
    return {str(name): count for name, count in sorted(pairs, key=lambda p: (-p[1], str(p[0])))}


def _shares(domains: pa.ChunkedArray | pa.Array, total: int = 1) -> dict[str, float] | None:
    """Share of each domain, times ``total``."""
    counts = _counts(domains)
    if counts is None:
        return None
    return {name: total * count / len(domains) for name, count in counts.items()}


def _expected(candidates: Sequence[Rows], budget: int) -> dict[str, float] | None:
    known = [shard.domains for shard in candidates if shard.domains is not None]
    if len(known) < len(candidates):
        return None
    return _shares(pa.chunked_array(known), budget)


def _share_in(
    domains: dict[str, int] | None, under_covered: Sequence[str], budget: int
) -> float | None:
    if domains is None or not under_covered:
        return None
    return sum(domains.get(name, 0) for name in under_covered) / budget


def _lengths(texts: Sequence[pa.Array | pa.ChunkedArray]) -> dict[str, dict[str, float]]:
    """Quantiles of the length in characters and in words (runs of non-spaces)."""
    measures = {"chars": pc.utf8_length, "words": _count_words}
    found = {}
    for unit, measure in measures.items():
        values = np.concatenate([measure(array).to_numpy(zero_copy_only=False) for array in texts])
        quantiles = np.quantile(values, QUANTILES)
        found[unit] = {
            f"q{round(100 * q):02d}": float(v) for q, v in zip(QUANTILES, quantiles, strict=True)
        }
    return found


def _count_words(texts: pa.Array) -> pa.Array:
    return pc.count_substring_regex(texts, pattern=r"\S+")


def _duplicate_texts(chosen: pa.Table) -> int:
    """Count distinct rows whose letters and digits repeat those of an earlier row."""
    texts = chosen.group_by("id").aggregate([("text", "min")])["text_min"]
    bare = pc.replace_substring_regex(
        pc.utf8_lower(texts), pattern=r"[^\p{L}\p{N}]+", replacement=" "
    )
    return len(texts) - len(pc.unique(pc.utf8_trim_whitespace(bare)))


def _first_rows(rows: pa.Table, chosen: pa.Table, first: int) -> list[dict[str, Any]]:
    """Show the first rows; ``excerpt`` is escaped and can stand in HTML as it is."""
    shown = []
    for rank, (row, found) in enumerate(
        zip(rows.slice(0, first).to_pylist(), chosen.slice(0, first).to_pylist(), strict=True), 1
    ):
        shown.append(
            {
                "rank": rank,
                "id": row["id"],
                "domain": found["domain"],
                "score": float(row["score"]),
                "excerpt": plain_excerpt(found["text"]),
            }
        )
    return shown


def plain_excerpt(text: str, length_chars: int = EXCERPT_CHARS) -> str:
    """Cut a text to one printable line that no page or terminal will interpret."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    cut = line if len(line) <= length_chars else line[: length_chars - 1].rstrip() + "…"
    return html.escape(cut)
