"""A pass by fused kernels gives what the plain pass gives, and is used where there is a GPU."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from gotd.transport import Compute, Problem, passes
from gotd.transport.blocks import Logits, Precision, Stream

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # a process that imports torch and Triton
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_the_kernels_in_the_interpreter_of_triton():
    tests = Path(__file__).with_name("interpreted_fused.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", str(tests)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_a_pass_on_a_processor_is_plain(mixture):
    stream = Stream(Problem(mixture(20, 2), [mixture(50, 1)]), Compute(device="cpu"))
    assert not passes.is_fusible(Logits(stream, 1.0))
    assert isinstance(passes.sums_of(stream, 1.0, stream.b.log()), passes.PlainSums)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kernels_and_plain_passes_agree_on_a_gpu(mixture, monkeypatch, precision: Precision):
    pytest.importorskip("triton")
    problem = Problem(mixture(300, 2), [mixture(5000, 1), mixture(77, 3)])
    stream = Stream(problem, Compute(precision, "cuda", block_rows=2000))
    epsilon = problem.epsilon_in_cost_units(stream.mean_cost())
    logits = Logits(stream, epsilon)
    assert passes.is_fusible(logits)
    results = []
    for fused in (True, False):
        monkeypatch.setattr(passes, "is_fusible", lambda _, fused=fused: fused)
        out = stream.outputs(None)
        received = passes.scan(stream, epsilon, stream.b.log(), out)
        results.append((np.concatenate(out), received.cpu().numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-4 * epsilon)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-6)
