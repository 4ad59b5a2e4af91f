"""Changes of a stored plan give what a pass gives, or a pass is made."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from gotd.transport import Problem, solve_semidual, stored
from gotd.transport.blocks import Compute, Stream
from gotd.transport.passes import scan
from gotd.transport.stored import StoredPlan, fits

CPU = Compute(device="cpu")


@pytest.fixture
def problem(mixture):
    return Problem(mixture(40, 2), [mixture(1500, 1), mixture(500, 3)])


@pytest.fixture
def priority():
    draws = np.random.default_rng(0).random(2000)
    return [draws[:1500], draws[1500:]]


def in_float64(problem, epsilon, gamma, weight=None):
    """Compute potentials and received masses of ``gamma`` from the dense costs."""
    cost, _, _ = problem.dense()
    a = torch.as_tensor(np.concatenate(problem.a))
    z = gamma - cost / epsilon
    f = -epsilon * torch.logsumexp(z, dim=1)
    mass = a if weight is None else a * weight(f)
    return f, (torch.softmax(z, dim=1) * mass[:, None]).sum(dim=0)


@pytest.mark.parametrize("weight", [None, lambda f: torch.exp(-f.clamp(min=0.0))])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_a_change_of_a_stored_plan_is_a_pass(problem, weight, shift):
    stream = Stream(problem, CPU)
    epsilon = problem.epsilon_in_cost_units(stream.mean_cost())
    draws = np.random.default_rng(4)
    gamma = stream.b.log() + torch.as_tensor(draws.normal(0, 0.3, 40))
    other = gamma + torch.as_tensor(draws.normal(0, 0.2, 40)) + shift
    plan = StoredPlan(epsilon, gamma, weight)
    f = stream.outputs(None)
    scan(stream, epsilon, gamma, f, weight, plan)
    received = plan.scan(other, f)
    wanted, masses = in_float64(problem, epsilon, other, weight)
    np.testing.assert_allclose(np.concatenate(f), wanted.numpy(), atol=2e-4 * epsilon)
    assert float((received - masses).abs().sum() / masses.sum()) < 5e-5
    # The masses of the pass itself are those of the pass, without the rounding of the entries.
    own = plan.scan(gamma, f)
    _, masses = in_float64(problem, epsilon, gamma, weight)
    assert float((own - masses).abs().sum() / masses.sum()) < 2e-6


def test_rounding_of_the_entries_is_not_in_the_masses(problem):
    """Without the difference of two sums the error is that of float16."""
    stream = Stream(problem, CPU)
    epsilon = problem.epsilon_in_cost_units(stream.mean_cost())
    gamma = stream.b.log()
    plan = StoredPlan(epsilon, gamma)
    f = stream.outputs(None)
    received = scan(stream, epsilon, gamma, f, None, plan)
    # Entries that are too large by the same share are found in every mass, but in no change.
    plan._blocks = [(b, (p.float() * 1.01).half(), f, a) for b, p, f, a in plan._blocks]
    assert float((plan.scan(gamma, f) - received).abs().sum()) < 1e-7
    change = gamma + 0.01 * torch.arange(40)
    _, masses = in_float64(problem, epsilon, change)
    assert float((plan.scan(change, f) - masses).abs().sum()) < 1e-4


def test_a_solve_makes_one_pass_and_reports_the_true_error(problem, priority):
    solved = solve_semidual(problem, priority, reference_rows=400, compute=CPU)
    assert solved.passes == 1
    assert len(solved.history) > 1
    _, epsilon, _ = problem.dense()
    g, b = torch.as_tensor(solved.target), torch.as_tensor(problem.b)
    f, received = in_float64(problem, epsilon, b.log() + g / epsilon)
    assert solved.marginal_error == pytest.approx(float((received - b).abs().sum()), rel=0.1)
    np.testing.assert_allclose(np.concatenate(solved.candidate), f.numpy(), atol=2e-4 * epsilon)


def test_the_result_is_that_of_passes(problem, priority, monkeypatch):
    kept = solve_semidual(problem, priority, reference_rows=400, compute=CPU)
    monkeypatch.setattr(stored, "MOST_ENTRIES", 0)
    made = solve_semidual(problem, priority, reference_rows=400, compute=CPU)
    assert made.passes == len(made.history) == len(kept.history)
    assert kept.marginal_error == pytest.approx(made.marginal_error, rel=0.05)
    ours, theirs = np.concatenate(kept.candidate), np.concatenate(made.candidate)
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * kept.epsilon_absolute)


def test_a_large_change_is_a_pass_of_its_own(problem):
    gamma = torch.zeros(40, dtype=torch.float64)
    plan = StoredPlan(0.1, gamma)
    far = gamma.clone()
    far[3] = stored.LARGEST_CHANGE + 0.1
    assert plan.reaches(gamma + 100.0)
    assert not plan.reaches(far)


def test_entries_too_coarse_for_a_tolerance_are_not_used(problem, priority):
    """Errors below what float16 can tell are measured by a pass, in a higher precision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        strict = solve_semidual(
            problem, priority, reference_rows=400, tolerance=1e-7, max_passes=30, compute=CPU,
            on_failure="warn",
        )  # fmt: skip
    assert strict.passes > 1
    _, epsilon, _ = problem.dense()
    b = torch.as_tensor(problem.b)
    _, received = in_float64(problem, epsilon, b.log() + torch.as_tensor(strict.target) / epsilon)
    true = float((received - b).abs().sum())
    assert strict.marginal_error == pytest.approx(true, rel=0.1, abs=1e-12)


def test_the_rule_depends_on_the_problem_alone(problem):
    assert fits(268_000, 992)
    assert not fits(270_000, 992)
    few = dataclasses.replace(problem, candidates=[problem.candidates[0][:10]])
    assert fits(few.n_candidates, few.n_target)
