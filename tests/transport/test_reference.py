import numpy as np
import pytest
import torch

from gotd.transport import Compute, Problem
from gotd.transport.blocks import Stream, full_float32
from gotd.transport.reference import Reference, gather, reference_size, smallest_priority


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
    whole = smallest_priority([priority], 10, [100])[:, 1].tolist()
    assert whole == np.argsort(priority)[:10].tolist()
    starts = [0, 30, 30, 45]
    parts = np.split(priority, [30, 30, 45])
    cut = smallest_priority(iter(parts), 10, [len(part) for part in parts])
    assert [starts[array] + row for array, row in cut] == whole


@pytest.mark.parametrize("lengths", [[3], [3, 4], [3, 3, 1], []])
def test_priorities_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="one number per candidate row"):
        smallest_priority([np.arange(3.0), np.arange(3.0)], 2, lengths)


def test_gather_keeps_the_asked_order():
    arrays = [np.arange(10).reshape(5, 2), np.arange(100, 106).reshape(3, 2)]
    rows = gather(arrays, np.array([(1, 2), (0, 4), (0, 0), (1, 0)]))
    assert rows.tolist() == [[104, 105], [8, 9], [0, 1], [100, 101]]


@pytest.mark.parametrize("epsilon", [0.05, 0.002])
def test_the_fit_covers_what_is_asked(mixture, epsilon):
    problem = Problem(mixture(30, 2), [mixture(400, 1)], epsilon=epsilon)
    stream = Stream(problem, Compute(device="cpu"))
    epsilon = problem.epsilon_in_cost_units(stream.mean_cost())
    reference = Reference(stream, epsilon, np.c_[np.zeros(400, int), np.arange(400)])
    wanted = torch.as_tensor(np.random.default_rng(1).dirichlet(np.full(30, 3.0)))
    gamma = reference.fit(stream.b.log(), wanted, 1e-3, max_iterations=5000)
    received = torch.softmax(reference.base.double() + gamma, dim=1).mean(dim=0)
    assert float((received - wanted).abs().sum()) < 2e-3


def test_a_sample_without_mass_is_refused(mixture):
    x = mixture(20, 1)
    problem = Problem(mixture(3, 2), [x], candidate_mass=[np.r_[np.zeros(10), np.ones(10)]])
    stream = Stream(problem, Compute(device="cpu"))
    with pytest.raises(ValueError, match="raise reference_rows"):
        Reference(stream, 1.0, np.array([(0, 0), (0, 1)]))


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
