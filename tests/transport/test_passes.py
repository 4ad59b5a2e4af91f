"""A reported marginal error is the one of the exact costs, whatever the precision."""

import warnings

import numpy as np
import pytest
import torch

from gotd.transport import Compute, Potentials, Problem, passes, solve_semidual, stored
from gotd.transport.published import solve_published
from gotd.transport.relaxed import Share, solve_relaxed


def error_in_float64(problem: Problem, solved: Potentials) -> float:
    cost, epsilon, _ = problem.dense()
    assert solved.epsilon_absolute == pytest.approx(epsilon, rel=1e-5)
    g, b = torch.as_tensor(solved.target), torch.as_tensor(problem.b)
    # The epsilon of the solve: in reduced precision the mean cost is rounded as well.
    plan = torch.softmax(b.log() + (g - cost) / solved.epsilon_absolute, dim=1)
    return float((torch.as_tensor(np.concatenate(problem.a)) @ plan - b).abs().sum())


def drawn(mixture, number: int) -> tuple[Problem, dict]:
    """Draw a problem and settings: sizes, widths, shifts, epsilon and tolerance differ."""
    rng = np.random.default_rng(number)
    n, m, width = rng.integers([60, 2, 2], [300, 25, 40]).tolist()
    shift = np.float32(rng.choice([0.0, 3.0]))
    rows = [mixture(k, number + first, width) + shift for k, first in ((m, 1), (n, 1000))]
    settings = {
        "tolerance": float(10 ** rng.uniform(-3.5, -1.3)),
        "reference_rows": None if number % 3 == 0 else max(5 * m, n // 3),
        "max_passes": 4,
        "on_failure": "warn",
    }
    epsilon = float(10 ** rng.uniform(-1.3, 0.5))
    return Problem(rows[0], [rows[1]], epsilon=epsilon), settings


def reported_over_true(mixture, number: int, compute: Compute) -> float:
    problem, settings = drawn(mixture, number)
    priority = np.random.default_rng(number).random(problem.n_candidates)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        solved = solve_semidual(problem, [priority], compute=compute, **settings)
    return solved.marginal_error / error_in_float64(problem, solved)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_reported_errors_are_those_of_exact_costs(mixture, precision):
    compute = Compute(precision, "cpu")
    ratios = [reported_over_true(mixture, number, compute) for number in range(200)]
    assert np.abs(np.array(ratios) - 1.0).max() <= 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("allowed", ["highest", "high"])  # high: TF32 products
def test_reported_errors_on_a_gpu_are_those_of_exact_costs(mixture, allowed):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allowed)
    try:
        for precision in ("float32", "bfloat16"):
            compute = Compute(precision, "cuda")
            ratios = [reported_over_true(mixture, number, compute) for number in range(200)]
            assert np.abs(np.array(ratios) - 1.0).max() <= 0.1
    finally:
        torch.set_float32_matmul_precision(before)


def test_without_the_check_of_rounding_errors_are_false(mixture, monkeypatch):
    monkeypatch.setattr(passes, "ROUNDING_SHARE", np.inf)
    problem = Problem(mixture(12, 1, 40) + 20, [mixture(200, 2, 40) + 20])
    single = Compute("float32", "cpu")
    solve = {"tolerance": 1e-6, "max_passes": 1, "compute": single, "on_failure": "warn"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        unchecked = solve_semidual(problem, **solve)
        monkeypatch.undo()
        checked = solve_semidual(problem, **solve)
    true = error_in_float64(problem, unchecked)
    assert abs(unchecked.marginal_error / true - 1.0) > 0.1
    assert (unchecked.precision, checked.precision) == ("float32", "float64")
    assert checked.marginal_error == pytest.approx(error_in_float64(problem, checked), rel=1e-3)


def test_bfloat16_steers_and_a_higher_precision_reports(mixture, monkeypatch):
    monkeypatch.setattr(stored, "MOST_ENTRIES", 0)  # a problem too large for a stored plan
    problem = Problem(mixture(40, 2), [mixture(2000, 1)])
    priority = np.random.default_rng(0).random(2000)
    half = solve_semidual(problem, [priority], reference_rows=300, compute=Compute("bfloat16"))
    assert half.precision == "float32"
    assert half.passes > 1
    assert 0.0 < half.rounding <= 0.1 * half.marginal_error
    cost, epsilon, _ = problem.dense()
    g, b = torch.as_tensor(half.target), torch.as_tensor(problem.b)
    f = -epsilon * torch.logsumexp(b.log() + (g - cost) / epsilon, dim=1)
    np.testing.assert_allclose(half.candidate[0], f.numpy(), atol=1e-4 * epsilon)


def test_a_stored_plan_needs_no_pass_in_bfloat16(mixture):
    problem = Problem(mixture(40, 2), [mixture(2000, 1)])
    priority = np.random.default_rng(0).random(2000)
    solve = {"reference_rows": 300, "tolerance": 5e-3}
    half = solve_semidual(problem, [priority], compute=Compute("bfloat16", "cpu"), **solve)
    single = solve_semidual(problem, [priority], compute=Compute("float32", "cpu"), **solve)
    assert half.passes == single.passes == 1
    np.testing.assert_array_equal(half.candidate[0], single.candidate[0])


def test_other_solvers_report_errors_of_exact_costs_too(mixture):
    problem = Problem(mixture(20, 2), [mixture(400, 1)])
    published = solve_published(problem, compute=Compute("bfloat16"))
    assert published.marginal_error == pytest.approx(error_in_float64(problem, published), rel=0.1)
    priority = np.random.default_rng(0).random(400)
    solved = solve_relaxed(
        problem,
        lambda b, epsilon, _: Share(b, epsilon, 0.5),
        [priority],
        reference_rows=200,
        compute=Compute("bfloat16"),
    )
    assert solved.precision == "float32"
    cost, epsilon, _ = problem.dense()
    g, b = torch.as_tensor(solved.target), torch.as_tensor(problem.b)
    logits, share = b.log() + (g - cost) / epsilon, Share(b, epsilon, 0.5)
    sent = share.weight(-epsilon * torch.logsumexp(logits, dim=1)) / 400
    received = sent @ torch.softmax(logits, dim=1)
    wanted = share.demand(received, g)
    error = float((received - wanted).abs().sum() / wanted.sum())
    assert solved.marginal_error == pytest.approx(error, rel=0.1)
