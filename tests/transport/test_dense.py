import numpy as np
import ot
import pytest
import torch

from gotd.transport import NotConverged, Problem
from gotd.transport.dense import sinkhorn, soft_minimum, solve_dense


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(4)
    cost = torch.as_tensor(rng.random((25, 9)))
    a, b = (torch.as_tensor(rng.random(k) + 0.2) for k in (25, 9))
    return cost, a / a.sum(), b / b.sum()


def test_plan_has_both_marginals(small, transport_plan):
    cost, a, b = small
    f, g, _ = sinkhorn(cost, a, b, 0.05, tolerance=1e-12)
    plan = transport_plan(cost, f, g, a, b, 0.05)
    torch.testing.assert_close(plan.sum(dim=1), a, rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(dim=0), b, rtol=0, atol=1e-12)


def test_dual_value_is_primal_value(small, transport_plan):
    cost, a, b = small
    f, g, _ = sinkhorn(cost, a, b, 0.05, tolerance=1e-12)
    plan = transport_plan(cost, f, g, a, b, 0.05)
    divergence = (plan * (plan / (a[:, None] * b[None, :])).log()).sum()
    primal = (plan * cost).sum() + 0.05 * divergence
    assert float(a @ f + b @ g) == pytest.approx(float(primal), abs=1e-10)


def test_certificate_is_the_error_of_the_plan(small, transport_plan):
    cost, a, b = small
    f, g, history = sinkhorn(cost, a, b, 0.02, max_iterations=3)
    plan = transport_plan(cost, f, g, a, b, 0.02)
    assert history[-1] > 1e-3
    assert history[-1] == pytest.approx(float((plan.sum(dim=0) - b).abs().sum()))


def test_over_relaxation_changes_the_road_and_not_the_end(small):
    cost, a, b = small
    plain, _, slow = sinkhorn(cost, a, b, 0.02)
    relaxed, _, fast = sinkhorn(cost, a, b, 0.02, relaxation=1.5)
    assert len(fast) < len(slow)
    torch.testing.assert_close(relaxed, plain, rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="between 0 and 2"):
        sinkhorn(cost, a, b, 0.02, relaxation=2.0)


def test_small_epsilon_approaches_the_linear_program(small):
    cost, a, b = small
    plan, log = ot.emd(a.numpy(), b.numpy(), cost.numpy(), log=True)
    exact, dual = float((plan * cost.numpy()).sum()), log["u"] + b.numpy() @ log["v"]
    gaps = []
    for epsilon in (0.1, 0.01, 0.001):
        f, g, _ = sinkhorn(cost, a, b, epsilon, tolerance=1e-6, max_iterations=50_000)
        gaps.append(abs(float(a @ f + b @ g) - exact))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 2e-3
    # Masses in general position make the program's duals unique, so they must agree too.
    np.testing.assert_allclose(f.numpy(), dual, atol=0.02)
    hard_minimum = (cost - g).min(dim=1).values
    torch.testing.assert_close(f, hard_minimum, rtol=0, atol=0.005)


def test_soft_minimum_lies_above_the_hard_one(small):
    cost, _, b = small
    g = torch.linspace(-0.1, 0.1, len(b), dtype=torch.float64)
    soft = soft_minimum(cost, g, b.log(), 0.05)
    assert bool((soft >= (cost - g).min(dim=1).values).all())


def test_candidates_without_mass_are_scored_and_do_not_count(small):
    cost, a, b = small
    a = a.clone()
    a[0] = 0.0
    a = a / a.sum()
    with_zero, *_ = sinkhorn(cost, a, b, 0.05)
    without, *_ = sinkhorn(cost[1:], a[1:], b, 0.05)
    torch.testing.assert_close(with_zero[1:], without, rtol=0, atol=1e-8)
    assert bool(torch.isfinite(with_zero).all())


def test_missing_the_tolerance_is_an_error(mixture):
    problem = Problem(mixture(10, 2), [mixture(40, 1)], epsilon=0.01)
    with pytest.raises(NotConverged, match="larger epsilon") as caught:
        solve_dense(problem, max_iterations=2)
    assert not caught.value.potentials.converged
