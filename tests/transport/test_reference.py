import numpy as np
import pytest
import torch

from gotd.transport import Compute, Problem
from gotd.transport.blocks import Stream, full_float32
from gotd.transport.reference import (
    Reference,
    gather,
    reference_size,
    sample_by_mass,
    smallest_priority,
)


@pytest.mark.parametrize(
    ("n", "m", "wish", "expected"),
    [
        (5_000, 1_000, None, 5_000),  # small: all of them
        (16_777, 1_000, None, 16_777),
        (100_000, 1_000, None, 10_000),  # ten per target
        (1_000_000, 200, None, 10_000),  # never so few that chance rules
        (10**6, 4_000, None, 40_000),
        (10**7, 10_000, None, 50_000),  # memory: five per target
        (100_000, 1_000, 300, 300),
        (100, 10, 5_000, 100),
    ],
)
def test_the_sample_depends_on_the_problem_alone(n, m, wish, expected):
    assert reference_size(n, m, wish) == expected


def test_smallest_priorities_are_chosen_whatever_the_cut():
    priority = np.random.default_rng(0).random(100)
    whole = smallest_priority([priority], 10, [100])[0][:, 1].tolist()
    assert whole == np.argsort(priority)[:10].tolist()
    starts = [0, 30, 30, 45]
    parts = np.split(priority, [30, 30, 45])
    cut, _ = smallest_priority(iter(parts), 10, [len(part) for part in parts])
    assert [starts[array] + row for array, row in cut] == whole


def test_a_sample_by_mass_keeps_heavy_rows_and_sums_on_average():
    random = np.random.default_rng(0)
    masses = random.random(400) ** 3
    masses[[5, 17]], masses[40:60] = 40.0, 0.0
    masses /= masses.sum()
    worth = random.normal(size=400) + 3.0
    sums = []
    for _ in range(300):
        where, mass = sample_by_mass([random.random(400)], [masses], 60)
        rows = where[:, 1]
        assert len(set(rows.tolist())) == 60
        assert {5, 17} <= set(rows.tolist())
        assert masses[rows].min() > 0
        assert mass.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(mass[np.isin(rows, [5, 17])], masses[5])
        sums.append(mass @ worth[rows])
    assert np.mean(sums) == pytest.approx(masses @ worth, rel=0.01)


def test_a_sample_by_equal_masses_is_the_uniform_one_whatever_the_cut():
    priority = np.random.default_rng(0).random(100)
    equal = np.full(100, 0.01)
    where, mass = sample_by_mass([priority], [equal], 10)
    assert where.tolist() == smallest_priority([priority], 10, [100])[0].tolist()
    np.testing.assert_allclose(mass, 0.1)
    cut, again = sample_by_mass(np.split(priority, [30, 45]), np.split(equal, [30, 45]), 10)
    starts = np.array([0, 30, 45])
    assert (starts[cut[:, 0]] + cut[:, 1]).tolist() == where[:, 1].tolist()
    np.testing.assert_allclose(mass, again, rtol=1e-12)


def test_rows_without_mass_stand_for_nothing():
    masses = np.r_[0.3, 0.7, np.zeros(8)]
    where, mass = sample_by_mass([np.linspace(0.1, 0.9, 10)], [masses], 4)
    found = dict(zip(where[:, 1].tolist(), mass.tolist(), strict=True))
    assert found[0] == pytest.approx(0.3)
    assert found[1] == pytest.approx(0.7)
    assert sum(found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("lengths", [[3], [3, 4], [3, 3, 1], []])
def test_priorities_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="one number per candidate row"):
        smallest_priority([np.arange(3.0), np.arange(3.0)], 2, lengths)
    masses = [np.full(n, 0.1) for n in lengths]
    with pytest.raises(ValueError, match="one number per candidate row"):
        sample_by_mass([np.arange(3.0), np.arange(3.0)], masses, 2)


def test_gather_keeps_the_asked_order():
    arrays = [np.arange(10).reshape(5, 2), np.arange(100, 106).reshape(3, 2)]
    rows = gather(arrays, np.array([(1, 2), (0, 4), (0, 0), (1, 0)]))
    assert rows.tolist() == [[104, 105], [8, 9], [0, 1], [100, 101]]


@pytest.mark.parametrize("epsilon", [0.05, 0.002])
def test_the_fit_covers_what_is_asked(mixture, epsilon):
    problem = Problem(mixture(30, 2), [mixture(400, 1)], epsilon=epsilon)
    stream = Stream(problem, Compute(device="cpu"))
    epsilon = problem.epsilon_in_cost_units(stream.mean_cost())
    where = np.c_[np.zeros(400, int), np.arange(400)]
    reference = Reference(stream, epsilon, where, np.full(400, 1 / 400))
    wanted = torch.as_tensor(np.random.default_rng(1).dirichlet(np.full(30, 3.0)))
    gamma = reference.fit(stream.b.log(), wanted, 1e-3, max_iterations=5000)
    received = torch.softmax(reference.base.double() + gamma, dim=1).mean(dim=0)
    assert float((received - wanted).abs().sum()) < 2e-3


def test_products_are_full_float32_inside_and_as_before_outside():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with full_float32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("settings", [{"precision": "float16"}, {"block_rows": 0}])
def test_bad_compute_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Compute(**settings)
