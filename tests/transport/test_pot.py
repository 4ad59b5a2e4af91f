import numpy as np
import ot
import pytest

from gotd.transport import NotConverged, Problem
from gotd.transport.dense import solve_dense, solve_pot


@pytest.fixture
def problem(mixture) -> Problem:
    rng = np.random.default_rng(3)
    return Problem(
        mixture(12, 2),
        [mixture(50, 1), mixture(30, 3)],
        target_mass=rng.random(12) + 0.1,
        candidate_mass=[rng.random(50) + 0.1, rng.random(30) + 0.1],
    )


def test_pot_and_our_sinkhorn_agree_with_unequal_masses(problem):
    ours, theirs = solve_dense(problem, tolerance=1e-11), solve_pot(problem, tolerance=1e-9)
    for f, expected in zip(ours.candidate, theirs.candidate, strict=True):
        np.testing.assert_allclose(f, expected, atol=1e-7)
    np.testing.assert_allclose(ours.target, theirs.target, atol=1e-7)
    assert ours.value == pytest.approx(theirs.value, abs=1e-8)
    assert [len(f) for f in theirs.candidate] == [50, 30]


def test_exact_value_lies_below_the_entropic_one(problem):
    cost, _, _ = problem.dense()
    exact = float(ot.emd2(np.concatenate(problem.a), problem.b, cost.numpy()))  # pyright: ignore
    assert exact < solve_pot(problem).value


def test_potentials_are_centred(problem):
    solution = solve_pot(problem)
    assert problem.b @ solution.target == pytest.approx(0.0, abs=1e-12)
    assert solution.marginal_error <= 5e-3


def test_an_unfinished_solve_is_an_error(mixture):
    problem = Problem(mixture(12, 2), [mixture(80, 1)], epsilon=0.005)
    with pytest.raises(NotConverged, match="looser tolerance"):
        solve_pot(problem, tolerance=1e-9, max_iterations=3)
