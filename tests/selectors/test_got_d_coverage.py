"""Whether the parts of a target all get their share."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.got_d import GotD
from gotd.selectors.got_d_clusters import GotDClusters, cluster, take_turns
from gotd.selectors.got_d_path import GotDPath

ENGINE = LocalEngine()
MODES = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 5.0]])
TARGET_SHARES = np.array([0.5, 0.3, 0.2, 0.0])
POOL_SHARES = np.array([0.3, 0.05, 0.05, 0.6])


def shard(modes: np.ndarray, prefix: str, seed: int) -> Rows:
    rows = MODES[modes] + 0.4 * np.random.default_rng(seed).normal(size=(len(modes), 3))
    names = pa.array([f"{prefix}{mode}-{i:04d}" for i, mode in enumerate(modes)])
    return Rows(names, names, embeddings=rows.astype(np.float32))


@pytest.fixture(scope="module")
def pool() -> Rows:
    return shard(np.repeat(np.arange(4), (1200 * POOL_SHARES).astype(int)), "c", 0)


@pytest.fixture(scope="module")
def target() -> Rows:
    return shard(np.repeat(np.arange(4), (100 * TARGET_SHARES).astype(int)), "t", 1)


def shares(selector, target: Rows, pool: Rows, budget: int = 50) -> np.ndarray:
    names = selector.rank(target, [pool], budget, 0, ENGINE).ids.to_pylist()
    return np.bincount([int(name[1]) for name in names], minlength=4) / budget


def test_got_d_serves_one_part_of_the_target_first(target, pool):
    assert shares(GotD(), target, pool).max() == 1.0


def test_a_path_serves_every_part(target, pool):
    got = shares(GotDPath(weight=0.9, first=5, growth=0.15), target, pool)
    np.testing.assert_allclose(got, TARGET_SHARES, atol=0.1)


def test_a_path_through_a_pool_that_is_sampled_serves_every_part_too(target):
    """The few taken rows hold most of the mixture's mass: the reference sample needs them."""
    large = shard(np.repeat(np.arange(4), (6000 * POOL_SHARES).astype(int)), "c", 0)
    path = GotDPath(weight=0.9, first=5, growth=0.15, reference_rows=600)
    ranking = path.rank(target, [large], 50, 0, ENGINE)
    assert ranking.diagnostics["marginal_error"] <= path.tolerance
    got = shares(path, target, large)
    np.testing.assert_allclose(got, TARGET_SHARES, atol=0.1)


def test_the_weight_decides_when_a_part_has_enough(target, pool):
    got = shares(GotDPath(weight=0.5, first=5, growth=0.0), target, pool, 80)
    enough = (TARGET_SHARES - 0.5 * POOL_SHARES) / 0.5
    # Together more than all: the two that lie farthest off are filled, one has the rest.
    wanted = [1.0 - enough[1] - enough[2], enough[1], enough[2], 0.0]
    np.testing.assert_allclose(got, wanted, atol=0.08)


def test_the_default_weight_fills_the_farthest_parts_and_does_not_repeat_the_target(target, pool):
    """The mixture is .7 of the pool, so less is missing than is taken."""
    got = shares(GotDPath(first=5, growth=0.15), target, pool)
    assert got.max() < 0.8  # GOT-D takes one part alone
    assert np.count_nonzero(got) < 4  # a weight near 1 has all parts


def test_a_small_weight_leaves_the_collapse_as_it_is(target, pool):
    assert shares(GotDPath(weight=0.05), target, pool).max() == 1.0


def test_a_path_of_one_step_is_got_d(target, pool):
    one = GotDPath(first=80).rank(target, [pool], 80, 0, ENGINE)
    assert one.ids.equals(GotD().rank(target, [pool], 80, 0, ENGINE).ids)
    assert one.diagnostics["steps"] == 1
    assert (one.scores == 1.0).all()


@pytest.mark.parametrize("clusters", [3, 8, 1000])
def test_clusters_serve_every_part(target, pool, clusters):
    got = shares(GotDClusters(clusters=clusters), target, pool, 100)
    np.testing.assert_allclose(got, TARGET_SHARES, atol=0.05)


def test_one_cluster_is_got_d(target, pool):
    one = GotDClusters(clusters=1).rank(target, [pool], 80, 0, ENGINE)
    assert one.ids.equals(GotD().rank(target, [pool], 80, 0, ENGINE).ids)


def test_turns_are_in_proportion_and_skip_what_is_taken():
    orders = [pa.array([f"a{i}" for i in range(9)]), pa.array(["a0", *(f"b{i}" for i in range(8))])]
    ids, turns = take_turns(orders, [2, 1], 9)
    assert ids.to_pylist() == ["a0", "b0", "a1", "a2", "b1", "a3", "a4", "b2", "a5"]
    assert (np.diff(turns) >= 0).all()


def test_blobs_are_found_and_equal_rows_stay_together():
    modes = np.random.default_rng(0).integers(3, size=200)
    rows = MODES[modes] + 0.1 * np.random.default_rng(1).normal(size=(200, 3))
    label = cluster(rows, 3, seed=0)
    assert len(set(zip(label, modes, strict=True))) == 3
    assert len(set(cluster(np.repeat(MODES, 5, axis=0), 100, seed=0))) == 4


@pytest.mark.parametrize(
    ("arm", "change", "message"),
    [
        (GotDPath(), {"weight": 1.0}, "weight"),
        (GotDPath(), {"first": 0}, "first"),
        (GotDPath(), {"growth": -0.1}, "growth"),
        (GotDPath(), {"epsilon": 0.0}, "got_d_path: epsilon"),
        (GotDClusters(), {"clusters": 0}, "clusters"),
        (GotDClusters(), {"cost": "l1"}, "got_d_clusters: cost"),
    ],
)
def test_bad_settings_are_refused(arm, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(arm, **change)
