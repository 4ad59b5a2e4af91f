import numpy as np
import pytest

from gotd.transport import Compute, Problem
from gotd.transport.debias import self_potential

DOUBLE = Compute(precision="float64", device="cpu")


def test_equal_potentials_when_nobody_is_special():
    angle = 2 * np.pi * np.arange(60) / 60
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    (own,) = self_potential(Problem(ring, [ring]), 0.1, [angle], compute=DOUBLE)
    np.testing.assert_allclose(own, own[0], atol=1e-5)


def test_is_a_fixed_point_on_the_sample(mixture):
    x = mixture(80, 1)
    problem = Problem(x[:5], [x])
    cost, _, mean = Problem(x, [x]).dense()
    epsilon = 0.2 * mean
    (own,) = self_potential(problem, epsilon, [np.arange(80.0)], compute=DOUBLE)
    kernel = np.exp((own[:, None] + own[None, :] - cost.numpy()) / epsilon)
    np.fill_diagonal(kernel, 0.0)
    # Each row's share, up to the one constant that the potential leaves open.
    received = kernel.sum(axis=1)
    np.testing.assert_allclose(received / received.mean(), 1.0, atol=5e-3)


def test_a_crowd_is_cheaper_than_a_hermit(mixture):
    x = mixture(300, 1, width=4)
    x[0] += 20.0
    priority = np.random.default_rng(0).permutation(300).astype(float)
    (own,) = self_potential(Problem(x[:5], [x]), 5.0, [priority], rows=150, compute=DOUBLE)
    assert own.argmax() == 0


def test_sampled_rows_and_others_are_on_one_scale(mixture):
    x = mixture(2000, 1, width=2, clusters=3)
    priority = np.random.default_rng(0).permutation(2000).astype(float)
    problem = Problem(x[:5], [x[:700], x[700:]])
    parts = [priority[:700], priority[700:]]
    own = self_potential(problem, 0.5, iter(parts), rows=1000, compute=DOUBLE)
    values = np.concatenate(list(own))
    sampled = priority < 1000
    gap = values[sampled].mean() - values[~sampled].mean()
    assert abs(gap) < 0.1 * values.std()


def test_cutting_the_rows_changes_nothing(mixture):
    x = mixture(300, 1)
    priority = np.random.default_rng(0).random(300)
    (whole,) = self_potential(Problem(x[:5], [x]), 5.0, [priority], rows=150, compute=DOUBLE)
    cut = Problem(x[:5], [x[:100], x[100:100], x[100:]])
    parts = np.split(priority, [100, 100])
    own = list(self_potential(cut, 5.0, parts, rows=150, compute=DOUBLE))
    assert [len(values) for values in own] == [100, 0, 200]
    np.testing.assert_allclose(np.concatenate(own), whole, atol=1e-11)


def test_one_candidate_has_no_others():
    row = np.zeros((1, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="at least two"):
        self_potential(Problem(row, [row]), 1.0, [np.zeros(1)])
