import numpy as np
import pytest

from gotd.transport import Compute, Geometry, Problem
from gotd.transport.nearest import nearest_cost


@pytest.mark.parametrize("cost", ["squared_euclidean", "cosine"])
@pytest.mark.parametrize("block_rows", [None, 7])
def test_equals_the_smallest_of_all_costs(mixture, cost, block_rows):
    x, y = mixture(100, 1) + 5, mixture(20, 2) + 5
    x[3] = y[4]
    problem = Problem(y, [x[:40], x[40:]], geometry=Geometry(cost))
    compute = Compute(precision="float64", device="cpu", block_rows=block_rows)
    got = np.concatenate(nearest_cost(problem, compute))
    matrix, _, _ = problem.dense()
    np.testing.assert_allclose(got, matrix.min(dim=1).values.numpy(), atol=1e-10)
    assert got.argmin() == 3


def test_float32_is_never_negative(mixture):
    y = mixture(20, 2) + 100
    got = nearest_cost(Problem(y, [y]), Compute(device="cpu"))[0]
    assert got.min() >= 0.0
    assert got.max() < 1e-3


def test_out_is_filled(mixture):
    x, y = mixture(50, 1), mixture(5, 2)
    out = [np.zeros(20), np.zeros(30)]
    got = nearest_cost(Problem(y, [x[:20], x[20:]]), Compute(device="cpu"), out)
    assert got[1] is out[1]
    np.testing.assert_array_equal(
        np.concatenate(out), nearest_cost(Problem(y, [x]), Compute(device="cpu"))[0]
    )
