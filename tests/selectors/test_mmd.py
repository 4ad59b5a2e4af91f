import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.selectors.contract import ENGINE, POOL, TARGET
from gotd.selectors.mmd import MMD


def squared_distance(kernel: str, masses: np.ndarray) -> float:
    """MMD^2 between the pool with masses and the target, from the definition."""
    x, y = (np.asarray(rows.embeddings, dtype=np.float64) for rows in (POOL, TARGET))
    both = np.vstack([x, y])
    signed = np.concatenate([masses, np.full(len(y), -1.0 / len(y))])
    distance = cdist(both, both)
    if kernel == "energy":
        return -float(signed @ distance @ signed)
    return float(signed @ np.exp(-(distance**2) / (2 * np.median(pdist(both)) ** 2)) @ signed)


def derivative(kernel: str, row: int, step: float = 1e-4) -> float:
    """How MMD^2 changes when mass moves onto a row, evenly from all others."""
    n = len(POOL)
    towards = np.full(n, -1.0 / (n - 1))
    towards[row] = 1.0
    equal = np.full(n, 1.0 / n)
    ends = [squared_distance(kernel, equal + side * step * towards) for side in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("kernel", ["rbf", "energy"])
def test_scores_are_finite_differences_of_the_squared_distance(kernel):
    found = MMD(kernel=kernel).scores(TARGET, [POOL], 0, ENGINE).values[0]
    rows = range(0, len(POOL), 7)
    expected = [derivative(kernel, row) for row in rows]
    np.testing.assert_allclose(found[list(rows)], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kernel", ["rbf", "energy"])
def test_more_mass_on_the_best_rows_reduces_the_distance(kernel):
    scores = MMD(kernel=kernel).scores(TARGET, [POOL], 0, ENGINE).values[0]
    equal = np.full(len(POOL), 1.0 / len(POOL))
    best = np.where(scores < np.quantile(scores, 0.1), 1.0, 0.0)
    moved = 0.99 * equal + 0.01 * best / best.sum()
    assert squared_distance(kernel, moved) < squared_distance(kernel, equal)


@pytest.mark.parametrize("kernel", ["rbf", "energy"])
def test_a_row_of_the_sample_is_compared_with_the_others(kernel):
    found = MMD(kernel=kernel, pool_rows=40).scores(TARGET, [POOL], 3, ENGINE)
    x, y = (np.asarray(rows.embeddings, dtype=np.float64) for rows in (POOL, TARGET))
    sample = np.argsort(uniform_by_id(POOL.ids, 3, "mmd pool"))[:40]

    def similarity(points: np.ndarray) -> np.ndarray:
        if kernel == "energy":
            return -cdist(x, points)
        width = found.diagnostics["kernel_width"]
        return np.exp(-cdist(x, points, "sqeuclidean") / (2 * width**2))

    others = np.arange(len(x))[:, None] != sample
    pool = (similarity(x[sample]) * others).sum(axis=1) / others.sum(axis=1)
    h = 2 * (pool - similarity(y).mean(axis=1))
    n = len(x)
    np.testing.assert_allclose(found.values[0], n / (n - 1) * (h - h.mean()), atol=1e-7)


def test_a_pool_of_one_text_has_no_width():
    rows = np.repeat(POOL.embeddings[:1], len(POOL), axis=0)
    same = Rows(POOL.ids, POOL.texts, POOL.domains, rows)
    with pytest.raises(ValueError, match="mmd: half of the pairs"):
        MMD().rank(TARGET.slice(0, 3), [same], 3, 0, ENGINE)
    assert len(MMD(kernel="energy").rank(TARGET, [same], 3, 0, ENGINE).ids) == 3


@pytest.mark.parametrize("wrong", [{"kernel": "laplace"}, {"pool_rows": 1}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MMD(**wrong)
