import json
import warnings
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.got_d import GotD
from gotd.selectors.nearest import Nearest
from gotd.transport import NotConverged

ENGINE = LocalEngine()


def shard(rows: np.ndarray, prefix: str) -> Rows:
    names = [f"{prefix}{i:05d}" for i in range(len(rows))]
    return Rows(pa.array(names), pa.array(names), embeddings=rows.astype(np.float32))


def take(whole: Rows, rows: np.ndarray) -> Rows:
    assert whole.embeddings is not None
    index = pa.array(rows)
    return Rows(whole.ids.take(index), whole.texts.take(index), embeddings=whole.embeddings[rows])


@pytest.fixture(scope="module")
def pool() -> Rows:
    """Two kinds: 570 of the one (``c``), 30 of the other (``d``)."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(0, 1, (570, 8)), rng.normal(0, 1, (30, 8)) + 2.0])
    names = [f"c{i:03d}" for i in range(570)] + [f"d{i:03d}" for i in range(30)]
    return Rows(pa.array(names), pa.array(names), embeddings=rows.astype(np.float32))


@pytest.fixture(scope="module")
def target() -> Rows:
    """Half of each kind."""
    rng = np.random.default_rng(1)
    return shard(np.concatenate([rng.normal(0, 1, (25, 8)), rng.normal(0, 1, (25, 8)) + 2.0]), "t")


def share_of_d(ids: pa.Array) -> float:
    return float(np.mean([name.startswith("d") for name in ids.to_pylist()]))


def test_takes_what_the_pool_lacks_where_nearest_takes_what_is_near(pool, target):
    # The kinds overlap, so a cheap distance alone does not tell which one is missing.
    got_d = GotD().rank(target, [pool], 20, 0, ENGINE)
    nearest = Nearest().rank(target, [pool], 20, 0, ENGINE)
    assert share_of_d(got_d.ids) == 1.0
    assert share_of_d(nearest.ids) < 0.5


def test_scores_are_calibrated_and_ascending(pool, target):
    ranking = GotD().rank(target, [pool], 600, 0, ENGINE)
    assert (np.diff(ranking.scores) >= 0).all()
    assert ranking.scores.sum() == pytest.approx(0.0, abs=1e-9)
    assert ranking.scores.dtype == np.float64
    assert not ranking.with_replacement


def test_away_is_the_reverse_of_towards(pool, target):
    towards = GotD().rank(target, [pool], 600, 0, ENGINE)
    away = GotD(direction="away").rank(target, [pool], 600, 0, ENGINE)
    assert away.ids.to_pylist() == towards.ids.to_pylist()[::-1]
    np.testing.assert_allclose(away.scores, -towards.scores[::-1])


@pytest.mark.parametrize("selector", [GotD(), GotD(debias=True), GotD(whiten=True), Nearest()])
def test_order_shards_and_workers_change_nothing(pool, target, selector):
    whole = selector.rank(target, [pool], 100, 3, ENGINE)
    order = np.random.default_rng(5).permutation(600)
    parts = [take(pool, order[:50]), take(pool, order[50:51]), take(pool, order[51:])]
    moved = selector.rank(target, parts, 100, 3, LocalEngine(workers=2))
    assert moved.ids.equals(whole.ids)
    np.testing.assert_allclose(moved.scores, whole.scores, rtol=1e-9, atol=1e-12)


def test_a_sampled_reference_is_chosen_by_id(pool, target):
    selector = GotD(reference_rows=300, tolerance=5e-4, max_passes=20)
    whole = selector.rank(target, [pool], 100, 3, ENGINE)
    order = np.random.default_rng(5).permutation(600)
    moved = selector.rank(target, [take(pool, order[:77]), take(pool, order[77:])], 100, 3, ENGINE)
    assert moved.ids.equals(whole.ids)
    assert moved.diagnostics["marginal_error_history"] == pytest.approx(
        whole.diagnostics["marginal_error_history"], rel=1e-6
    )
    other = selector.rank(target, [pool], 100, 4, ENGINE)
    assert (
        other.diagnostics["marginal_error_history"] != whole.diagnostics["marginal_error_history"]
    )
    assert len(set(other.ids.to_pylist()) & set(whole.ids.to_pylist())) >= 98


def test_all_solvers_give_one_ranking(pool, target):
    loose = GotD(tolerance=1e-6, reference_rows=600)
    expected = loose.rank(target, [pool], 200, 0, ENGINE).ids.to_pylist()
    for solver in ("dense", "pot"):
        got = replace(loose, solver=solver).rank(target, [pool], 200, 0, ENGINE)
        assert got.ids.to_pylist() == expected
        assert got.diagnostics["converged"]


def test_the_published_solver_stops_early_and_says_so(pool, target):
    published = GotD(solver="published", epsilon=0.1, epsilon_is="absolute")
    sound = replace(published, solver="dense", tolerance=1e-6)
    early = published.rank(target, [pool], 600, 0, ENGINE)
    late = sound.rank(target, [pool], 600, 0, ENGINE)
    assert early.diagnostics["marginal_error"] > 10 * late.diagnostics["marginal_error"]
    assert early.diagnostics["epsilon_absolute"] == 0.1
    place = {name: i for i, name in enumerate(late.ids.to_pylist())}
    agreement = spearmanr([place[name] for name in early.ids.to_pylist()], range(600)).statistic
    assert 0.8 < agreement < 1.0


def test_diagnostics_carry_the_certificate(pool, target):
    ranking = GotD(epsilon=0.1).rank(target, [pool], 20, 0, ENGINE)
    facts = json.loads(json.dumps(ranking.diagnostics))
    assert facts["epsilon_relative"] == pytest.approx(0.1)
    assert facts["epsilon_absolute"] == pytest.approx(0.1 * facts["mean_cost"])
    assert facts["marginal_error"] <= 5e-3
    assert facts["converged"] is True
    assert facts["passes"] >= 1


def test_equal_rows_are_ordered_by_id(pool, target):
    twins = Rows(
        pa.array(["z1", "a1"]), pa.array(["", ""]), embeddings=np.zeros((2, 8), np.float32)
    )
    for selector in (GotD(), Nearest()):
        names = selector.rank(target, [twins, pool], 602, 0, ENGINE).ids.to_pylist()
        assert names.index("z1") == names.index("a1") + 1


def test_a_missed_tolerance_reaches_the_caller(pool, target):
    selector = GotD(epsilon=0.01, tolerance=1e-9, max_passes=1, reference_rows=60)
    with pytest.raises(NotConverged, match="reference_rows"):
        selector.rank(target, [pool], 20, 0, ENGINE)
    with pytest.warns(RuntimeWarning, match="marginal error"):
        kept = replace(selector, on_failure="warn").rank(target, [pool], 20, 0, ENGINE)
    assert kept.diagnostics["converged"] is False


def test_debias_changes_scores(pool, target):
    plain = GotD(epsilon=0.2).rank(target, [pool], 600, 0, ENGINE)
    debiased = GotD(epsilon=0.2, debias=True).rank(target, [pool], 600, 0, ENGINE)
    assert debiased.ids.to_pylist() != plain.ids.to_pylist()
    assert share_of_d(debiased.ids[:20]) == 1.0


@pytest.mark.parametrize("selector", [GotD(cost="cosine"), Nearest(cost="cosine")])
def test_cosine_ignores_lengths(pool, target, selector):
    expected = selector.rank(target, [pool], 50, 0, ENGINE).ids
    lengths = np.random.default_rng(0).random((600, 1)).astype(np.float32) + 0.5
    longer = Rows(pool.ids, pool.texts, embeddings=pool.embeddings * lengths)
    # Rounding of the lengths may swap neighbours, never members.
    got = selector.rank(target, [longer], 50, 0, ENGINE).ids
    assert len(set(got.to_pylist()) & set(expected.to_pylist())) >= 49


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "positive"),
        ({"tolerance": -1.0}, "positive"),
        ({"epsilon_is": "percent"}, "epsilon_is"),
        ({"solver": "ott"}, "solver must be one of"),
        ({"cost": "manhattan"}, "cost"),
        ({"precision": "float16"}, "precision"),
        ({"direction": "sideways"}, "direction"),
        ({"on_failure": "ignore"}, "on_failure"),
        ({"max_passes": 0}, "max_passes"),
        ({"reference_rows": 0}, "reference_rows"),
    ],
)
def test_bad_fields_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GotD(**settings)


@pytest.mark.parametrize("settings", [{"cost": "manhattan"}, {"precision": "float16"}])
def test_nearest_refuses_bad_fields(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Nearest(**settings)


def test_requests_are_checked(pool, target):
    for selector in (GotD(), Nearest()):
        with pytest.raises(ValueError, match="larger than the pool"):
            selector.rank(target, [pool], 601, 0, ENGINE)
        with pytest.raises(ValueError, match="no embeddings"):
            selector.rank(target, [Rows(pool.ids, pool.texts)], 5, 0, ENGINE)


def test_a_small_group_of_targets_that_the_tolerance_may_hide_is_announced():
    rng = np.random.default_rng(0)
    wanted, rows = rng.normal(size=(200, 16)), rng.normal(size=(1300, 16))
    wanted[0, 0] += 18.0
    rows[:6] = wanted[0] + 0.3 * rng.normal(size=(6, 16))
    target, pool = shard(wanted, "t"), shard(rows, "c")
    with pytest.warns(RuntimeWarning, match="may hide a small group of targets"):
        loose = GotD().rank(target, [pool], 6, 0, ENGINE)
    assert loose.diagnostics["score_uncertainty"] > loose.diagnostics["epsilon_absolute"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strict = GotD(tolerance=5e-4).rank(target, [pool], 6, 0, ENGINE)
        proven = GotD(prove=True).rank(target, [pool], 6, 0, ENGINE)
    assert strict.diagnostics["score_uncertainty"] < strict.diagnostics["epsilon_absolute"]
    assert proven.diagnostics["score_uncertainty"] < 1e-6 * strict.diagnostics["score_uncertainty"]


def test_a_proof_changes_scores_within_what_was_uncertain(pool, target):
    plain = GotD().rank(target, [pool], 600, 0, ENGINE)
    proven = GotD(prove=True).rank(target, [pool], 600, 0, ENGINE)
    exact = GotD(solver="dense", tolerance=1e-12).rank(target, [pool], 600, 0, ENGINE)
    assert proven.ids.equals(exact.ids)
    np.testing.assert_allclose(proven.scores, exact.scores, atol=1e-8)
    place = dict(zip(exact.ids.to_pylist(), exact.scores, strict=True))
    errors = [
        score - place[name] for name, score in zip(plain.ids.to_pylist(), plain.scores, strict=True)
    ]
    assert max(errors) - min(errors) <= plain.diagnostics["score_uncertainty"] + 1e-8
    for wrong in (GotD(solver="dense"), GotD(debias=True)):
        with pytest.raises(ValueError, match="prove=true needs"):
            replace(wrong, prove=True)
