"""Epsilon from tiny to huge, and degenerate points: finite numbers and the right limits."""

import dataclasses
import itertools
import warnings

import numpy as np
import ot
import pytest
import torch

from gotd.transport import Compute, Problem, calibrate, score, solve_semidual
from gotd.transport.nearest import nearest_cost
from gotd.transport.proof import examine, prove

DOUBLE, SINGLE = Compute("float64", "cpu"), Compute("float32", "cpu")
EPSILONS = (1e-3, 1e-2, 0.1, 1.0, 10.0)


def degenerate(mixture) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    x, y = mixture(60, 1), mixture(7, 2)
    zero = np.zeros((3, 16), dtype=np.float32)
    return {
        "candidates repeat": (np.tile(x[:20], (3, 1)), y),
        "targets repeat": (x, np.tile(y, (3, 1))),
        "both sides share points": (np.concatenate([x, y]), y),
        "zero vectors": (np.concatenate([x, zero]), np.concatenate([y, zero])),
        "one target": (x, y[:1]),
        "one candidate": (x[:1], y),
        "one of each": (x[:1], y[:1]),
        "all candidates equal": (np.tile(x[:1], (20, 1)), y),
        "far from the origin": (x + 1000, y + 1000),
        "tiny": (x * 1e-12, y * 1e-12),
        "large": (x * 1e12, y * 1e12),
    }


@pytest.mark.parametrize("compute", [SINGLE, DOUBLE], ids=lambda one: one.precision)
def test_no_epsilon_and_no_degenerate_points_give_nan(mixture, compute):
    cases = itertools.product(degenerate(mixture).items(), EPSILONS)
    for (name, (x, y)), epsilon in cases:
        problem = Problem(y, [x], epsilon=epsilon)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # some need more passes
            solved = solve_semidual(problem, compute=compute, max_passes=3, on_failure="warn")
        numbers = [*solved.candidate, solved.target, [solved.value, solved.marginal_error]]
        assert all(np.isfinite(array).all() for array in numbers), (name, epsilon)
        assert 0.0 <= solved.marginal_error <= 2.0
        found = examine(problem, solved, compute)
        assert found.width >= 0.0, (name, epsilon)
        better, _ = prove(problem, solved, compute)
        assert np.isfinite(better.candidate[0]).all(), (name, epsilon)
        assert better.marginal_error <= 1e-3, (name, epsilon)


@pytest.mark.parametrize("compute", [SINGLE, DOUBLE], ids=lambda one: one.precision)
def test_without_prices_a_small_epsilon_gives_the_nearest_cost(mixture, compute):
    problem = Problem(mixture(9, 2), [mixture(80, 1)])
    solved = solve_semidual(problem, compute=compute)
    (expected,) = nearest_cost(problem, DOUBLE)
    for epsilon in (1e-1, 1e-3, 1e-5):
        free = dataclasses.replace(solved, target=np.zeros(9), epsilon_absolute=epsilon)
        ((f,), _) = score(problem, free, compute)
        # A soft minimum with weights 1/9 is above the minimum by at most eps log 9.
        rounding = 1e-4 if compute is SINGLE else 1e-10
        assert (f >= expected - rounding).all()
        assert (f <= expected + epsilon * np.log(9) + rounding).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_small_epsilon_gives_unregularised_transport(mixture, seed):
    problem = Problem(mixture(8, seed, 3), [mixture(30, seed + 50, 3)], epsilon=1e-3)
    solved = solve_semidual(problem, tolerance=1e-3, max_passes=30, compute=DOUBLE)
    better, found = prove(problem, solved, DOUBLE)
    cost, epsilon, _ = problem.dense()
    exact = ot.emd2(np.array(problem.a[0]), problem.b, cost.numpy())
    assert better.value == pytest.approx(exact, abs=epsilon * np.log(8 * 30))
    hard = (cost - torch.as_tensor(better.target)).min(dim=1).values.numpy()
    assert np.abs(better.candidate[0] - hard).max() <= epsilon * np.log(8) + 1e-9
    # At so small an epsilon the dual may be flat as far as float64 can tell.
    assert found.width <= 1e-3 * epsilon or np.isinf(found.width)


@pytest.mark.parametrize("compute", [SINGLE, DOUBLE], ids=lambda one: one.precision)
def test_a_large_epsilon_gives_the_linear_limit(mixture, compute):
    x, y = mixture(200, 1), mixture(15, 2)
    cost, _, _ = Problem(y, [x]).dense()
    # Every row sends its mass to all targets alike, so its gradient is its mean cost: the limit
    # of the Sinkhorn divergence is an MMD whose kernel is the negative cost.
    linear = cost.mean(dim=1).numpy()
    linear = (linear - linear.mean()) * 200 / 199
    errors = []
    for epsilon in (10.0, 100.0, 1000.0):
        solved = solve_semidual(Problem(y, [x], epsilon=epsilon), tolerance=1e-6, compute=compute)
        values = solved.candidate
        calibrate(values)
        errors.append(np.abs(values[0] - linear).max() / np.abs(linear).max())
    assert errors[0] < 0.1
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_with_one_target_the_score_is_the_cost(mixture, epsilon):
    x, y = mixture(50, 1), mixture(1, 2)
    problem = Problem(y, [x], epsilon=epsilon)
    solved = solve_semidual(problem, compute=DOUBLE)
    cost, _, _ = problem.dense()
    np.testing.assert_allclose(solved.candidate[0], cost[:, 0], atol=1e-9)
    assert solved.marginal_error <= 1e-12
    assert examine(problem, solved, DOUBLE).width <= 1e-9


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_with_one_candidate_the_value_is_the_mean_cost(mixture, epsilon):
    problem = Problem(mixture(9, 1), [mixture(1, 2)], epsilon=epsilon)
    solved = solve_semidual(problem, compute=DOUBLE, tolerance=1e-9)
    assert solved.value == pytest.approx(solved.mean_cost, rel=1e-6)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_repeated_points_have_equal_potentials(mixture, epsilon):
    x, y = degenerate(mixture)["candidates repeat"]
    solved = solve_semidual(Problem(np.tile(y, (2, 1)), [x], epsilon=epsilon), compute=DOUBLE)
    f, g = solved.candidate[0].reshape(3, 20), solved.target.reshape(2, 7)
    np.testing.assert_allclose(f[1:], np.tile(f[:1], (2, 1)), atol=1e-10)
    np.testing.assert_allclose(g[1], g[0], atol=1e-9)
