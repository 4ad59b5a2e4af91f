import numpy as np
import pytest
import torch

from gotd.transport import Compute, Geometry, Problem, Whitening
from gotd.transport.blocks import Stream
from gotd.transport.cost import cost_matrix


def brute_force(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((x[:, None, :].astype(float) - y[None, :, :].astype(float)) ** 2).sum(axis=2)


def test_squared_euclidean_is_the_sum_of_squares(mixture):
    x, y = mixture(30, 1), mixture(20, 2)
    got, _, _ = Problem(y, [x]).dense()
    np.testing.assert_allclose(got.numpy(), brute_force(x, y), rtol=1e-10, atol=1e-10)


def test_cosine_is_one_minus_the_cosine(mixture):
    x, y = mixture(30, 1), 3.0 * mixture(20, 2)
    unit = [
        v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x.astype(float), y.astype(float))
    ]
    got, _, _ = Problem(y, [x], geometry=Geometry("cosine")).dense()
    np.testing.assert_allclose(got.numpy(), 1.0 - unit[0] @ unit[1].T, atol=1e-12)


def test_cosine_refuses_rows_without_direction(mixture):
    with pytest.raises(ValueError, match="no direction"):
        Geometry("cosine").embed(torch.zeros(2, 3))


@pytest.mark.parametrize("cost", ["squared_euclidean", "cosine"])
def test_mean_cost_needs_no_matrix(mixture, cost):
    rng = np.random.default_rng(0)
    x, y = [mixture(31, 1) + 5, mixture(14, 2) + 5], mixture(20, 3) + 5
    problem = Problem(
        y,
        x,
        geometry=Geometry(cost),
        target_mass=rng.random(20) + 0.1,
        candidate_mass=[rng.random(31), rng.random(14)],
    )
    matrix, _, _ = problem.dense()
    expected = np.concatenate(problem.a) @ matrix.numpy() @ problem.b
    stream = Stream(problem, Compute(precision="float64", block_rows=7))
    assert stream.mean_cost() == pytest.approx(expected, rel=1e-12)
    in_float32 = Stream(problem, Compute(device="cpu")).mean_cost()
    assert in_float32 == pytest.approx(expected, rel=1e-5)


def test_whitened_candidates_vary_equally_in_all_directions(mixture):
    x = mixture(4000, 1, width=6) * np.array([100, 1, 1, 1, 1, 0.5], dtype=np.float32) + 7
    matrix = Whitening.fit([x[:1500], x[1500:]], block_rows=333).matrix
    covariance = np.cov((x.astype(float) @ matrix).T)
    # The floor, a thousandth of the mean variance, damps the smallest directions.
    plain = np.linalg.eigvalsh(np.cov(x.T.astype(float), bias=True))
    expected = plain / (plain + 1e-3 * plain.mean())
    np.testing.assert_allclose(np.sort(np.diag(covariance)), np.sort(expected), rtol=1e-2)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-6)


def test_whitening_is_one_map_for_both_sides(mixture):
    x, y = mixture(200, 1), mixture(30, 2)
    geometry = Geometry(whitening=Whitening.fit([x]))
    rows = [geometry.embed(torch.as_tensor(v.astype(float))) for v in (x, y)]
    shifted = [geometry.embed(torch.as_tensor(v.astype(float) + 9.0)) for v in (x, y)]
    torch.testing.assert_close(cost_matrix(*shifted), cost_matrix(*rows), rtol=1e-8, atol=1e-8)


def test_equal_candidates_cannot_be_whitened():
    with pytest.raises(ValueError, match="variance"):
        Whitening.fit([np.ones((5, 3), dtype=np.float32)])


def test_unknown_cost_is_refused():
    with pytest.raises(ValueError, match="squared_euclidean or cosine"):
        Geometry("manhattan")  # pyright: ignore[reportArgumentType]
