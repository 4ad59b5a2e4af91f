import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.selectors.got_d import GotD
from gotd.selectors.stability import as_markdown, stability


def shard(rows: int, prefix: str, seed: int) -> Rows:
    names = pa.array([f"{prefix}{i:04d}" for i in range(rows)])
    embeddings = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    return Rows(names, names, embeddings=embeddings)


@pytest.fixture(scope="module")
def rows():
    selector = GotD(reference_rows=300, tolerance=2e-3, max_passes=30)
    pool, target = shard(600, "c", 0), shard(30, "t", 1)
    return stability(target, [pool], 60, (0.02, 0.05, 0.5), (0, 1), selector=selector)


def test_every_other_epsilon_and_seed_is_compared(rows):
    assert [(row.epsilon, row.seed) for row in rows] == [(0.02, 0), (0.5, 0), (0.05, 1)]
    assert all(row.marginal_error <= 2e-3 for row in rows)


def test_a_seed_matters_less_than_epsilon(rows):
    near, far, seed = rows
    assert far.overlap < near.overlap < seed.overlap
    assert seed.overlap > 0.95
    assert all(row.jaccard == pytest.approx(row.overlap / (2 - row.overlap)) for row in rows)


def test_a_pool_without_a_sample_has_no_seed():
    pool, target = shard(200, "c", 0), shard(20, "t", 1)
    (row,) = stability(target, [pool], 40, (), (0, 5))
    assert row.overlap == row.jaccard == 1.0


def test_the_table_has_a_line_per_row(rows):
    lines = as_markdown(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert lines[2].startswith("| 0.02 | 0 | ")
