import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import ot
import pytest
import torch
from scipy.stats import spearmanr

from gotd.transport import (
    Compute,
    NotConverged,
    Potentials,
    Problem,
    calibrate,
    score,
    solve_semidual,
)
from gotd.transport.dense import soft_minimum, solve_dense

DOUBLE = Compute(precision="float64", device="cpu")


def overlap(f: np.ndarray, reference: np.ndarray, share: float) -> float:
    k = max(1, int(share * len(f)))
    return len(np.intersect1d(np.argsort(f)[:k], np.argsort(reference)[:k])) / k


def solve(problem: Problem, rows: int | None = None, compute=DOUBLE, **settings) -> Potentials:
    """Solve with a reference sample that follows the rows' content, not their order."""
    priority = [np.modf(np.abs(x[:, 0].astype(float)) * 1e4)[0] for x in problem.candidates]
    return solve_semidual(problem, priority, reference_rows=rows, compute=compute, **settings)


@pytest.fixture
def problem(mixture) -> Problem:
    return Problem(mixture(40, 2), [mixture(600, 1)])


@pytest.fixture
def weighted(problem) -> Problem:
    rng = np.random.default_rng(5)
    mass = rng.random(600) + 0.05
    mass[::50] = 0.0
    return dataclasses.replace(problem, target_mass=rng.random(40) + 0.1, candidate_mass=[mass])


@pytest.mark.parametrize("case", ["problem", "weighted"])
@pytest.mark.parametrize("rows", [None, 300])
def test_equals_dense_sinkhorn(case, rows, request):
    problem = request.getfixturevalue(case)
    ours = solve(problem, rows, tolerance=1e-8, max_passes=60)
    dense = solve_dense(problem, tolerance=1e-10)
    np.testing.assert_allclose(ours.candidate[0], dense.candidate[0], atol=1e-6)
    np.testing.assert_allclose(ours.target, dense.target, atol=1e-6)
    assert ours.value == pytest.approx(dense.value, abs=1e-8)
    assert ours.epsilon_absolute == pytest.approx(dense.epsilon_absolute, rel=1e-12)


def test_certificate_is_the_dense_marginal_error(weighted, transport_plan):
    ours = solve(weighted, 200, max_passes=1, on_failure="warn")
    cost, epsilon, _ = weighted.dense()
    a, b = torch.as_tensor(weighted.a[0]), torch.as_tensor(weighted.b)
    f, g = torch.as_tensor(ours.candidate[0]), torch.as_tensor(ours.target)
    plan = transport_plan(cost, f, g, a, b, epsilon)
    torch.testing.assert_close(plan.sum(dim=1), a, rtol=0, atol=1e-10)
    error = float((plan.sum(dim=0) - b).abs().sum())
    assert error > 1e-3
    assert ours.marginal_error == pytest.approx(error, rel=1e-6)


def test_passes_correct_what_the_sample_gets_wrong(problem):
    ours = solve(problem, 200, tolerance=1e-4, max_passes=30)
    assert ours.history[0] > 0.02
    assert ours.marginal_error <= 1e-4
    assert ours.marginal_error == min(ours.history)
    assert ours.reference_rows == 200


@pytest.mark.parametrize("block_rows", [1, 7, 599, 600, 1000])
def test_blocks_change_nothing(problem, block_rows):
    whole = solve(problem, 250)
    cut = solve(problem, 250, dataclasses.replace(DOUBLE, block_rows=block_rows))
    np.testing.assert_allclose(cut.candidate[0], whole.candidate[0], rtol=0, atol=1e-11)
    assert cut.marginal_error == pytest.approx(whole.marginal_error, abs=1e-12)


def test_arrays_and_threads_change_nothing(problem):
    whole = solve(problem, 250)
    x = problem.candidates[0]
    parts = dataclasses.replace(problem, candidates=[x[:100], x[100:100], x[100:347], x[347:]])
    with ThreadPoolExecutor(2) as pool:
        compute = dataclasses.replace(DOUBLE, block_rows=50, map_blocks=pool.map)
        cut = solve(parts, 250, compute)
    assert [len(f) for f in cut.candidate] == [100, 0, 247, 253]
    np.testing.assert_allclose(np.concatenate(cut.candidate), whole.candidate[0], atol=1e-11)


def test_permuting_the_rows_permutes_the_potentials(problem):
    whole = solve(problem, 250)
    order = np.random.default_rng(0).permutation(600)
    moved = solve(dataclasses.replace(problem, candidates=[problem.candidates[0][order]]), 250)
    np.testing.assert_allclose(moved.candidate[0], whole.candidate[0][order], atol=1e-11)


def test_equal_rows_have_equal_potentials(problem):
    x = problem.candidates[0]
    doubled = dataclasses.replace(problem, candidates=[x, x[:10]])
    ours = solve(doubled, 250)
    np.testing.assert_allclose(ours.candidate[1], ours.candidate[0][:10], rtol=0, atol=1e-12)


def test_doubling_a_row_is_doubling_its_mass(problem):
    x = problem.candidates[0]
    mass = np.ones(600)
    mass[:10] = 2.0
    rows = solve(dataclasses.replace(problem, candidates=[x, x[:10]]), tolerance=1e-9)
    masses = solve(dataclasses.replace(problem, candidate_mass=[mass]), tolerance=1e-9)
    np.testing.assert_allclose(rows.candidate[0], masses.candidate[0], atol=1e-8)


def test_absolute_epsilon_is_the_relative_one_times_the_mean_cost(problem):
    relative = solve(problem)
    absolute = dataclasses.replace(
        problem, epsilon=0.05 * relative.mean_cost, epsilon_is="absolute"
    )
    np.testing.assert_allclose(solve(absolute).candidate[0], relative.candidate[0], atol=1e-9)


def test_value_and_gauge(weighted):
    ours = solve(weighted)
    assert weighted.b @ ours.target == pytest.approx(0.0, abs=1e-12)
    assert ours.value == pytest.approx(weighted.a[0] @ ours.candidate[0], rel=1e-12)


def test_memory_maps_are_read_and_left_alone(problem, tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, problem.candidates[0])
    mapped = dataclasses.replace(problem, candidates=[np.load(path, mmap_mode="r")])
    np.testing.assert_array_equal(solve(mapped, 250).candidate[0], solve(problem, 250).candidate[0])
    np.testing.assert_array_equal(np.load(path), problem.candidates[0])


def test_a_tiny_epsilon_survives_float32(problem):
    tiny = dataclasses.replace(problem, epsilon=0.002)
    ours = solve(tiny, compute=Compute(device="cpu"), tolerance=1e-3, max_passes=30)
    dense = solve_dense(tiny, tolerance=1e-4)
    assert spearmanr(ours.candidate[0], dense.candidate[0]).statistic > 0.9999


def test_new_candidates_are_scored_out_of_sample(problem, mixture):
    ours = solve(problem)
    again, received = score(problem, ours, DOUBLE)
    np.testing.assert_allclose(again[0], ours.candidate[0], atol=1e-12)
    assert np.abs(received - problem.b).sum() == pytest.approx(ours.marginal_error, abs=1e-12)
    new = dataclasses.replace(problem, candidates=[mixture(20, 9)])
    cost, _, _ = new.dense()
    g, log_b = torch.as_tensor(ours.target), torch.as_tensor(np.log(new.b))
    expected = soft_minimum(cost, g, log_b, ours.epsilon_absolute)
    np.testing.assert_allclose(score(new, ours, DOUBLE)[0][0], expected.numpy(), atol=1e-10)
    fewer = dataclasses.replace(problem, target=problem.target[:5])
    with pytest.raises(ValueError, match="40 targets, not 5"):
        score(fewer, ours)


@pytest.mark.parametrize("rows", [None, 250])
def test_out_is_filled_and_nothing_else(problem, rows, tmp_path):
    x = problem.candidates[0]
    cut = dataclasses.replace(problem, candidates=[x[:100], x[100:]])
    expected = solve(cut, rows)
    out = [np.lib.format.open_memmap(tmp_path / f"{n}.npy", "w+", float, (n,)) for n in (100, 500)]
    ours = solve(cut, rows, out=out)
    assert all(f is array for f, array in zip(ours.candidate, out, strict=True))
    assert ours.value == expected.value
    for array, f in zip(out, expected.candidate, strict=True):
        np.testing.assert_array_equal(array, f)
    again, _ = score(cut, ours, DOUBLE, out)
    assert again[0] is out[0]
    np.testing.assert_allclose(out[1], expected.candidate[1], atol=1e-12)


@pytest.mark.parametrize("out", [[], [np.zeros(599)], [np.zeros(600, np.float32)]])
def test_an_out_that_does_not_fit_is_refused(problem, out):
    with pytest.raises(ValueError, match="out must hold"):
        solve(problem, out=out)


def test_the_best_pass_is_kept_when_the_last_was_worse(problem):
    # At this epsilon a sample of as many rows as targets stagnates: passes get worse. The eighth
    # repeats the best one.
    hard = dataclasses.replace(problem, epsilon=0.01)
    with pytest.warns(RuntimeWarning, match="after 8 passes"):
        kept = solve(hard, 60, tolerance=1e-6, max_passes=7, on_failure="warn")
    assert kept.history[-1] > min(kept.history)
    f, received = score(hard, kept, DOUBLE)
    np.testing.assert_allclose(f[0], kept.candidate[0], atol=1e-12)
    assert np.abs(received - hard.b).sum() == pytest.approx(min(kept.history), rel=1e-9)


@pytest.mark.parametrize("row", [0, 17, 599])
def test_finite_differences_agree_with_the_calibrated_gradient(problem, row):
    (gradient,) = solve(problem, tolerance=1e-11).candidate
    calibrate([gradient])
    # One epsilon in cost units: moving mass would move the mean cost.
    epsilon = problem.epsilon * solve(problem).mean_cost
    fixed = dataclasses.replace(problem, epsilon=epsilon, epsilon_is="absolute")

    def value(step: float) -> float:
        mass = np.full(600, 1 / 600 - step / 599)
        mass[row] = 1 / 600 + step
        moved = dataclasses.replace(fixed, candidate_mass=[mass])
        return solve(moved, tolerance=1e-12).value

    step = 1e-4
    slope = (value(step) - value(-step)) / (2 * step)
    assert gradient[row] == pytest.approx(slope, abs=1e-6)


def test_a_shift_of_the_potential_changes_nothing(problem):
    ours = solve(problem)
    shifted = dataclasses.replace(ours, target=ours.target + 7.0)
    values = [score(problem, p, DOUBLE)[0] for p in (ours, shifted)]
    for potential in values:
        calibrate(potential)
    np.testing.assert_allclose(values[0], values[1], rtol=0, atol=1e-12)


def test_small_epsilon_meets_the_exact_solution(mixture, transport_plan):
    small = Problem(mixture(8, 2, width=3), [mixture(30, 1, width=3)], epsilon=1e-3)
    ours = solve(small, tolerance=1e-3, max_passes=30)
    cost, _, _ = small.dense()
    plan = ot.emd(np.array(small.a[0]), small.b, cost.numpy())
    exact = (plan * cost.numpy()).sum()
    assert ours.value == pytest.approx(exact, abs=5e-3 * ours.mean_cost)
    entropic = transport_plan(
        cost,
        torch.as_tensor(ours.candidate[0]),
        torch.as_tensor(ours.target),
        torch.as_tensor(np.array(small.a[0])),
        torch.as_tensor(small.b),
        ours.epsilon_absolute,
    )
    assert np.abs(entropic.numpy() - plan).sum() < 0.02


def test_a_missed_tolerance_is_an_error_that_says_what_to_change(problem):
    hard = dataclasses.replace(problem, epsilon=0.01)
    with pytest.raises(NotConverged, match=r"reference_rows above 60.*larger epsilon") as caught:
        solve(hard, 60, tolerance=1e-6, max_passes=2)
    assert not caught.value.potentials.converged
    with pytest.warns(RuntimeWarning, match="after 3 passes"):
        kept = solve(hard, 60, tolerance=1e-6, max_passes=2, on_failure="warn")
    assert kept.marginal_error == min(kept.history)


def test_a_sample_needs_priorities(problem):
    with pytest.raises(ValueError, match="hash of its id"):
        solve_semidual(problem, reference_rows=100)
    with pytest.raises(ValueError, match="one number per candidate row"):
        solve_semidual(problem, [np.zeros(3)], reference_rows=100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_failure": "ignore"}, "raise or warn"),
        ({"max_passes": 0}, "at least 1"),
        ({"tolerance": 0.0}, "positive"),
        ({"reference_rows": 0}, "at least 1"),
    ],
)
def test_bad_settings_are_refused(problem, settings, message):
    with pytest.raises(ValueError, match=message):
        solve_semidual(problem, **settings)


@pytest.fixture(scope="module")
def larger(mixture) -> tuple[Problem, Potentials]:
    problem = Problem(mixture(200, 2, 48, 30), [mixture(5000, 1, 48, 30)])
    exact = solve_semidual(problem, tolerance=1e-9, compute=DOUBLE, max_passes=3)
    return problem, exact


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_certified_ranking_is_the_exact_ranking(larger, precision):
    problem, exact = larger
    ours = solve(problem, 1500, Compute(precision=precision, device="cpu"), tolerance=5e-3)
    assert len(ours.history) > 1
    assert spearmanr(ours.candidate[0], exact.candidate[0]).statistic >= 0.9999
    assert overlap(ours.candidate[0], exact.candidate[0], 0.01) >= 0.99
    assert overlap(ours.candidate[0], exact.candidate[0], 0.10) >= 0.99


def test_float32_orders_as_float64(larger):
    problem, exact = larger
    single = solve(problem, None, Compute(device="cpu"), tolerance=1e-4)
    spread = exact.candidate[0].std()
    assert np.abs(single.candidate[0] - exact.candidate[0]).max() < 1e-3 * spread
    assert overlap(single.candidate[0], exact.candidate[0], 0.01) == 1.0


def test_bfloat16_keeps_the_order(larger):
    problem, exact = larger
    half = solve(problem, 1500, Compute(precision="bfloat16", device="cpu"))
    assert spearmanr(half.candidate[0], exact.candidate[0]).statistic > 0.9995
    assert overlap(half.candidate[0], exact.candidate[0], 0.10) > 0.97


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_cuda_agrees_with_the_cpu(larger, precision):
    problem, exact = larger
    ours = solve(problem, 1500, Compute(precision=precision, device="cuda"))
    assert spearmanr(ours.candidate[0], exact.candidate[0]).statistic > 0.9995


def test_a_start_shortens_the_fit_and_changes_nothing(problem, weighted):
    solved = solve(problem, tolerance=1e-9)
    near = dataclasses.replace(weighted, target_mass=None)
    cold = solve(near, tolerance=1e-9)
    warm = solve(near, tolerance=1e-9, start=solved.target)
    np.testing.assert_allclose(warm.candidate[0], cold.candidate[0], atol=1e-7)
    with pytest.raises(ValueError, match="one number per target"):
        solve(near, start=np.zeros(3))
