"""Bounds on how far scores are from exact ones hold, and nothing false is proven."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from gotd.transport import Compute, Potentials, Problem, solve_semidual
from gotd.transport.curvature import Curvature, oscillation
from gotd.transport.dense import sinkhorn
from gotd.transport.proof import Prover, count_proven, examine, prove

DOUBLE = Compute(precision="float64", device="cpu")


def exact(problem: Problem, epsilon: float) -> tuple[np.ndarray, torch.Tensor]:
    """Solve by dense Sinkhorn and then Newton's method, independent of the bound."""
    cost, _, _ = problem.dense()
    a, b = torch.as_tensor(np.concatenate(problem.a)), torch.as_tensor(problem.b)
    _, g, _ = sinkhorn(cost, a, b, epsilon, 1e-7, 1.5)
    base, gamma = -cost / epsilon, b.log() + g / epsilon
    for _ in range(6):
        p = torch.softmax(base + gamma, dim=1)
        r = a @ p
        hessian = torch.diag(r) - p.T @ (a[:, None] * p) + torch.outer(r, r)
        gamma = gamma + torch.linalg.solve(hessian, b - r)
    gamma = gamma - b @ (gamma - b.log())
    return (-epsilon * torch.logsumexp(base + gamma, dim=1)).numpy(), gamma


def drawn(mixture, number: int) -> Problem:
    rng = np.random.default_rng(number)
    n, m, width = rng.integers([20, 1, 2], [150, 20, 30]).tolist()
    mass = rng.random(n) + 0.05 if number % 3 == 0 else None
    return Problem(
        mixture(m, number + 1, width),
        [mixture(n, number + 1000, width)],
        epsilon=float(10 ** rng.uniform(-1.7, 0.7)),
        target_mass=rng.random(m) + 0.1 if number % 4 == 0 else None,
        candidate_mass=None if mass is None else [mass],
    )


def loosely(problem: Problem, number: int) -> Potentials:
    tolerance = float(10 ** np.random.default_rng(number).uniform(-5.0, -0.5))
    return solve_semidual(problem, tolerance=tolerance, compute=DOUBLE)


def spread(values: np.ndarray) -> float:
    return float(values.max() - values.min())


def radii(mixture, number: int) -> list[tuple[float, float]]:
    """Return true and proven distance to the solution at points near and far from it."""
    problem = drawn(mixture, number)
    epsilon = problem.dense()[1]
    _, solution = exact(problem, epsilon)
    prover, rng = Prover(problem, epsilon, DOUBLE), np.random.default_rng(number)
    out = [np.empty(problem.n_candidates)]
    found = []
    for size in 10.0 ** rng.uniform(-4.0, 0.0, size=6):
        at = solution + size * torch.as_tensor(rng.normal(size=len(solution)))
        curvature, rho = prover._pass_with_hessian(at, out)
        assert curvature is not None
        found.append((oscillation(solution - at), curvature.radius(at, rho)))
        there = at + 0.3 * size * torch.as_tensor(rng.normal(size=len(solution)))
        rho = prover._pass(there, out)
        found.append((oscillation(solution - there), curvature.radius(there, rho)))
    return found


def violated(mixture, numbers) -> int:
    pairs = itertools.chain.from_iterable(radii(mixture, number) for number in numbers)
    return sum(true > bound + 1e-11 for true, bound in pairs)


def test_the_distance_to_the_solution_is_bounded(mixture):
    assert violated(mixture, range(40)) == 0
    pairs = np.array([pair for number in range(10) for pair in radii(mixture, number)])
    near = pairs[(pairs[:, 0] < 1e-2) & (pairs[:, 0] > 1e-9)]
    assert np.median(near[:, 1] / near[:, 0]) < 1.5  # and not bounded by something useless
    assert np.isinf(pairs[:, 1]).any()  # from far away nothing is claimed


@pytest.mark.parametrize("name", ["spread", "inverse"])
def test_a_fault_in_the_bound_is_found(mixture, monkeypatch, name):
    invert = Curvature.of

    def wrong(*arguments):
        made = invert(*arguments)
        return made and dataclasses.replace(made, **{name: 0.25 * getattr(made, name)})

    monkeypatch.setattr(Curvature, "of", wrong)
    assert violated(mixture, range(20)) > 0


def test_a_hessian_of_elsewhere_is_not_trusted_here():
    # Both rows send shares p and 1 - p. Where p is near 1 the dual is much flatter than at 1/2.
    rows = np.array([[0.0], [0.0]], dtype=np.float32)
    targets = np.array([[1.0], [-1.0]], dtype=np.float32)
    problem = Problem(targets, [rows], target_mass=np.array([0.99, 0.01]))
    prover, out = Prover(problem, 1.0, DOUBLE), [np.empty(2)]

    def at(share: float) -> torch.Tensor:
        return torch.tensor([share, 1.0 - share], dtype=torch.float64).log()

    true = oscillation(at(0.99) - at(0.98))
    rho = prover._pass(at(0.98), out)
    here, _ = prover._pass_with_hessian(at(0.98), out)
    elsewhere, _ = prover._pass_with_hessian(at(0.5), out)
    assert here is not None
    assert elsewhere is not None
    assert true <= here.radius(at(0.98), rho) < 2 * true
    assert true <= elsewhere.radius(at(0.98), rho)
    as_if_near = dataclasses.replace(elsewhere, gamma=at(0.98))
    assert as_if_near.radius(at(0.98), rho) < 0.1 * true


def test_errors_of_scores_lie_in_the_proven_interval(mixture):
    for number in range(40):
        problem = drawn(mixture, number)
        solved = loosely(problem, number)
        before = solved.candidate[0].copy()
        found = examine(problem, solved, DOUBLE)
        np.testing.assert_array_equal(solved.candidate[0], before)
        f, _ = exact(problem, solved.epsilon_absolute)
        slack = 1e-10 * solved.epsilon_absolute  # of the reference
        assert spread(before - f) <= found.width + 2 * found.rounding + slack
        assert found.width <= 1.5 * spread(before - f) + 2 * found.rounding + slack


def test_a_proof_solves_until_rounding(mixture):
    for number in range(40):
        problem = drawn(mixture, number)
        loose = loosely(problem, number)
        solved, found = prove(problem, loose, DOUBLE)
        assert found.width <= 1e-8 * solved.epsilon_absolute
        assert solved.marginal_error <= 1e-10
        f, _ = exact(problem, solved.epsilon_absolute)
        np.testing.assert_allclose(solved.candidate[0], f, atol=1e-9 * solved.epsilon_absolute)
        assert problem.b @ solved.target == pytest.approx(0.0, abs=1e-12)


def test_no_row_is_proven_to_be_on_the_wrong_side(mixture):
    proven = 0
    for number in range(60):
        problem = drawn(mixture, number)
        solved = loosely(problem, number)
        found = examine(problem, solved, DOUBLE)
        f, _ = exact(problem, solved.epsilon_absolute)
        scores, n = solved.candidate[0], problem.n_candidates
        for k in (1, n // 10 + 1, n // 2):
            counts = count_proven([scores], k, found.width, found.rounding)
            assert sum(dataclasses.astuple(counts)) == n
            order = np.argsort(scores, kind="stable")
            best = set(np.argsort(f, kind="stable")[:k].tolist())
            assert set(order[: counts.inside].tolist()) <= best
            assert not set(order[n - counts.outside :].tolist()) & best
            proven += counts.inside
    assert proven > 500


def test_counts_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(2, 9))
        scores = rng.integers(0, 12, n) / 2.0
        k, width = int(rng.integers(1, n + 1)), float(rng.integers(0, 7)) / 2.0 + 0.01
        counts = count_proven(np.split(scores, [n // 3]), k, width)
        inside = outside = 0
        for row in range(n):
            others = np.delete(scores, row)
            # Errors lie in [0, width]: the row's is the largest, the others' the smallest.
            inside += (others <= scores[row] + width).sum() < k
            outside += (others < scores[row] - width).sum() >= k
        assert (counts.inside, counts.outside) == (inside, outside)


def test_equal_rows_at_the_boundary_are_ties():
    counts = count_proven([np.array([0.0, 1.0, 1.0]), np.array([1.0, 2.0])], 2, 1e-9, 1e-12)
    assert counts == type(counts)(inside=1, outside=1, left=0, ties=3)
    everything = count_proven([np.array([0.0, 1.0])], 2, np.inf)
    assert (everything.inside, everything.left) == (2, 0)
    with pytest.raises(ValueError, match="k must be in"):
        count_proven([np.zeros(3)], 4, 0.0)


def test_blocks_and_arrays_do_not_change_a_proof(mixture):
    problem = Problem(mixture(12, 2), [mixture(100, 1)])
    solved = solve_semidual(problem, compute=DOUBLE)
    whole, found = prove(problem, dataclasses.replace(solved), DOUBLE)
    x = problem.candidates[0]
    parts = dataclasses.replace(problem, candidates=[x[:30], x[30:30], x[30:]])
    again = solve_semidual(parts, compute=DOUBLE)
    cut, other = prove(parts, again, dataclasses.replace(DOUBLE, block_rows=7))
    np.testing.assert_allclose(np.concatenate(cut.candidate), whole.candidate[0], atol=1e-11)
    assert other.hessians == found.hessians
