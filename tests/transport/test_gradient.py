import numpy as np
import pytest
import torch

from gotd.transport import calibrate
from gotd.transport.dense import sinkhorn

EPSILON = 0.05


def value(cost: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> float:
    f, g, _ = sinkhorn(cost, a, b, EPSILON, tolerance=1e-13, relaxation=1.3)
    return float(a @ f + b @ g)


def calibrated(f: np.ndarray) -> np.ndarray:
    values = f.copy()
    calibrate([values])
    return values


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(7)
    cost = torch.as_tensor(rng.random((12, 5)))
    a = torch.full((12,), 1 / 12.0, dtype=torch.float64)
    b = torch.as_tensor(rng.random(5) + 0.2)
    return cost, a, b / b.sum()


def central_difference(cost, a, b, direction: torch.Tensor) -> float:
    h = 1e-4
    return (value(cost, a + h * direction, b) - value(cost, a - h * direction, b)) / (2 * h)


@pytest.mark.parametrize("row", [0, 5, 11])
def test_equal_masses_move_evenly_from_all_others(row):
    cost, a, b = problem()
    gradient = calibrated(sinkhorn(cost, a, b, EPSILON, tolerance=1e-13)[0].numpy())
    direction = torch.full((12,), -1 / 11.0, dtype=torch.float64)
    direction[row] = 1.0
    assert gradient[row] == pytest.approx(central_difference(cost, a, b, direction), abs=1e-6)


def test_lowest_value_lowers_the_cost_most():
    cost, a, b = problem()
    gradient = calibrated(sinkhorn(cost, a, b, EPSILON)[0].numpy())
    best, worst = int(np.argmin(gradient)), int(np.argmax(gradient))

    def after(row: int) -> float:
        moved = a * 0.99
        moved[row] += 0.01
        return value(cost, moved, b)

    assert after(best) < value(cost, a, b) < after(worst)


def test_values_do_not_depend_on_the_constant():
    f = np.random.default_rng(0).normal(size=50)
    gradient = calibrated(f)
    np.testing.assert_allclose(calibrated(f + 7.0), gradient, rtol=0, atol=1e-12)
    assert abs(gradient.sum()) < 1e-12
    assert (np.argsort(gradient) == np.argsort(f)).all()


def test_arrays_are_calibrated_in_place_with_one_mean():
    f = np.random.default_rng(0).normal(size=50)
    parts = [part.copy() for part in np.split(f, [0, 1, 20])]
    calibrate(parts)
    np.testing.assert_allclose(np.concatenate(parts), calibrated(f), atol=1e-15)
    with pytest.raises(ValueError, match="at least two"):
        calibrate([np.zeros(1), np.zeros(0)])
