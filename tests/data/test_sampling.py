"""Draws by id know ids, roles and seeds, and nothing else."""

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.data.sampling import sample_texts, uniform_by_id


def test_chance_knows_ids_only():
    ids = pa.array([f"row-{row}" for row in range(500)])
    whole = uniform_by_id(ids, 3, "order")
    assert np.array_equal(whole[::-1], uniform_by_id(ids[::-1], 3, "order"))
    assert np.array_equal(whole[100:300], uniform_by_id(ids[100:300], 3, "order"))
    assert np.array_equal(whole, uniform_by_id(ids.cast(pa.large_string()), 3, "order"))
    assert len(set(whole)) == 500


def test_chance_is_the_same_next_year():
    """Frozen: a change of these numbers changes every seeded result there is."""
    drawn = uniform_by_id(pa.array(["a", "é"]), 7, "order")
    np.testing.assert_allclose(drawn, (0.6841667181495832, 0.1399972576343796), atol=1e-12)


def test_chance_is_uniform_and_roles_and_seeds_are_independent():
    ids = pa.array([f"{row}" for row in range(20_000)])
    draws = [uniform_by_id(ids, seed, role) for seed, role in ((1, "a"), (2, "a"), (1, "b"))]
    for draw in draws:
        assert draw.dtype == np.float64
        assert 0 < draw.min() < 1e-3
        assert 1 - 1e-3 < draw.max() < 1
        counts = np.bincount((draw * 20).astype(int), minlength=20)
        assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi-square, 19 degrees of freedom
    correlation = np.corrcoef(draws) - np.eye(3)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_a_role_and_a_seed_do_not_run_together():
    ids = pa.array(["a"])
    assert uniform_by_id(ids, 11, "x") != uniform_by_id(ids, 1, "x1")
    assert uniform_by_id(pa.array(["1a"]), 1, "x") != uniform_by_id(pa.array(["a"]), 11, "x")


@pytest.mark.parametrize("rows", [1, 40, 100, 1000])
def test_a_sample_has_the_smallest_draws_in_their_order_wherever_rows_are(rows):
    ids = pa.array([f"row-{row}" for row in range(100)], pa.large_string())
    texts = pa.array([f"text {row}" for row in range(100)], pa.large_string())
    pool = Rows(ids, texts)
    order = np.argsort(uniform_by_id(ids, 3, "sample"))[:rows]
    expected = texts.take(pa.array(order)).to_pylist()
    mixed = pool.take(np.random.default_rng(0).permutation(100))
    for shards in ([pool], [pool.slice(0, 0), pool.slice(90), pool.slice(0, 90)], [mixed]):
        assert sample_texts(shards, rows, 3, "sample") == expected
    assert sample_texts([pool], 40, 4, "sample") != sample_texts([pool], 40, 3, "sample")
    assert sample_texts([pool], 40, 3, "other") != sample_texts([pool], 40, 3, "sample")
