"""Tests of the fused kernels in Triton's interpreter, which `test_fused.py` runs in a process.

Triton decides at its import whether it interprets, so these tests need a process of their own.
"""

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from gotd.transport import Compute, Problem, fused, passes, solve_semidual, stored
from gotd.transport.blocks import Stream
from gotd.transport.problem import Potentials

LOWEST = -60.0
CASES = {
    "odd sizes": (140, 150, 70, 1.0, 0.0),
    "one target": (70, 1, 19, 1.0, 0.0),
    "one candidate": (1, 77, 5, 1.0, 0.0),
    "one number": (130, 65, 1, 1.0, 0.0),
    "tiny epsilon": (90, 70, 33, 1e4, 0.0),
    "large epsilon": (90, 70, 33, 1e-6, 0.0),
    "large bias": (67, 65, 8, 1.0, 400.0),
    "duplicates": (120, 90, 16, 1.0, 0.0),
    "zero vectors": (120, 90, 16, 1.0, 0.0),
}


def operands(case: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Draw rows, weights, bias and sent masses of a case."""
    n, m, d, scale, shift = CASES[case]
    draw = torch.Generator().manual_seed(len(case))
    x, weight = (torch.randn(size, generator=draw) for size in ((n, d), (d, m)))
    bias, sent = (torch.rand(size, generator=draw) for size in (m, n))
    if case == "duplicates":
        x[n // 2 :], weight[:, m // 2 :] = x[0], weight[:, :1]
    if case == "zero vectors":
        x[::3], weight[:, ::4] = 0.0, 0.0
    return x.to(dtype), (weight * scale).to(dtype), bias + shift, sent


def errors(module: ModuleType, case: str, dtype: torch.dtype) -> tuple[float, float]:
    """Return the errors of soft maxima and of column sums, in units of the expected rounding."""
    x, weight, bias, sent = operands(case, dtype)
    sums = module.FusedSums(weight, bias, LOWEST)
    rows, top, total = sums.sum_rows(x)
    columns = sums.sum_columns(rows, top, sent)
    z = x.double() @ weight.double() + bias.double()
    largest = z.amax(dim=1)
    p = (z - largest[:, None]).clamp(min=LOWEST).exp2()
    assert top.dtype == total.dtype == torch.float32
    assert columns.shape == bias.shape
    rounding = 1e-6 * (1.0 + float(z.abs().max()))
    soft_max = largest + p.sum(dim=1).log2()
    expected = p.T @ sent.double()
    first = (top.double() + total.double().log2() - soft_max).abs().max()
    second = (columns - expected).abs().sum() / expected.sum()
    return float(first) / rounding, float(second) / rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_the_kernels_are_those_sums_in_float64(case, dtype):
    soft_max, columns = errors(fused, case, dtype)
    assert soft_max <= 1.0  # a NaN fails, too
    assert columns <= 1.0


def test_pieces_of_a_column_add_up(monkeypatch):
    whole = errors(fused, "odd sizes", torch.float32)
    monkeypatch.setattr(fused, "PIECE_ROWS", 64)
    assert errors(fused, "odd sizes", torch.float32) == pytest.approx(whole, rel=0.5)
    assert max(errors(fused, "odd sizes", torch.float32)) <= 1.0


FAULTS = [
    ("total * tl.exp2(top - higher)", "total"),
    ("tl.exp2(z - higher[:, None])", "tl.exp2(z - top[:, None])"),
    ("        top = higher\n", ""),
    ("tl.maximum(z - t[:, None], lowest)", "tl.maximum(z, lowest)"),
    ("p * s[:, None]", "p"),
    ('other=float("inf")', "other=0.0"),
    ("return z + tl.load(bias + targets)[None, :]", "return z"),
    ("value=-math.inf", "value=0.0"),
    ("mask=k[:, None] < d", "mask=k[:, None] < d - 1"),
    ("rows < n, other=0.0)", "rows < n - 1, other=0.0)"),
]


@pytest.mark.parametrize(("right", "wrong"), FAULTS)
def test_a_fault_in_a_kernel_is_found(right, wrong, tmp_path):
    source = Path(fused.__file__).read_text("utf-8")
    assert right in source
    (tmp_path / "faulty.py").write_text(source.replace(right, wrong), "utf-8")
    spec = importlib.util.spec_from_file_location("faulty", tmp_path / "faulty.py")
    faulty = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faulty)
    with np.errstate(all="ignore"):
        found = [errors(faulty, case, torch.float32) for case in ("odd sizes", "large bias")]
    assert not all(error <= 10.0 for pair in found for error in pair)


def test_kernels_are_compared_before_their_first_use(monkeypatch):
    fused.is_trusted.cache_clear()
    cpu = torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fused.is_trusted(cpu, torch.float32)
        assert fused.is_trusted(cpu, torch.bfloat16)
    fused.is_trusted.cache_clear()
    monkeypatch.setattr(fused, "_sum_rows", None)  # as if it could not be compiled
    with pytest.warns(RuntimeWarning, match="cannot be used on cpu: TypeError"):
        assert not fused.is_trusted(cpu, torch.float32)
    fused.is_trusted.cache_clear()


@pytest.fixture
def by_kernels(monkeypatch) -> list[tuple[int, int]]:
    """Let passes in float32 and bfloat16 use the kernels, and count their blocks."""
    used = []

    class Counted(fused.FusedSums):
        def sum_rows(self, x):
            used.append(tuple(x.shape))
            return super().sum_rows(x)

    monkeypatch.setattr(stored, "MOST_ENTRIES", 0)  # a plan would need logits
    monkeypatch.setattr(fused, "FusedSums", Counted)
    monkeypatch.setattr(passes, "is_fusible", lambda logits: logits.dtype == torch.float32)
    return used


@pytest.mark.parametrize("weight", [None, lambda f: torch.exp(-f.clamp(min=0.0))])
def test_a_pass_by_kernels_is_a_pass(mixture, by_kernels, weight):
    problem = Problem(mixture(40, 2), [mixture(150, 1), mixture(90, 3)])
    results = []
    for precision in ("float32", "float64"):
        stream = Stream(problem, Compute(precision, "cpu", block_rows=100))
        epsilon = problem.epsilon_in_cost_units(stream.mean_cost())
        out = stream.outputs(None)
        received = passes.scan(stream, epsilon, stream.b.log(), out, weight)
        results.append((np.concatenate(out), received.numpy()))
    assert by_kernels == [(100, 16), (50, 16), (90, 16)]
    (f, received), (exact_f, exact_received) = results
    np.testing.assert_allclose(f, exact_f, atol=1e-4 * epsilon)
    np.testing.assert_allclose(received, exact_received, atol=1e-6)


def error_in_float64(problem: Problem, solved: Potentials) -> float:
    cost, _, _ = problem.dense()
    g, b = torch.as_tensor(solved.target), torch.as_tensor(problem.b)
    plan = torch.softmax(b.log() + (g - cost) / solved.epsilon_absolute, dim=1)
    return float((torch.as_tensor(np.concatenate(problem.a)) @ plan - b).abs().sum())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_errors_reported_from_kernels_are_those_of_exact_costs(mixture, by_kernels, precision):
    for number in range(4):
        rng = np.random.default_rng(number)
        n, m, width = rng.integers([100, 2, 2], [300, 25, 40]).tolist()
        shift = np.float32(rng.choice([0.0, 3.0]))
        target, rows = mixture(m, number + 1, width) + shift, mixture(n, number + 1000, width)
        problem = Problem(target, [rows + shift], epsilon=float(10 ** rng.uniform(-1.3, 0.5)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            solved = solve_semidual(
                problem,
                [rng.random(n)],
                tolerance=float(10 ** rng.uniform(-3.5, -1.3)),
                reference_rows=max(5 * m, n // 3),
                max_passes=4,
                on_failure="warn",
                compute=Compute(precision, "cpu"),
            )
        assert solved.marginal_error == pytest.approx(error_in_float64(problem, solved), rel=0.1)
    assert by_kernels
