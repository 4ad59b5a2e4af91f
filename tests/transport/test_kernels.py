import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from gotd.transport import Compute, Geometry, Problem
from gotd.transport.kernels import Kernel, fit_kernel, kernel_sums

EXACT = Compute(precision="float64", device="cpu", block_rows=7)


def direct(kernel: Kernel, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``[n, m]`` similarities, from the definition."""
    distance = cdist(x.astype(np.float64), y.astype(np.float64))
    return -distance if kernel.name == "energy" else np.exp(-(distance**2) / (2 * kernel.width**2))


@pytest.mark.parametrize("name", ["rbf", "energy"])
def test_sums_are_those_of_the_definition(mixture, name):
    x, y = mixture(40, 1) + 3, mixture(15, 2) + 3
    y[4] = x[7]
    weights = np.random.default_rng(0).normal(size=15)
    problem = Problem(y, [x[:10], x[10:10], x[10:]])
    kernel = fit_kernel(problem, name, x)
    expected = direct(kernel, x, y) @ weights
    found = kernel_sums(problem, weights, kernel, EXACT)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-6)
    np.testing.assert_allclose(
        np.concatenate(kernel_sums(problem, weights, kernel, Compute(device="cpu"))),
        expected,
        atol=1e-5 if name == "rbf" else 2e-2,
    )
    assert kernel.own == direct(kernel, x[:1], x[:1])[0, 0]


def test_the_width_is_the_median_distance(mixture):
    x = mixture(31, 1)
    kernel = fit_kernel(Problem(x[:5], [x]), "rbf", x)
    assert kernel.width == pytest.approx(np.median(pdist(x.astype(np.float64))))
    cosine = Problem(x[:5], [x], geometry=Geometry("cosine"))
    unit = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    assert fit_kernel(cosine, "rbf", x).width == pytest.approx(np.median(pdist(unit)) / 2**0.5)


def test_equal_rows_have_no_width(mixture):
    x = np.repeat(mixture(1, 1), 5, axis=0)
    with pytest.raises(ValueError, match="kernel=energy"):
        fit_kernel(Problem(x, [x]), "rbf", x)
    fit_kernel(Problem(x, [x]), "energy", x)


def test_equal_rows_have_equal_sums(mixture):
    x = np.tile(mixture(1, 1), (1000, 1))
    points = mixture(333, 2)
    for precision in ("float32", "float64"):
        compute = Compute(precision=precision, device="cpu", block_rows=20)
        kernel = fit_kernel(Problem(points, [x]), "rbf", points)
        sums = kernel_sums(Problem(points, [x[:100], x[100:]]), np.ones(333), kernel, compute)
        assert len(np.unique(np.concatenate(sums))) == 1
