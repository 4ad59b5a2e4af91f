import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.neighbours import gather, nearest_distances, nearest_neighbours

ENGINE = LocalEngine()


def shard(rows, prefix):
    ids = pa.array([f"{prefix}{i:04d}" for i in range(len(rows))])
    return Rows(ids, ids, None, np.asarray(rows, dtype=np.float32))


def brute_force(target, pool, k):
    exact = np.square(target[:, None].astype(np.float64) - pool[None]).sum(axis=2)
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(exact, order, axis=1), order


@pytest.mark.parametrize("k", [1, 5, 90])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_it_agrees_with_brute_force(k, offset):
    # At offset 1000 float32 products have no digits left; the check must notice.
    rng = np.random.default_rng(0)
    target, pool = (
        shard(rng.normal(size=(7, 4)) + offset, "t"),
        shard(rng.normal(size=(400, 4)) + offset, "c"),
    )
    found = nearest_neighbours(target, [pool], k, ENGINE)
    distances, rows = brute_force(target.embeddings, pool.embeddings, k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)


def test_many_equal_rows_are_taken_in_the_order_of_ids():
    rows = np.zeros((300, 3))
    rows[::3] = 1.0
    pool = shard(rows, "c")
    backwards = Rows(pool.ids[::-1], pool.texts[::-1], None, pool.embeddings[::-1].copy())
    found = nearest_neighbours(shard([[1, 1, 1]], "t"), [backwards], 10, ENGINE)
    assert backwards.ids.take(pa.array(found.rows[0])).to_pylist() == [
        f"c{i:04d}" for i in range(0, 30, 3)
    ]


def test_order_numbers_the_found_rows_by_id():
    rng = np.random.default_rng(1)
    pool = shard(rng.normal(size=(50, 2)), "c")
    found = nearest_neighbours(shard(rng.normal(size=(4, 2)), "t"), [pool], 6, ENGINE)
    unique = np.unique(found.rows)
    np.testing.assert_array_equal(unique[found.order], found.rows)


def test_targets_stand_in_the_order_of_their_ids():
    pool, target = shard([[0.0], [5.0]], "c"), shard([[0.1], [5.1]], "t")
    swapped = Rows(target.ids[::-1], target.texts[::-1], None, target.embeddings[::-1].copy())
    for given in (target, swapped):
        assert nearest_neighbours(given, [pool], 1, ENGINE).rows.tolist() == [[0], [1]]


def test_normalising_ranks_by_angle():
    pool = shard([[10, 1], [0.1, 0.1]], "c")
    target = shard([[2, 2]], "t")
    assert nearest_neighbours(target, [pool], 1, ENGINE, normalise=True).rows[0, 0] == 1
    zero = shard([[1, 0], [0, 0]], "c")
    with pytest.raises(ValueError, match="c0001"):
        nearest_neighbours(target, [zero], 1, ENGINE, normalise=True)


def test_gather_counts_rows_through_the_shards():
    rows = np.arange(20).reshape(10, 2)
    shards = [shard(part, "c") for part in np.split(rows, [3, 3, 9])]
    np.testing.assert_array_equal(gather(shards, np.array([9, 0, 3, 3])), rows[[9, 0, 3, 3]])


def test_nearest_distances_agree_with_brute_force():
    rng = np.random.default_rng(2)
    target, pool = rng.normal(size=(6, 3)), shard(rng.normal(size=(40, 3)), "c")
    found = nearest_distances(target, [pool], ENGINE)[0]
    exact, _ = brute_force(pool.embeddings, target.astype(np.float32), 1)
    np.testing.assert_allclose(found, exact[:, 0], rtol=1e-9)


def test_more_neighbours_than_candidates_are_refused():
    with pytest.raises(ValueError, match="not 4"):
        nearest_neighbours(shard([[0.0]], "t"), [shard(np.ones((3, 1)), "c")], 4, ENGINE)
