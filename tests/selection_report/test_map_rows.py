"""The rows of a map: which ones, where they are, and how little of them is read."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.selection_report import map_rows
from gotd.selection_report.map_rows import selection_map
from gotd.selectors.topk import Best


def rows(prefix: str, vectors: np.ndarray | None, texts: list[str] | None = None) -> Rows:
    count = len(texts or vectors)  # type: ignore[arg-type]
    ids = pa.array([f"{prefix}{n}" for n in range(count)])
    given = texts or [f"text of {one}" for one in ids.to_pylist()]
    domains = pa.array([f"domain {n % 3}" for n in range(count)])
    return Rows(ids, pa.array(given, pa.large_string()), domains, vectors)


def vectors(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, 6)) * [3, 2, 1, 0.5, 0.2, 0.1]).astype(np.float32)


def best(shards: list[Rows], where: list[tuple[int, int]]) -> Best:
    ids = pa.array([shards[shard].ids[row].as_py() for shard, row in where])
    shard, row = np.array(where).T
    return Best(ids, np.arange(len(where), dtype=float), shard, row)


def draw(shards: list[Rows], target: Rows, budget: int = 5, **more):
    ends = np.cumsum([len(shard) for shard in shards])
    number = np.arange(min(30, ends[-1]))
    shard = np.searchsorted(ends, number, side="right")
    where = list(zip(shard.tolist(), (number - np.r_[0, ends][shard]).tolist(), strict=True))
    ranking = best(shards, where)
    return selection_map(ranking, budget, shards, target, space="made", domains={}, **more)


def test_the_places_are_principal_components_of_both_sides_with_equal_weight():
    pool, target = rows("p", vectors(200, 0)), rows("t", vectors(20, 1) + np.float32(1))
    drawn = draw([pool], target)
    sides = [np.asarray(side.embeddings, np.float64) for side in (pool, target)]
    centre = (sides[0].mean(0) + sides[1].mean(0)) / 2
    moments = [(side - centre).T @ (side - centre) / len(side) for side in sides]
    values, axes = np.linalg.eigh(sum(moments))
    found = np.array([[point.x, point.y] for point in drawn.target])
    texts = [point.text for point in drawn.target]
    order = [texts.index(text) for text in target.texts.to_pylist()]
    expected = (sides[1] - centre) @ axes[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(found[order]), np.abs(expected), atol=1e-5)
    assert drawn.explained == pytest.approx(values[-2:].sum() / values.sum())
    assert drawn.rows == (200, 20, 5)
    assert sorted(point.rank for point in drawn.selected) == [1, 2, 3, 4, 5]


def test_the_sample_does_not_depend_on_shards(monkeypatch):
    monkeypatch.setattr(map_rows, "POOL_ROWS", 40)
    monkeypatch.setattr(map_rows, "SELECTED_ROWS", 3)
    pool, target = rows("p", vectors(200, 0)), rows("t", vectors(20, 1))
    drawn = draw([pool], target)
    assert (len(drawn.pool), len(drawn.selected)) == (40, 3)
    assert draw([pool.slice(0, 7), pool.slice(7)], target) == drawn
    assert draw([pool], target) == drawn
    texts = pool.texts.to_pylist()
    ranks = {f"text of p{rank - 1}": rank for rank in range(1, 6)}
    assert all(ranks[point.text] == point.rank for point in drawn.selected)
    assert [texts.index(point.text) for point in drawn.pool] != list(range(40))


def test_rows_without_vectors_have_a_map_only_where_something_embeds_them():
    pool, target = rows("p", None, ["b a"] * 4), rows("t", None, ["a b", "", "b b"])
    assert draw([pool], target, 2) is None
    read = []

    def embed(texts):
        read.extend(texts)
        return np.array([[text.count("a"), text.count("b")] for text in texts], np.float32)

    drawn = draw([pool], target, 2, embed=embed, length_chars=1)
    assert drawn is not None
    assert set(read) == {"a", "b", ""}  # no more than it reads of the pool
    assert drawn.unreadable == 1
    assert len(drawn.target) == 2
    assert draw([pool], rows("t", None, [""]), 2, embed=embed) is None


def test_one_row_and_equal_rows_have_a_place():
    one = np.ones((1, 1), np.float32)
    drawn = draw([rows("p", one)], rows("t", one), 1)
    assert [(point.x, point.y) for point in (*drawn.pool, *drawn.selected)] == [(0, 0)] * 2
    assert drawn.explained is None
    equal = np.full((9, 6), np.float32(0.1))
    assert draw([rows("p", equal)], rows("t", equal), 1).explained is None


def test_only_the_beginning_of_a_long_text_is_read():
    texts = ["é" * 20_000_000, "short\u202e\n text"]
    pool, target = rows("p", vectors(2, 0), texts), rows("t", vectors(2, 1))
    tracemalloc.start()
    drawn = draw([pool], target, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    found = sorted(point.text for point in drawn.pool)
    assert found == ["short text", "é" * (map_rows.TEXT_CHARS - 1) + "…"]
