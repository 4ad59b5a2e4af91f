import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import linprog

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors import density, tsds
from gotd.selectors.density import kernel_density, pool_density
from gotd.selectors.tsds import TSDS, draw, knn_kde, knn_uniform
from gotd.storage.memmap import open_array

ENGINE = LocalEngine()


def solve_lp(distances, density, alpha, scale):
    """The problem of the module docstring, with its maximum as one more variable."""
    m, n = distances.shape
    cost = np.append(alpha / scale * distances.ravel(), (1 - alpha) * m)
    rows = np.hstack([np.kron(np.eye(m), np.ones(n)), np.zeros((m, 1))])
    below = np.hstack([np.diag(np.tile(density, m)), -np.ones((m * n, 1))])
    found = linprog(
        cost, A_ub=below, b_ub=np.zeros(m * n), A_eq=rows, b_eq=np.full(m, 1 / m), method="highs"
    )
    assert found.success
    return found.fun


def objective(mass, distances, density, alpha, scale):
    spread = len(mass) * (mass * density).max()
    return alpha / scale * (mass * distances).sum() + (1 - alpha) * spread


def sorted_problem(m, n, seed, crowded):
    rng = np.random.default_rng(seed)
    distances = rng.random((m, n)) * 4
    density = 1 + 3 * rng.random(n) * crowded
    order = np.argsort(distances, axis=1)
    return distances, density, order, np.take_along_axis(distances, order, axis=1)


def unsort(mass, order):
    out = np.zeros_like(mass)
    np.put_along_axis(out, order, mass, axis=1)
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("crowded", [0, 1])
def test_kde_reaches_the_optimum_of_the_linear_program(seed, alpha, crowded):
    distances, density, order, ascending = sorted_problem(4, 30, seed, crowded)
    plan = knn_kde(ascending, density[order], alpha, 5.0)
    mass = unsort(plan.mass, order)
    assert not plan.exhausted
    assert mass.min() >= 0
    np.testing.assert_allclose(mass.sum(axis=1), 1 / 4, atol=1e-14)
    best = solve_lp(distances, density, alpha, 5.0)
    np.testing.assert_allclose(objective(mass, distances, density, alpha, 5.0), best, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alpha", [0.3, 0.6, 0.9, 1.0])
def test_uniform_is_the_optimum_and_kde_without_a_crowd(seed, alpha):
    distances, density, order, ascending = sorted_problem(4, 30, seed, crowded=0)
    plan = knn_uniform(ascending, alpha, 5.0)
    mass = unsort(plan.mass, order)
    best = solve_lp(distances, density, alpha, 5.0)
    np.testing.assert_allclose(objective(mass, distances, density, alpha, 5.0), best, rtol=1e-9)
    other = knn_kde(ascending, density[order], alpha, 5.0)
    np.testing.assert_allclose(plan.mass, other.mass, atol=1e-14)


def heap_of_the_published_code(distances, density, alpha, scale):
    """Algorithm 2 as the published script walks it, one event at a time."""
    m, k = distances.shape
    done, count, summed, spent, s = [-1] * m, np.zeros(m), np.zeros(m), np.zeros(m), 0.0
    count += 1 / density[:, 0]
    summed += distances[:, 0] / density[:, 0]
    heap = dict.fromkeys(range(m), 0)
    while heap:
        j = min(heap, key=lambda i: (count[i], heap[i], i))
        place = heap.pop(j)
        s = count[j]
        spent[j] = distances[j, place + 1] * count[j] - summed[j]
        if alpha / scale * spent.sum() >= (1 - alpha) * m:
            break
        done[j] = place
        if place < k - 2:
            count[j] += 1 / density[j, place + 1]
            summed[j] += distances[j, place + 1] / density[j, place + 1]
            heap[j] = place + 1
    mass = np.zeros((m, k))
    for j in range(m):
        mass[j, : done[j] + 1] = 1 / (m * s * density[j, : done[j] + 1])
        mass[j, done[j] + 1] += max(1 / m - mass[j].sum(), 0)
    return mass


@pytest.mark.parametrize("alpha", [0.05, 0.4, 0.8])
def test_sorted_events_give_what_the_published_heap_gives(alpha):
    _, density, order, ascending = sorted_problem(7, 40, 9, crowded=1)
    plan = knn_kde(ascending, density[order], alpha, 2.0)
    wanted = heap_of_the_published_code(ascending, density[order], alpha, 2.0)
    np.testing.assert_allclose(plan.mass, wanted, atol=1e-13)


def test_alpha_one_takes_the_nearest_only_and_small_alpha_exhausts_the_list():
    ascending = np.sort(np.random.default_rng(0).random((5, 12)), axis=1)
    assert (knn_uniform(ascending, 1.0, 5.0).mass[:, 1:] == 0).all()
    wide = knn_uniform(ascending, 1e-9, 5.0)
    assert wide.exhausted
    np.testing.assert_allclose(wide.mass, 1 / 60)


def test_the_density_counts_near_duplicates():
    rows = np.array([[0.0, 0], [0, 0], [0.5, 0], [9, 9]], dtype=np.float32)
    np.testing.assert_allclose(kernel_density(rows, 1.0, 4), [2.75, 2.75, 2.5, 1.0])
    # With two neighbours at most, the third in the crowd no longer counts.
    np.testing.assert_allclose(kernel_density(rows, 1.0, 2), [2.0, 2.0, 1.75, 1.0])


def test_the_density_survives_embeddings_far_from_the_origin():
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    near, far = (kernel_density((rows + shift).astype(np.float32), 2.0, 50) for shift in (0, 64))
    np.testing.assert_allclose(near, far, rtol=1e-4)


def test_a_row_always_counts_itself():
    rows = (1000 * np.random.default_rng(0).normal(size=(40, 6))).astype(np.float32)
    np.testing.assert_array_equal(kernel_density(rows, 1e-7, 40), 1.0)


@pytest.mark.parametrize("neighbours", [30, 200, 700])
def test_comparing_pairs_once_gives_what_comparing_them_twice_gives(monkeypatch, neighbours):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 5))[rng.integers(6, size=700)]
    rows = (centres + 0.2 * rng.normal(size=(700, 5))).astype(np.float32)
    exact = kernel_density(rows, 1.0, neighbours)
    monkeypatch.setattr(density, "SMALL_ROWS", 100)
    monkeypatch.setattr(density, "TILE_ROWS", 64)
    np.testing.assert_allclose(kernel_density(rows, 1.0, neighbours), exact, rtol=2e-3)


def test_values_that_float32_cannot_tell_apart_are_measured_in_float64(monkeypatch):
    rows = (1000 * np.random.default_rng(0).normal(size=(40, 6))).astype(np.float32)
    monkeypatch.setattr(density, "SMALL_ROWS", 10)
    np.testing.assert_array_equal(kernel_density(rows, 1e-3, 40), 1.0)


def test_densities_of_files_are_kept_beside_them(monkeypatch, tmp_path):
    target, pool = copies_of_one_row()

    def stored() -> list[Rows]:
        cuts = [slice(0, 100), slice(100, 300)]
        for number, rows in enumerate(cuts):
            np.save(tmp_path / f"embeddings-{number}.npy", pool.embeddings[rows])
        arrays = [open_array(tmp_path / f"embeddings-{number}.npy") for number in range(2)]
        ids = [pool.ids[rows.start : rows.stop] for rows in cuts]
        return [Rows(i, i, embeddings=a) for i, a in zip(ids, arrays, strict=True)]

    first = pool_density(stored(), 0.5, 30)
    assert [path.suffix for path in tmp_path.glob("density-*")] == [".npy"]
    monkeypatch.setattr(density, "kernel_density", None)
    np.testing.assert_array_equal(pool_density(stored(), 0.5, 30), first)
    TSDS(variant="kde", sigma=0.5, kde_neighbours=30).rank(target, stored(), 20, 0, ENGINE)
    with pytest.raises(TypeError):
        pool_density(stored()[:1], 0.5, 30)
    with pytest.raises(TypeError):
        pool_density(stored(), 0.6, 30)


def published_masses(queries, rows, arm):
    """Masses by row as the published script computes them, with exact distances in float64."""
    wide = np.sqrt(np.square(queries[:, None] - rows[None]).sum(axis=2))
    cap = len(rows) // 10
    k, counted = min(arm.prefetch, cap), min(arm.kde_neighbours, cap)
    order = np.argsort(wide, axis=1)[:, :k]
    union = np.unique(order)
    gaps = np.square(rows[union][:, None] - rows[union][None]).sum(axis=2)
    nearest = np.sort(gaps, axis=1)[:, :counted]
    crowd = dict(zip(union, np.maximum(0, 1 - nearest / arm.sigma**2).sum(axis=1), strict=True))
    density = np.vectorize(crowd.get)(order)
    distances = np.take_along_axis(wide, order, axis=1)
    mass = heap_of_the_published_code(distances, density, arm.alpha, arm.C)
    return np.bincount(order.ravel(), weights=mass.ravel(), minlength=len(rows)), density


@pytest.mark.parametrize("alpha", [0.1, 0.6])
@pytest.mark.parametrize("prefetch", [7, 5000])
def test_the_density_of_looked_up_rows_is_that_of_the_published_code(alpha, prefetch):
    rng = np.random.default_rng(5)
    pool_rows = rng.normal(size=(300, 3))
    pool_rows[40:60] = pool_rows[40] + 0.01 * rng.normal(size=(20, 3))
    queries = 0.5 * rng.normal(size=(6, 3))
    ids = pa.array([f"c{i:03d}" for i in rng.permutation(300)])
    pool = Rows(ids, ids, None, pool_rows.astype(np.float32))
    target = Rows(pa.array([f"t{i}" for i in range(6)]), ids[:6], None, queries.astype(np.float32))
    settings = {"variant": "kde", "alpha": alpha, "sigma": 0.9, "C": 2.0, "prefetch": prefetch}
    arm = TSDS(**settings, density_over="looked_up")
    found = arm.rank(target, [pool.slice(0, 90), pool.slice(90)], 300, 0, ENGINE)
    wanted, density = published_masses(
        target.embeddings.astype(float), pool.embeddings.astype(float), arm
    )
    by_id = dict(zip(ids.to_pylist(), wanted, strict=True))
    scores = [-by_id[name] for name in found.ids.to_pylist()]
    np.testing.assert_allclose(found.scores, scores, atol=1e-12)
    # It differs from the density of the pool, which has rows that no target looked up.
    assert density.max() > 1.5
    whole = TSDS(**settings).rank(target, [pool], 300, 0, ENGINE)
    assert not np.allclose(np.sort(whole.scores), np.sort(found.scores), atol=1e-9)


@pytest.mark.parametrize("variant", ["uniform", "kde"])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.01])
def test_looking_up_no_more_neighbours_than_needed_changes_nothing(monkeypatch, variant, alpha):
    rng = np.random.default_rng(0)
    ids = pa.array([f"c{i:04d}" for i in range(2000)])
    pool = Rows(ids, ids, None, rng.normal(size=(2000, 3)).astype(np.float32))
    target = Rows(ids[:40], ids[:40], None, rng.normal(size=(40, 3)).astype(np.float32))
    arm = TSDS(variant=variant, alpha=alpha, sigma=0.4)
    monkeypatch.setattr(tsds, "FIRST_SEARCH", 200)
    whole = arm.rank(target, [pool], 100, 0, ENGINE)
    monkeypatch.setattr(tsds, "FIRST_SEARCH", 2)
    few = arm.rank(target, [pool], 100, 0, ENGINE)
    assert few.ids.equals(whole.ids)
    np.testing.assert_allclose(few.scores, whole.scores, rtol=1e-12)
    assert few.diagnostics["rows_with_mass"] == whole.diagnostics["rows_with_mass"]


def test_draws_follow_the_mass():
    mass = np.array([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    counts = np.bincount(draw(mass, 20_000, 0), minlength=6) / 20_000
    np.testing.assert_allclose(counts, mass, atol=0.015)


def copies_of_one_row():
    """Ten copies of the row nearest to the target, and 290 rows apart somewhat farther."""
    rng = np.random.default_rng(0)
    crowd, others = np.zeros((10, 8)), rng.normal(size=(290, 8))
    others *= (1.0 + rng.random((290, 1))) / np.linalg.norm(others, axis=1, keepdims=True)
    ids = pa.array([f"c{i:03d}" for i in range(300)])
    pool = Rows(ids, ids, None, np.vstack([crowd, others]).astype(np.float32))
    return Rows(pa.array(["t"]), pa.array([""]), None, np.full((1, 8), 0.01, np.float32)), pool


def test_kde_makes_copies_share_one_candidate():
    target, pool = copies_of_one_row()
    mass = {}
    for variant in ("uniform", "kde"):
        arm = TSDS(variant=variant, alpha=0.2, sigma=0.5)
        ranking = arm.rank(target, [pool], 20, 0, ENGINE)
        scores = zip(ranking.ids.to_pylist(), ranking.scores, strict=True)
        mass[variant] = {int(i[1:]): -score for i, score in scores}
    # Uniform: a copy is worth as much as any other neighbour. KDE: all ten of them are.
    assert mass["uniform"][0] == mass["uniform"][9] == max(mass["uniform"].values())
    best = max(mass["kde"].values())
    assert max(mass["kde"], key=mass["kde"].get) >= 10
    assert all(m < 0.2 * best for row, m in mass["kde"].items() if row < 10)


def test_rows_without_mass_fill_the_budget_by_distance():
    target, pool = copies_of_one_row()
    ranking = TSDS(alpha=0.9, prefetch=5).rank(target, [pool], 60, 0, ENGINE)
    assert ranking.diagnostics["rows_with_mass"] <= 5
    assert (ranking.scores[:1] < 0).all()
    assert (ranking.scores[5:] == 0).all()
    rows = [int(i[1:]) for i in ranking.ids.to_pylist()]
    gaps = np.square(pool.embeddings[rows] - target.embeddings).sum(axis=1)
    assert (np.diff(gaps[5:]) >= -1e-6).all()
    assert set(rows[:10]) == set(range(10))


@pytest.mark.parametrize(
    "fields",
    [
        {"variant": "knn"},
        {"sampling": "bottom"},
        {"alpha": 0.0},
        {"alpha": 1.5},
        {"C": 0.0},
        {"sigma": -1.0},
        {"prefetch": 1},
        {"kde_neighbours": 0},
        {"density_over": "nothing"},
    ],
)
def test_a_field_that_makes_no_sense_is_named(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        TSDS(**fields)
