from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import cdist

from gotd.data.rows import Rows
from gotd.selectors import facility_location
from gotd.selectors.contract import ENGINE, POOL, TARGET
from gotd.selectors.facility_location import FacilityLocation, cover

IDS = POOL.ids.to_pylist()


def similarities(left: list[int], k: int, width: float) -> tuple[np.ndarray, float]:
    """``[m, n]`` similarities of every target to its ``k`` nearest rows that are left."""
    cost = cdist(TARGET.embeddings, POOL.embeddings, "sqeuclidean")
    by_id = sorted(left, key=IDS.__getitem__)
    nearest = [sorted(by_id, key=lambda row, j=j: cost[j, row])[:k] for j in range(len(TARGET))]
    width = width or np.mean([cost[j, rows] for j, rows in enumerate(nearest)])
    similarity = np.zeros(cost.shape)
    for j, rows in enumerate(nearest):
        similarity[j, rows] = np.exp(-cost[j, rows] / width)
    return similarity, width


def brute_force(limit: int, k: int) -> tuple[list[str], list[float]]:
    """Ids by greedy over all rows that are left, round by round, and F after each step."""
    taken, values, width = [], [], 0.0
    while len(taken) < limit:
        left = [row for row in range(len(POOL)) if row not in taken]
        similarity, width = similarities(left, k, width)
        chosen: list[int] = []
        while True:
            before = similarity[:, chosen].max(axis=1, initial=0.0)
            gains = {row: np.maximum(similarity[:, row] - before, 0).sum() for row in left}
            best = min(gains, key=lambda row, gains=gains: (-round(gains[row], 12), IDS[row]))
            if gains[best] <= 0:
                break
            chosen.append(best)
            left.remove(best)
            values.append(similarity[:, chosen].max(axis=1).sum())
        taken += chosen
    return [IDS[row] for row in taken[:limit]], values[:limit]


@pytest.mark.parametrize("k", [1, 8, 300])
def test_it_takes_the_rows_of_a_greedy_search_over_all_of_them(k):
    ranking = FacilityLocation(neighbours=k).rank(TARGET, [POOL], 70, 0, ENGINE)
    expected, _ = brute_force(70, k)
    assert ranking.ids.to_pylist() == expected
    np.testing.assert_array_equal(ranking.scores, np.arange(1, 71))


def test_the_value_after_every_step_is_that_of_greedy_and_near_the_optimum():
    k = 20
    ids = FacilityLocation(neighbours=k).rank(TARGET, [POOL], 6, 0, ENGINE).ids.to_pylist()
    similarity, _ = similarities(list(range(len(POOL))), k, 0.0)
    rows = [IDS.index(one) for one in ids]
    values = [similarity[:, rows[: n + 1]].max(axis=1).sum() for n in range(6)]
    np.testing.assert_allclose(values, brute_force(6, k)[1], rtol=1e-6)
    useful = np.argsort(-similarity.sum(axis=0))[:40].tolist()
    optimum = max(similarity[:, list(s)].max(axis=1).sum() for s in combinations(useful, 3))
    assert values[2] >= (1 - 1 / np.e) * optimum


def test_short_lists_are_searched_again(monkeypatch):
    expected = FacilityLocation(neighbours=5).rank(TARGET, [POOL], 200, 0, ENGINE)
    monkeypatch.setattr(facility_location, "LIST_ROWS", 1)
    found = FacilityLocation(neighbours=5).rank(TARGET, [POOL], 200, 0, ENGINE)
    assert found.ids.equals(expected.ids)
    assert found.diagnostics["searches"] > expected.diagnostics["searches"]


def test_a_group_of_equal_targets_gets_one_row_per_round():
    x = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]], dtype=np.float32)
    pool = Rows(pa.array(list("abcde")), pa.array(list("abcde")), None, x)
    y = np.array([[0.0], [0.0], [0.0], [9.0]], dtype=np.float32)
    target = Rows(pa.array(list("vwxy")), pa.array(list("vwxy")), None, y)
    ranking = FacilityLocation(neighbours=2).rank(target, [pool], 5, 0, ENGINE)
    assert ranking.ids.to_pylist() == ["a", "d", "b", "e", "c"]
    assert ranking.diagnostics["rounds"] == 3


def test_a_target_that_is_far_from_every_row_is_covered_too():
    x = np.array([[0.0], [1.0], [2.0]], dtype=np.float32)
    pool = Rows(pa.array(list("abc")), pa.array(list("abc")), None, x)
    y = np.array([[0.0]] * 2000 + [[1e6]], dtype=np.float32)
    ids = pa.array([f"{i:05d}" for i in range(len(y))])
    ranking = FacilityLocation(neighbours=1).rank(Rows(ids, ids, None, y), [pool], 3, 0, ENGINE)
    assert ranking.ids.to_pylist() == ["a", "c", "b"]


def test_rows_that_add_nothing_are_not_taken():
    similarity, rows = np.array([[0.9, 0.9, 0.5]]), np.array([[7, 3, 5]])
    assert cover(similarity, rows, np.array([[2, 0, 1]])).tolist() == [3]


def test_settings_are_checked():
    with pytest.raises(ValueError, match="facility_location: neighbours"):
        FacilityLocation(neighbours=0)
