import pickle

import numpy as np
import pytest

from gotd.transport import Problem
from gotd.transport.dense import solve_dense

X, Y = np.zeros((4, 2), dtype=np.float32), np.ones((3, 2), dtype=np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"epsilon_is": "percent"}, "relative or absolute"),
        ({"candidates": []}, "at least one"),
        ({"candidates": [np.zeros((4, 5), dtype=np.float32)]}, "differ in width"),
        ({"target_mass": np.array([1.0, 0.0, 1.0])}, "target_mass"),
        ({"candidate_mass": [np.ones(3)]}, "one number per candidate"),
        ({"candidate_mass": [np.array([1.0, 1.0, 1.0, -1.0])]}, "negative"),
        ({"candidate_mass": [np.zeros(4)]}, "zero everywhere"),
    ],
)
def test_bad_problems_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Problem(**{"target": Y, "candidates": [X], **change})


def test_masses_are_scaled_to_one():
    problem = Problem(Y, [X, X], candidate_mass=[np.ones(4), 3 * np.ones(4)])
    assert [part.sum() for part in problem.a] == [0.25, 0.75]


def test_equal_masses_take_no_room_in_memory_or_in_a_pickle():
    rows = np.zeros((100_000, 1), dtype=np.float32)
    problem = Problem(Y[:, :1], [rows])
    assert problem.a[0].strides == (0,)
    assert problem.a[0][7] == 1e-5
    assert len(pickle.dumps(problem)) < rows.nbytes + 1000
    assert pickle.loads(pickle.dumps(problem)).a[0][7] == 1e-5


def test_relative_epsilon_needs_a_cost():
    with pytest.raises(ValueError, match="same point"):
        solve_dense(Problem(X, [X]))


def test_a_dense_solver_refuses_what_would_not_fit():
    many = np.broadcast_to(np.zeros((1, 2), dtype=np.float32), (2**20, 2))
    with pytest.raises(ValueError, match="solver=semidual"):
        Problem(many[:1000], [many]).dense()
