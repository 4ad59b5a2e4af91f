import math

import numpy as np
import pytest
import torch

from gotd.transport import Compute, Problem, anderson, reference
from gotd.transport.anderson import Anderson
from gotd.transport.blocks import Stream
from gotd.transport.reference import Reference


class PlainSteps(Anderson):
    def advance(self, point, step, error, value):
        return point + step


def hard(seed, epsilon, n=200, m=30):
    """Return a problem whose targets sit in few of the candidates' clusters."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(6, 4))
    x = centres[random.integers(6, size=n)] + 0.4 * random.normal(size=(n, 4))
    y = centres[random.integers(3, size=m)] + 0.4 * random.normal(size=(m, 4))
    return Problem(y.astype(np.float32), [x.astype(np.float32)], epsilon=epsilon)


def fitted(problem, kind, tolerance, monkeypatch, wanted=None, most=100_000):
    """Return gamma, what targets receive, and the number of iterations."""
    counts = []

    class Counted(kind):
        def advance(self, *arguments):
            counts.append(arguments)
            return super().advance(*arguments)

    monkeypatch.setattr(reference, "Anderson", Counted)
    stream = Stream(problem, Compute(precision="float64", device="cpu"))
    n = problem.n_candidates
    epsilon = problem.epsilon_in_cost_units(stream.mean_cost())
    where = np.c_[np.zeros(n, dtype=int), np.arange(n)]
    fit = Reference(stream, epsilon, where, np.full(n, 1.0 / n))
    wanted = stream.b if wanted is None else torch.as_tensor(wanted)
    gamma = fit.fit(stream.b.log(), wanted, tolerance, most)
    received = (torch.softmax(fit.base + gamma, dim=1) * fit.a[:, None]).sum(0)
    return gamma, received, len(counts)


@pytest.mark.parametrize("epsilon", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_solution_is_that_of_plain_steps(seed, epsilon, monkeypatch):
    problem = hard(seed, epsilon)
    wanted = np.random.default_rng(seed + 9).random(problem.n_target) + 0.05
    wanted /= wanted.sum()
    gamma, received, _ = fitted(problem, Anderson, 1e-10, monkeypatch, wanted)
    assert (received - torch.as_tensor(wanted)).abs().sum() <= 2e-10
    plain, _, _ = fitted(problem, PlainSteps, 1e-10, monkeypatch, wanted)
    apart = gamma - plain
    assert (apart - apart.mean()).abs().max() <= 1e-6  # a constant is free


def test_combined_steps_need_far_fewer_iterations(monkeypatch):
    ours = plain = 0
    for seed in range(4):
        for tolerance in (5e-4, 1e-6):
            ours += fitted(hard(seed, 0.02), Anderson, tolerance, monkeypatch)[2]
            plain += fitted(hard(seed, 0.02), PlainSteps, tolerance, monkeypatch)[2]
    assert 3 * ours <= plain


def test_a_combination_that_lowers_the_value_is_given_up():
    weight = torch.full((2,), 0.5, dtype=torch.float64)
    ours = Anderson(weight, rounding=0.0)
    start, step = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.0]).double()
    second = ours.advance(start, step, 0.4, 1.0)
    assert second.tolist() == [1.0, 0.0]  # one point: nothing to combine
    third = ours.advance(second, 0.5 * step, 0.4, 2.0)
    assert third[0] == pytest.approx(2.0)  # steps 1, 1/2, ...: where they would end
    best = second + 0.5 * step
    assert ours.advance(third, step, 0.4, 1.9).tolist() == best.tolist()
    # After it plain steps are taken, for as long as the pause.
    pauses = [ours.pause]
    points = [best]
    for value in (2.1, 2.2):
        points.append(ours.advance(points[-1], 0.25 * step, 0.4, value))
        assert points[-1].tolist() == (points[-2] + 0.25 * step).tolist()
    pauses.append(ours.pause)
    assert pauses == [2, 2]


def test_a_value_that_is_lower_by_rounding_alone_is_no_failure():
    weight = torch.full((2,), 0.5, dtype=torch.float64)
    ours = Anderson(weight, rounding=1e-6)
    point, step = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.0]).double()
    for value, scale in ((1.0, 1.0), (1.1, 0.5)):
        point = ours.advance(point, scale * step, 0.4, value)
    ours.advance(point, 0.25 * step, 0.4, 1.1 - 1e-7)
    assert len(ours.points) == 3


def test_far_from_the_solution_steps_are_plain():
    weight = torch.full((2,), 0.5, dtype=torch.float64)
    ours, point = Anderson(weight, 0.0), torch.zeros(2, dtype=torch.float64)
    for number in range(4):
        step = torch.tensor([0.5**number, 0.0]).double()
        following = ours.advance(point, step, anderson.NEAR, float(number))
        assert following.tolist() == (point + step).tolist()
        point = following


@pytest.mark.parametrize("step", [[0.0, 0.0], [1e-300, 0.0], [1.0, -1.0]])
def test_equal_steps_give_finite_points(step):
    weight = torch.tensor([1.0, 0.0], dtype=torch.float64)
    ours, point = Anderson(weight, 0.0), torch.zeros(2, dtype=torch.float64)
    for number in range(9):
        point = ours.advance(point, torch.tensor(step).double(), 0.1, float(number))
        assert all(map(math.isfinite, point.tolist()))
