import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gotd.reporting.statistics import (
    DRAWS,
    detectable_effect,
    holm,
    interquartile_mean,
    p_floor,
    paired_test,
    seed_differences,
    sign_flip_p,
    stratified_bootstrap,
    t_interval,
)


def rng():
    return np.random.default_rng(0)


def test_t_interval_equals_scipy():
    values = np.array([0.61, 0.58, 0.66, 0.60, 0.63])
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    interval = t_interval(values)
    assert interval.mean == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.half_width == pytest.approx((high - low) / 2)
    assert interval.n == 5


def test_t_interval_says_nothing_from_one_value_and_skips_gaps():
    one = t_interval([0.5, np.nan])
    assert (one.mean, one.n) == (0.5, 1)
    assert np.isnan(one.low)
    assert np.isnan(one.half_width)
    assert t_interval([]).n == 0
    assert np.isnan(t_interval([np.nan]).mean)


def test_t_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(3.0, 2.0, size=(2000, 5))
    hits = [i.low <= 3.0 <= i.high for i in map(t_interval, draws)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


def test_sign_flips_by_hand():
    # |1+2+4|, |-1+2+4|, |1-2+4|, |1+2-4| and mirrors: only the observed sum reaches 7.
    assert sign_flip_p([1.0, 2.0, 4.0], rng()) == 2 / 8
    assert sign_flip_p([0.0, 0.0], rng()) == 1.0
    assert np.isnan(sign_flip_p([np.nan], rng()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_sign_flips_equal_enumeration(values):
    observed = abs(sum(values))
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    expected = np.mean([s >= observed for s in sums])
    assert sign_flip_p(values, rng()) == pytest.approx(expected)
    assert sign_flip_p(values, rng()) == sign_flip_p([-v for v in values], rng())
    # Tenths have no exact form in binary; what ties on paper must tie all the same.
    assert sign_flip_p([v / 10 for v in values], rng()) == pytest.approx(expected)
    assert expected >= p_floor(len(values)) - 1e-12


def test_sign_flips_equal_scipy_and_monte_carlo_agrees_with_exact():
    values = np.random.default_rng(5).normal(0.4, 1.0, size=12)
    scipy_p = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p(values, rng()) == pytest.approx(scipy_p)
    longer = np.random.default_rng(6).normal(0.2, 1.0, size=int(np.log2(DRAWS)))
    one_more = np.append(longer, 0.0)  # a zero changes no sum, but forces Monte Carlo
    assert sign_flip_p(one_more, rng()) == pytest.approx(sign_flip_p(longer, rng()), abs=0.006)
    assert sign_flip_p(np.ones(40), rng()) > 0


def test_sign_flip_test_holds_its_level():
    draws = np.random.default_rng(3).normal(size=(1500, 8))
    rejected = [sign_flip_p(d, rng()) <= 0.05 for d in draws]
    assert np.mean(rejected) == pytest.approx(12 / 256, abs=0.015)


def test_floor_is_two_in_two_to_the_n():
    assert [p_floor(n) for n in (3, 5, 6)] == [0.25, 0.0625, 0.03125]
    same_sign = np.arange(1.0, 7.0)
    assert sign_flip_p(same_sign, rng()) == p_floor(6)


def test_detectable_effect_reaches_the_power_it_promises():
    for n in (2, 3, 5, 10, 34):
        delta = detectable_effect(1.0, n)
        critical = stats.t.ppf(0.975, n - 1)
        power = stats.nct.sf(critical, n - 1, delta * np.sqrt(n))
        assert power == pytest.approx(0.8, abs=1e-6)
    # The textbook: 34 pairs find half a standard deviation, 33 do not.
    assert detectable_effect(1.0, 34) < 0.5 < detectable_effect(1.0, 33)
    assert detectable_effect(2.0, 10) == pytest.approx(2 * detectable_effect(1.0, 10))
    assert np.isnan(detectable_effect(1.0, 1))
    assert detectable_effect(0.0, 5) == 0.0


def test_detectable_effect_by_simulation():
    delta = detectable_effect(1.0, 6)
    draws = np.random.default_rng(2).normal(delta, 1.0, size=(3000, 6))
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_holm_by_hand():
    # sorted: .01*4, .02*3, .03*2, .04*1 -> .04 .06 .06 .06 after making them monotone
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = holm([0.5, np.nan, 0.9])
    assert adjusted[[0, 2]] == pytest.approx([1.0, 1.0])
    assert np.isnan(adjusted[1])
    assert holm([]).shape == (0,)


def test_seed_differences_drop_a_seed_that_lacks_a_task():
    arm = np.array([[0.9, 0.8, 0.7], [0.5, np.nan, 0.4]])
    reference = np.array([[0.8, 0.8, 0.8], [0.3, 0.3, 0.3]])
    differences = seed_differences(arm, reference)
    assert differences[[0, 2]] == pytest.approx([0.15, 0.0])
    assert np.isnan(differences[1])
    assert paired_test(differences, rng()).n == 2


def test_bootstrap_is_reproducible_and_stays_inside_the_data():
    scores = np.random.default_rng(4).normal(0.6, 0.1, size=(5, 3))
    first = stratified_bootstrap(scores, np.random.default_rng(9))
    assert first == stratified_bootstrap(scores, np.random.default_rng(9))
    assert scores.min() <= first.low <= first.mean <= first.high <= scores.max()
    assert first.mean == pytest.approx(scores.mean())
    middle = stratified_bootstrap(scores, rng(), interquartile_mean)
    assert middle.mean == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))


def test_bootstrap_keeps_tasks_apart():
    # Tasks differ, seeds do not: resampling within tasks cannot change the average.
    scores = np.array([[0.2, 0.9]] * 6)
    interval = stratified_bootstrap(scores, rng())
    assert (interval.low, interval.high) == pytest.approx((0.55, 0.55))


def test_bootstrap_over_worlds_is_wider_when_tasks_share_the_world():
    world = np.random.default_rng(8).normal(0.6, 0.1, size=(10, 1))
    scores = np.repeat(world, 8, axis=1)
    cells = stratified_bootstrap(scores, rng())
    worlds = stratified_bootstrap(scores, rng(), whole_seeds=True)
    assert worlds.half_width > 2 * cells.half_width
    normal = 1.96 * world.std() / np.sqrt(10)
    assert worlds.half_width == pytest.approx(normal, rel=0.15)


def test_bootstrap_refuses_gaps_and_needs_two_seeds():
    with pytest.raises(ValueError, match="every task is done"):
        stratified_bootstrap(np.array([[0.5, np.nan]]), rng())
    with pytest.raises(ValueError, match="n_seed, n_task"):
        stratified_bootstrap(np.zeros(3), rng())
    assert np.isnan(stratified_bootstrap(np.ones((1, 2)), rng()).low)
