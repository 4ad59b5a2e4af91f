"""Relaxed transport against POT's solvers and against finite differences of the optimal value."""

import dataclasses
from functools import partial

import numpy as np
import ot
import pytest
import torch
from scipy.special import logsumexp, softmax

from gotd.transport import Compute, NotConverged, Problem, solve_semidual
from gotd.transport.nearest import nearest_cost
from gotd.transport.relaxed import CandidatesKL, Share, TargetKL, solve_relaxed

DOUBLE = Compute(precision="float64", device="cpu")
KINDS = {
    "target": lambda b, epsilon, mean: TargetKL(b, epsilon, 0.3 * mean),
    "candidates": lambda b, epsilon, mean: CandidatesKL(b, epsilon, 0.3 * mean),
    "share": lambda b, epsilon, mean: Share(b, epsilon, 0.6),
}
SIDES = [("target", (np.inf, 0.3)), ("candidates", (0.3, np.inf))]


@pytest.fixture
def problem(mixture) -> Problem:
    return Problem(mixture(20, 2), [mixture(150, 1), mixture(50, 7)])


@pytest.fixture
def weighted(problem) -> Problem:
    rng = np.random.default_rng(5)
    masses = [rng.random(150) + 0.05, rng.random(50) + 0.05]
    return dataclasses.replace(
        problem, target_mass=rng.random(20) + 0.1, candidate_mass=masses, epsilon=0.1
    )


def solve(problem, relax, **settings):
    settings = {"tolerance": 1e-9, "compute": DOUBLE, **settings}
    priority = [np.modf(np.abs(x[:, 0].astype(float)) * 1e4)[0] for x in problem.candidates]
    return solve_relaxed(problem, relax, priority, **settings)


def parts(problem):
    cost, epsilon, mean = (np.asarray(part) for part in problem.dense())
    return np.ascontiguousarray(cost), float(epsilon), float(mean)


def plan_of(problem, relax, solved):
    """The plan from its definition, and F."""
    cost, epsilon, mean = parts(problem)
    logits = np.log(problem.b) + (solved.target - cost) / epsilon
    f = -epsilon * logsumexp(logits, axis=1)
    weight = relax(torch.as_tensor(problem.b), epsilon, mean).weight(torch.as_tensor(f)).numpy()
    return (np.concatenate(problem.a) * weight)[:, None] * softmax(logits, axis=1), f


def unbalanced_by_pot(problem, reg_m, a=None):
    cost, epsilon, mean = parts(problem)
    a = np.concatenate(problem.a) if a is None else a
    plan = ot.unbalanced.sinkhorn_unbalanced(
        *(a, problem.b, cost, epsilon),
        reg_m=tuple(mean * part for part in reg_m),
        reg_type="kl",
        c=a[:, None] * problem.b,
        numItermax=20_000,
        stopThr=1e-13,
    )
    return np.asarray(plan)


def kl(p, q):
    return float(np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-300) / q), 0.0) - p + q))


@pytest.mark.parametrize(("kind", "reg_m"), SIDES)
@pytest.mark.parametrize("case", ["problem", "weighted"])
def test_the_unbalanced_plan_is_that_of_pot(kind, reg_m, case, request):
    problem = request.getfixturevalue(case)
    solved = solve(problem, KINDS[kind])
    plan, f = plan_of(problem, KINDS[kind], solved)
    expected = unbalanced_by_pot(problem, reg_m)
    # A shift of g changes the mass that is sent, but no share of it.
    np.testing.assert_allclose(plan / plan.sum(), expected / expected.sum(), atol=1e-9)
    np.testing.assert_allclose(np.concatenate(solved.candidate), f, atol=1e-8)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_the_partial_plan_is_that_of_pot(share, problem):
    def relax(b, epsilon, mean):
        return Share(b, epsilon, share)

    solved = solve(problem, relax)
    plan, _ = plan_of(problem, relax, solved)
    cost, epsilon, _ = parts(problem)
    # With equal masses POT's entropy of P and ours relative to a b^T have the same minimum.
    expected = ot.partial.entropic_partial_wasserstein(
        np.concatenate(problem.a),
        problem.b,
        cost,
        epsilon,
        m=share,
        numItermax=20_000,
        stopThr=1e-14,
    )
    np.testing.assert_allclose(plan, expected, atol=2e-8)
    assert plan.sum() == pytest.approx(share, rel=1e-6)
    assert (plan.sum(axis=0) <= problem.b + 1e-9).all()


def test_a_small_epsilon_gives_the_exact_partial_cost(problem):
    sharp = dataclasses.replace(problem, epsilon=0.002)
    relax = KINDS["share"]
    plan, _ = plan_of(sharp, relax, solve(sharp, relax, tolerance=1e-6))
    cost, _, _ = parts(sharp)
    exact = ot.partial.partial_wasserstein(np.concatenate(sharp.a), sharp.b, cost, m=0.6)
    assert float((plan * cost).sum()) == pytest.approx(float((exact * cost).sum()), rel=0.02)


def optimal_value(problem, kind, mass):
    """The optimal value for ``[n]`` candidate masses, from POT's plan."""
    cost, epsilon, mean = parts(problem)
    reg_m = dict(SIDES)[kind]
    plan = unbalanced_by_pot(problem, reg_m, mass)
    value = float((plan * cost).sum()) + epsilon * kl(plan, mass[:, None] * problem.b)
    if kind == "target":
        return value + 0.3 * mean * kl(plan.sum(axis=0), problem.b)
    return value + 0.3 * mean * kl(plan.sum(axis=1), mass)


@pytest.mark.parametrize("kind", ["target", "candidates"])
def test_the_gradient_is_a_finite_difference_of_the_optimal_value(kind, problem):
    # Relative to one mean cost for all masses, or the problem would change with them.
    cost, epsilon, mean = parts(problem)
    solved = solve(problem, KINDS[kind])
    relaxation = KINDS[kind](torch.as_tensor(problem.b), epsilon, mean)
    shift = 0.0
    if kind == "candidates":
        # The constant of F for which the targets receive all of their mass.
        plan, _ = plan_of(problem, KINDS[kind], solved)
        shift = (0.3 * mean + epsilon) * np.log(plan.sum())
    gradient = relaxation.gradient(np.concatenate(solved.candidate) + shift)
    a, step = np.concatenate(problem.a), 1e-4
    for row in range(0, len(a), 23):
        towards = np.full(len(a), -1.0 / (len(a) - 1))
        towards[row] = 1.0
        ends = [optimal_value(problem, kind, a + side * step * towards) for side in (1, -1)]
        expected = (ends[0] - ends[1]) / (2 * step)
        assert gradient @ towards == pytest.approx(expected, abs=2e-5 * mean)


def test_the_gradient_of_a_share_is_a_finite_difference(problem):
    cost, epsilon, mean = parts(problem)
    b, a, step = problem.b, np.concatenate(problem.a), 1e-4
    solved = solve(problem, KINDS["share"])
    gradient = Share(torch.as_tensor(b), epsilon, 0.6).gradient(np.concatenate(solved.candidate))

    def value(mass):
        moved = dataclasses.replace(
            problem,
            candidate_mass=np.split(mass, [150]),
            epsilon=epsilon,
            epsilon_is="absolute",
        )
        plan, _ = plan_of(moved, KINDS["share"], solve(moved, KINDS["share"], tolerance=1e-11))
        return float((plan * cost).sum()) + epsilon * kl(plan, mass[:, None] * b)

    for row in range(0, len(a), 41):
        towards = np.full(len(a), -1.0 / (len(a) - 1))
        towards[row] = 1.0
        expected = (value(a + step * towards) - value(a - step * towards)) / (2 * step)
        assert gradient @ towards == pytest.approx(expected, abs=1e-4 * mean)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_grow_with_the_potential(kind):
    relaxation = KINDS[kind](torch.ones(1, dtype=torch.float64), 0.1, 1.0)
    f = np.linspace(-2.0, 2.0, 500)
    assert (np.diff(relaxation.gradient(f)) > 0).all()


@pytest.mark.parametrize("kind", [TargetKL, CandidatesKL])
def test_a_high_price_gives_balanced_transport(kind, weighted):
    solved = solve(weighted, lambda b, epsilon, mean: kind(b, epsilon, 1e5 * mean))
    balanced = solve_semidual(weighted, tolerance=1e-9, compute=DOUBLE)
    for one, other in zip(solved.candidate, balanced.candidate, strict=True):
        gap = one - other
        np.testing.assert_allclose(gap, gap.mean(), atol=1e-4 * balanced.mean_cost)


def test_without_a_price_every_row_is_as_far_as_its_nearest_targets(problem):
    sharp = dataclasses.replace(problem, epsilon=1e-3)
    solved = solve(sharp, lambda b, epsilon, mean: TargetKL(b, epsilon, 1e-6 * mean))
    for one, other in zip(solved.candidate, nearest_cost(sharp, DOUBLE), strict=True):
        np.testing.assert_allclose(one, other, atol=4e-3 * solved.mean_cost)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_and_passes_give_what_all_rows_give(kind, mixture):
    problem = Problem(mixture(20, 2), [mixture(1500, 1)])
    exact = solve(problem, KINDS[kind])
    sampled = solve(problem, KINDS[kind], reference_rows=400, tolerance=1e-6, max_passes=40)
    gap = sampled.candidate[0] - exact.candidate[0]
    assert sampled.passes > 1
    np.testing.assert_allclose(gap, gap.mean(), atol=1e-3 * exact.mean_cost)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_is_enough(kind, mixture):
    problem = Problem(mixture(20, 2), [mixture(1500, 1)])
    exact = solve(problem, KINDS[kind])
    single = solve(problem, KINDS[kind], tolerance=1e-4, compute=Compute(device="cpu"))
    gap = single.candidate[0] - exact.candidate[0]
    np.testing.assert_allclose(gap, gap.mean(), atol=2e-3 * exact.mean_cost)


def test_a_missed_tolerance_is_an_error(mixture):
    problem = Problem(mixture(20, 2), [mixture(1500, 1)])
    hasty = partial(solve, problem, KINDS["share"], reference_rows=60, max_passes=1)
    with pytest.raises(NotConverged, match="marginal error"):
        hasty()
    with pytest.warns(RuntimeWarning, match="marginal error"):
        assert not hasty(on_failure="warn").converged
