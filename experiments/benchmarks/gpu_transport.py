"""Transport on a GPU: solves beside other packages, and single passes by kernels and plain."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from gpu_cells import Cell
from side_by_side import Unavailable, mixture
from transport_contenders import CERTIFIED, Inputs, Solution, ott

from gotd.engine.local import LocalEngine
from gotd.transport import Compute, Potentials, Problem, blocks, passes, score, solve_semidual
from gotd.transport.blocks import Precision, Stream

SOLVES, PASSES = "solves", "passes"
OURS, STREAMED = "gotd, float32", "gotd, float32, streamed"
FLASH = "FlashSinkhorn, strict float32"
EPSILON_SHARE = 0.05
COMPARED, LARGE = (100_000, 1_000, 384), (2_100_000, 10_000, 768)
TINY_COMPARED, TINY_LARGE = (1_500, 40, 16), (4_000, 60, 16)
WIDTHS, TINY_WIDTHS = (64, 384, 768), (16,)

# Iterations that FlashSinkhorn is tried with, on a part of the rows.
ITERATIONS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)

# Rows that are drawn; a larger problem repeats them, because drawing would take a minute.
DRAWN = 300_000


def pose(n: int, m: int, d: int, seed: int) -> Inputs:
    """Return ``n`` candidates, ``m`` targets and an epsilon."""
    x, y = mixture(min(n, DRAWN), [m], d, seed)
    mean = float((x**2).sum(1).mean(dtype=np.float64) + (y**2).sum(1).mean(dtype=np.float64))
    mean -= 2.0 * float(x.mean(0, dtype=np.float64) @ y.mean(0, dtype=np.float64))
    if n > len(x):
        x = np.tile(x, (-(-n // len(x)), 1))[:n]
    priority = np.random.default_rng(seed + 1).permutation(n).astype(np.float64)
    return Inputs(x, y, (priority + 0.5) / n, EPSILON_SHARE * mean)


def fitting(size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return a size with as many candidates as the host's free memory allows."""
    n, m, d = size
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(n, int(0.4 * free / (4 * d))), m, d


def words(size: tuple[int, int, int]) -> str:
    """Format a size."""
    return " x ".join(f"{number:,}" for number in size)


def ours(
    inputs: Inputs, precision: Precision, device: str, streamed: bool
) -> Callable[[], Callable[[], Solution]]:
    """Prepare our solver, with candidates that stay on the device or are copied in every pass."""

    def solve(x: np.ndarray, priority: np.ndarray) -> Solution:
        # Two threads, so that one copies a block while the device computes another.
        how = LocalEngine(2).map if streamed else map
        share = 0.0 if streamed else blocks.RESIDENT_SHARE
        with patch.object(blocks, "RESIDENT_SHARE", share):
            found = solve_semidual(
                Problem(inputs.y, [x], epsilon=inputs.epsilon, epsilon_is="absolute"),
                [priority],
                tolerance=CERTIFIED,
                on_failure="warn",
                compute=Compute(precision=precision, device=device, map_blocks=how),
            )
        return Solution(found.candidate[0], found.target, found.passes)

    def prepare() -> Callable[[], Solution]:
        solve(inputs.x[:1000], inputs.priority[:1000])  # the first call compiles and allocates
        return lambda: solve(inputs.x, inputs.priority)

    return prepare


def flash(inputs: Inputs, device: str) -> Callable[[], Callable[[], Solution]]:
    """Prepare FlashSinkhorn on rows that are on the device.

    It stops by the change of its potentials, whose maximum says little about the marginal. So it
    gets the number of iterations that a part of the rows needs, without any check: its best case.
    """

    def prepare() -> Callable[[], Solution]:
        from flash_sinkhorn.kernels import sinkhorn_flashstyle_alternating

        y = torch.from_numpy(inputs.y).to(device)
        b = torch.full((len(y),), 1.0 / len(y), device=device)

        def solve(x: torch.Tensor, iterations: int) -> Solution:
            a = torch.full((len(x),), 1.0 / len(x), device=device)
            f, g = sinkhorn_flashstyle_alternating(
                x, y, a, b, eps=inputs.epsilon, n_iters=iterations, allow_tf32=False
            )[:2]
            return Solution(f.double().cpu().numpy(), g.double().cpu().numpy(), iterations)

        part = inputs._replace(x=inputs.x[: 10 * len(y)])
        some, error_of = torch.from_numpy(part.x).to(device), judge(part, device)
        for iterations in ITERATIONS:
            if error_of(solve(some, iterations))["marginal_error"] <= CERTIFIED:
                x = torch.from_numpy(inputs.x).to(device)
                return lambda: solve(x, iterations)
        raise Unavailable(f"an error above {CERTIFIED} after {ITERATIONS[-1]} iterations")

    return prepare


def geomloss(inputs: Inputs, device: str, scaling: float) -> Callable[[], Callable[[], Solution]]:
    """Prepare geomloss's annealed Sinkhorn on the whole matrix, on the device."""

    def prepare() -> Callable[[], Solution]:
        from geomloss import SamplesLoss

        # Its cost is half the squared distance, so epsilon and potentials are halves too.
        loss = SamplesLoss(
            "sinkhorn",
            p=2,
            blur=float(np.sqrt(inputs.epsilon / 2)),
            scaling=scaling,
            debias=False,
            potentials=True,
            backend="tensorized",
        )
        x, y = (torch.from_numpy(rows).to(device) for rows in (inputs.x, inputs.y))

        def run() -> Solution:
            with torch.no_grad():
                f, g = (2.0 * p.flatten().double().cpu().numpy() for p in loss(x, y))
            return Solution(f, g, None)

        return run

    return prepare


def ott_jax(inputs: Inputs, device: str) -> Callable[[], Callable[[], Solution]]:
    """Prepare ott-jax in batches of 2000, if jax sees the device."""

    def prepare() -> Callable[[], Solution]:
        import jax

        if device == "cuda" and jax.default_backend() != "gpu":
            raise Unavailable("this jax has no GPU; install its build for CUDA")
        return ott(inputs, 1e-2, None)()

    return prepare


def judge(inputs: Inputs, device: str) -> Callable[[Solution], dict[str, Any]]:
    """Return a function that measures the marginal error of a target potential in float64."""

    def measured(solution: Solution) -> dict[str, Any]:
        problem = Problem(inputs.y, [inputs.x], epsilon=inputs.epsilon, epsilon_is="absolute")
        theirs = Potentials((), solution.g, inputs.epsilon, 0.0, 0.0, 0, False)
        _, received = score(problem, theirs, Compute("float64", device))
        error = float(np.abs(received - problem.b).sum())
        return {"marginal_error": error, "steps": solution.steps}

    return measured


def solve_cells(size: tuple[int, int, int], device: str, seed: int, peers: bool) -> Iterator[Cell]:
    """Yield solves of one size: ours, FlashSinkhorn, and for a smaller one all other packages."""
    inputs = pose(*size, seed)
    field: list[tuple[str, Callable[[], Any], tuple[str, ...]]] = [
        (OURS, ours(inputs, "float32", device, False), ()),
        (STREAMED, ours(inputs, "float32", device, True), ()),
        ("gotd, bfloat16", ours(inputs, "bfloat16", device, False), ()),
        (FLASH, flash(inputs, device), ("flash_sinkhorn",)),
    ]
    if peers:
        field += [
            ("geomloss, scaling .5", geomloss(inputs, device, 0.5), ("geomloss",)),
            ("ott-jax, threshold 1e-2", ott_jax(inputs, device), ("ott", "jax")),
        ]
    for name, prepare, needs in field:
        yield Cell(
            *(SOLVES, name, words(size), prepare, judge(inputs, device), needs),
            most_rounds=3 if peers else 1,  # FlashSinkhorn takes minutes at the largest size
        )


def one_pass(
    inputs: Inputs, precision: Precision, device: str, fused: bool
) -> Callable[[], Callable[[], torch.Tensor]]:
    """Prepare passes over candidates that stay on the device."""

    def prepare() -> Callable[[], torch.Tensor]:
        if fused and device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
            raise Unavailable("kernels need a GPU, or TRITON_INTERPRET=1")
        stream = Stream(Problem(inputs.y, [inputs.x]), Compute(precision, device))
        stream.keep_blocks()
        gamma, out = stream.b.log(), stream.outputs(None)

        def run() -> torch.Tensor:
            with patch.object(passes, "is_fusible", lambda _: fused):
                return passes.scan(stream, inputs.epsilon, gamma, out)

        run()  # compiles, and copies the candidates
        return run

    return prepare


def pass_cells(size: tuple[int, int, int], device: str, seed: int) -> Iterator[Cell]:
    """Yield one pass in each precision, by kernels and plain, with its error."""
    inputs = pose(*size, seed)

    def error(received: torch.Tensor) -> dict[str, Any]:
        stream = Stream(Problem(inputs.y, [inputs.x]), Compute("float64", device))
        exact = passes.scan(stream, inputs.epsilon, stream.b.log(), stream.outputs(None))
        return {"difference": float((received - exact).abs().sum())}

    for precision in ("float32", "bfloat16"):
        for fused in (False, True):
            yield Cell(
                PASSES,
                f"{precision}, {'kernels' if fused else 'plain'}",
                words(size),
                one_pass(inputs, precision, device, fused),
                error,
                ("triton",) if fused else (),
                2.0 * size[0] * size[1] * size[2],
            )
