"""What every ranking rests on: order by score then id, chance by id, clear refusals."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd.data.rows import Rows
from gotd.selectors.base import check_request, smallest


def split(scores: np.ndarray, ids: list[str], cuts: list[int]) -> tuple[list, list]:
    """Cut rows into shards at the given places; empty shards are fine."""
    edges = [0, *sorted(cuts), len(ids)]
    pairs = list(zip(edges[:-1], edges[1:], strict=True))
    return [scores[a:b] for a, b in pairs], [pa.array(ids[a:b], pa.string()) for a, b in pairs]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_smallest_is_sorting_by_score_then_id(data):
    """Few distinct scores, so that ties lie across the threshold; any order, any shards."""
    n = data.draw(st.integers(1, 30))
    scores = np.array(
        data.draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, np.inf]), min_size=n, max_size=n))
    )
    ids = data.draw(st.permutations([f"é{row}" for row in range(n)]))
    cuts = data.draw(st.lists(st.integers(0, n), max_size=4))
    limit = data.draw(st.integers(1, n))
    found, best = smallest(*split(scores, list(ids), cuts), limit)
    expected = sorted(zip(scores, ids, strict=True), key=lambda row: (row[0], row[1].encode()))
    assert found.to_pylist() == [name for _, name in expected[:limit]]
    assert best.tolist() == [score for score, _ in expected[:limit]]
    assert best.dtype == np.float64


def test_a_smaller_limit_is_a_prefix():
    random = np.random.default_rng(0)
    scores, ids = split(random.integers(5, size=200) / 5, [f"{i}" for i in range(200)], [50, 120])
    whole, _ = smallest(scores, ids, 200)
    for limit in (1, 7, 199):
        part, best = smallest(scores, ids, limit)
        assert part.equals(whole[:limit])
        assert len(best) == limit


def test_float32_scores_are_compared_as_they_are():
    score = np.float32(0.1)
    ids, best = smallest([np.array([score, np.nextafter(score, np.float32(0))])], [ab()], 2)
    assert ids.to_pylist() == ["b", "a"]
    assert best[1] == float(score)


def ab() -> pa.Array:
    return pa.array(["a", "b"])


def test_a_nan_score_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        smallest([np.array([0.0, np.nan])], [ab()], 1)


class Texts:
    name: ClassVar[str] = "texts"
    requires: ClassVar[frozenset[str]] = frozenset({"texts"})
    reads_target: ClassVar[bool] = True

    def rank(self, target, candidates, limit, seed, engine):
        raise AssertionError


class Vectors(Texts):
    name: ClassVar[str] = "vectors"
    requires: ClassVar[frozenset[str]] = frozenset({"embeddings"})


def shard(n: int, width: int | None = 4, prefix: str = "c") -> Rows:
    ids = pa.array([f"{prefix}{row}" for row in range(n)], pa.string())
    vectors = None if width is None else np.ones((n, width), np.float32)
    return Rows(ids=ids, texts=ids, embeddings=vectors)


def test_a_sound_request_passes():
    check_request(Texts(), shard(2, None), [shard(3, None), shard(2, None, "d")], 5)
    check_request(Vectors(), shard(2), [shard(3), shard(2, prefix="d")], 5)


@pytest.mark.parametrize(
    ("target", "pool", "limit", "says"),
    [
        (shard(0), [shard(3)], 1, "vectors: the target is empty"),
        (shard(2), [shard(3)], 0, "vectors: the budget must be at least 1, not 0"),
        (shard(2), [shard(3)], 4, "budget 4 is larger than the pool of 3 candidates"),
        (shard(2), [], 1, "pool of 0 candidates"),
        (shard(2, None), [shard(3)], 1, "the target have no embeddings; choose an embedder"),
        (shard(2), [shard(3), shard(3, None)], 1, "the candidates have no embeddings"),
        (shard(2, 3), [shard(3, 4)], 1, "differ in width"),
        (shard(2), [shard(3), shard(3, 5)], 1, "differ in width"),
    ],
)
def test_what_cannot_be_answered_is_refused(target, pool, limit, says):
    with pytest.raises(ValueError, match=says):
        check_request(Vectors(), target, pool, limit)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(value):
    target, pool = shard(2), [shard(3), shard(3, prefix="d")]
    embeddings = pool[1].embeddings
    assert embeddings is not None
    embeddings[1, 2] = value
    with pytest.raises(ValueError, match=r"'d1' is not finite \(1 such rows\)"):
        check_request(Vectors(), target, pool, 1)
    check_request(Texts(), target, pool, 1)


@pytest.mark.parametrize("field", ["texts", "domains", "embeddings"])
def test_a_shard_of_unequal_columns_is_refused(field):
    columns = {"texts": pa.array(["t"] * 3), field: np.ones((2, 4), np.float32)}
    with pytest.raises(ValueError, match=f"{field} has 2 rows for 3 ids"):
        Rows(ids=pa.array(["a", "b", "c"]), **columns)
