"""The k best are those of a plain sort, for any scores, shards and ties."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd.engine.local import LocalEngine
from gotd.selectors import topk as threshold
from gotd.selectors.topk import smallest, smallest_rows
from gotd.storage.memmap import open_array

TINY = np.nextafter(0.0, 1.0)
ANY = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1.0, np.inf, -np.inf, TINY, -TINY]),
    st.floats(allow_nan=False),
)


def plainly(scores, ids, limit):
    rows = [
        (score, name.encode(), shard, row)
        for shard, (values, names) in enumerate(zip(scores, ids, strict=True))
        for row, (score, name) in enumerate(zip(values, names.to_pylist(), strict=True))
    ]
    return sorted(rows)[:limit]


def cut(values, edges):
    return [np.array(part) for part in np.split(np.array(values, dtype=np.float64), edges)]


def check(scores, ids, limit, workers=1):
    best = smallest_rows(scores, ids, limit, LocalEngine(workers))
    expected = plainly(scores, ids, limit)
    assert best.ids.to_pylist() == [name.decode() for _, name, _, _ in expected]
    assert best.scores.tolist() == [score for score, _, _, _ in expected]
    assert best.shard.tolist() == [shard for _, _, shard, _ in expected]
    assert best.row.tolist() == [row for _, _, _, row in expected]


@pytest.mark.parametrize("slack", [0, 3, 1 << 16])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_is_the_plain_sort(slack, data):
    values = data.draw(st.lists(ANY, min_size=1, max_size=40))
    edges = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=3)))
    names = data.draw(st.permutations([f"é{row:02d}" for row in range(len(values))]))
    ids = [pa.array(part.tolist(), pa.string()) for part in np.split(np.array(names), edges)]
    limit = data.draw(st.integers(1, len(values)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold, "SLACK_ROWS", slack)
        check(cut(values, edges), ids, limit)


def test_near_values_are_told_apart_to_the_last_bit(monkeypatch):
    monkeypatch.setattr(threshold, "SLACK_ROWS", 0)
    values = [1.0]
    for _ in range(200):
        values.append(float(np.nextafter(values[-1], 2.0)))
    order = np.random.default_rng(0).permutation(len(values))
    scores = cut(np.array(values)[order], [50, 51, 120])
    ids = [pa.array([f"{n}-{i}" for i in range(len(s))], pa.string()) for n, s in enumerate(scores)]
    for limit in (1, 57, 200, 201):
        check(scores, ids, limit, workers=2)


def test_a_crowd_of_ties_is_never_held_whole(monkeypatch):
    monkeypatch.setattr(threshold, "SLACK_ROWS", 4)
    held = []
    first = threshold._first
    monkeypatch.setattr(
        threshold, "_first", lambda kept, limit: (held.append(len(kept)), first(kept, limit))[1]
    )
    scores = [np.full(20, 0.5) for _ in range(50)]
    ids = [pa.array([f"{(7 * (20 * s + i)) % 1000:04d}" for i in range(20)]) for s in range(50)]
    check(scores, ids, 5)
    assert max(held) <= 2 * (5 + 4) + 20


def test_a_score_that_is_nan_is_an_error():
    with pytest.raises(ValueError, match="NaN"):
        smallest([np.r_[np.zeros(50), np.nan]], [pa.array([f"{i}" for i in range(51)])], 3)


def test_scores_may_stand_in_files(tmp_path):
    values = np.random.default_rng(2).normal(size=(3, 40))
    for number, row in enumerate(values):
        np.save(tmp_path / f"{number}.npy", row)
    files = [open_array(tmp_path / f"{number}.npy") for number in range(3)]
    ids = [pa.array([f"{n}-{i}" for i in range(40)]) for n in range(3)]
    check(files, ids, 17)
