import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from gotd.selectors import mmd_herding
from gotd.selectors.contract import ENGINE, POOL, TARGET
from gotd.selectors.mmd import MMD
from gotd.selectors.mmd_herding import MMDHerding

BOTH = np.vstack([POOL.embeddings, TARGET.embeddings]).astype(np.float64)
N = len(POOL)


def by_brute_force(kernel: str, weight: float, limit: int) -> list[str]:
    """Take rows one by one, each time with MMD^2 of every mixture from the definition."""
    distance = cdist(BOTH, BOTH)
    gram = (
        -distance
        if kernel == "energy"
        else np.exp(-(distance**2) / (2 * np.median(pdist(BOTH)) ** 2))
    )
    signed = np.concatenate([np.full(N, (1 - weight) / N), np.full(len(TARGET), -1 / len(TARGET))])
    counts, ids, taken = np.zeros(N), np.array(POOL.ids.to_pylist()), []
    while len(taken) < limit:
        values = np.full(N, np.inf)
        for row in set(range(N)) - set(taken):
            share = counts.copy()
            share[row] += 1
            masses = signed.copy()
            masses[:N] += weight * share / share.sum()
            values[row] = masses @ gram @ masses
        ties = np.flatnonzero(values <= values.min() + 1e-14)
        row = ties[np.argmin(ids[ties])]
        taken.append(int(row))
        counts[row] += 1
    return ids[taken].tolist()


@pytest.mark.parametrize("kernel", ["rbf", "energy"])
@pytest.mark.parametrize("weight", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("shortlist", [4096, 12])
def test_each_step_takes_the_row_that_brings_the_mixture_nearest(
    monkeypatch, kernel, weight, shortlist
):
    monkeypatch.setattr(mmd_herding, "SHORTLIST", shortlist)
    found = MMDHerding(kernel=kernel, weight=weight).rank(TARGET, [POOL], 40, 0, ENGINE)
    assert found.ids.to_pylist() == by_brute_force(kernel, weight, 40)
    assert found.scores.tolist() == list(range(1, 41))
    assert found.diagnostics["passes"] < 40 or shortlist == 12


def test_a_small_weight_begins_like_the_gradient():
    gradient = MMD().rank(TARGET, [POOL], 5, 0, ENGINE)
    herding = MMDHerding(weight=1e-6).rank(TARGET, [POOL], 5, 0, ENGINE)
    assert herding.ids.to_pylist() == gradient.ids.to_pylist()


def test_float32_takes_nearly_the_same_rows():
    exact = MMDHerding().rank(TARGET, [POOL], 60, 0, ENGINE).ids.to_pylist()
    rounded = MMDHerding(precision="float32").rank(TARGET, [POOL], 60, 0, ENGINE).ids.to_pylist()
    assert len(set(exact) & set(rounded)) >= 57


@pytest.mark.parametrize("weight", [0.0, 1.1])
def test_the_weight_is_checked(weight):
    with pytest.raises(ValueError, match="weight"):
        MMDHerding(weight=weight)
