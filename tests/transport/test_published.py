import numpy as np
import pytest
import torch

from gotd.transport import Compute, Problem
from gotd.transport.dense import solve_dense
from gotd.transport.published import solve_published

DOUBLE = Compute(precision="float64", device="cpu", block_rows=70)


def notebook(problem: Problem, threshold: float = 0.1, momentum: float = 1.3):
    """Iterate as OTT does, densely and in its own convention, masses inside."""
    cost, epsilon, _ = problem.dense()
    log_a, log_b = (torch.as_tensor(np.log(v)) for v in (problem.a[0], problem.b))
    psi, phi = torch.zeros_like(log_a), torch.zeros_like(log_b)
    errors = []
    while True:
        new = epsilon * (log_a - torch.logsumexp((phi - cost) / epsilon, dim=1))
        psi = (1 - momentum) * psi + momentum * new
        new = epsilon * (log_b - torch.logsumexp((psi[:, None] - cost) / epsilon, dim=0))
        phi = (1 - momentum) * phi + momentum * new
        plan = torch.exp((psi[:, None] + phi - cost) / epsilon)
        errors.append(float((plan.sum(dim=1) - log_a.exp()).abs().sum()))
        if errors[-1] < threshold:
            return psi.numpy(), errors


@pytest.mark.parametrize("epsilon", [0.3, 0.05])
def test_repeats_the_notebook_block_by_block(mixture, epsilon):
    problem = Problem(mixture(30, 2), [mixture(200, 1)], epsilon=epsilon)
    psi, errors = notebook(problem)
    ours = solve_published(problem, compute=DOUBLE)
    np.testing.assert_allclose(ours.history, errors, rtol=1e-9)
    f = ours.candidate[0]
    np.testing.assert_allclose(f - f.mean(), psi - psi.mean(), atol=1e-9)
    assert ours.passes == len(errors) + 1


def test_a_tighter_threshold_reaches_the_solution(mixture):
    problem = Problem(mixture(30, 2), [mixture(200, 1)], epsilon=0.2)
    loose = solve_published(problem, compute=DOUBLE)
    tight = solve_published(problem, threshold=1e-8, momentum=1.2, compute=DOUBLE)
    exact = solve_dense(problem).candidate[0]
    np.testing.assert_allclose(tight.candidate[0], exact, atol=1e-6)
    assert tight.marginal_error < 1e-6 < 1e-3 < loose.marginal_error
    assert np.abs(loose.candidate[0] - exact).max() > 1e-3


def test_large_raw_distances_do_not_overflow(mixture):
    x, y = 30 * mixture(100, 1), 30 * mixture(20, 2)
    problem = Problem(y, [x], epsilon=0.1, epsilon_is="absolute")
    ours = solve_published(problem, max_iterations=50, compute=Compute(device="cpu"))
    assert np.isfinite(ours.candidate[0]).all()
    assert np.isfinite(ours.target).all()


def test_stops_at_the_iteration_limit_without_complaint(mixture):
    problem = Problem(mixture(30, 2), [mixture(200, 1)])
    ours = solve_published(problem, threshold=1e-12, max_iterations=4, compute=DOUBLE)
    assert len(ours.history) == 4
    assert not ours.converged
