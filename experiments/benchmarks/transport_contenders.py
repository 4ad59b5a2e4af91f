"""Solvers that `transport.py` compares, converted to one convention.

Each is prepared in its own process and returns the potentials by which it would rank. As with
ours, they are in cost units, and the masses are not part of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from side_by_side import Contender, Unavailable

from gotd.transport import Compute, Problem, solve_semidual

CERTIFIED = 5e-3
ONE_PASS, SURE = "gotd, one pass", "gotd, certified"
POT32, POT64, GEOMLOSS = "POT float32", "POT float64", "geomloss, scaling .5"
PUBLISHED = "ott-jax, published settings"

# Bytes that a dense solver holds per cost at its peak, measured.
DENSE_BYTES = {POT32: 16, POT64: 36, GEOMLOSS: 10}


class Solution(NamedTuple):
    """A solver's answer in our convention and in cost units.

    Args:
        f: ``[n]`` candidate potential, by which candidates would be ranked.
        g: ``[m]`` target potential.
        steps: Passes or iterations, where the solver reports them.
    """

    f: np.ndarray
    g: np.ndarray
    steps: int | None


class Inputs(NamedTuple):
    """One problem: ``[n, d]`` candidates, ``[m, d]`` targets, absolute epsilon."""

    x: np.ndarray
    y: np.ndarray
    priority: np.ndarray
    epsilon: float


def ours(
    inputs: Inputs, max_passes: int, precision: Any = "float32"
) -> Callable[[], Callable[[], Solution]]:
    """Prepare our solver: a given number of passes, or until it is certified."""

    def solve(x: np.ndarray, priority: np.ndarray) -> Solution:
        problem = Problem(inputs.y, [x], epsilon=inputs.epsilon, epsilon_is="absolute")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # one pass need not be enough
            found = solve_semidual(
                problem,
                [priority],
                tolerance=CERTIFIED,
                max_passes=max_passes,
                on_failure="warn",
                compute=Compute(precision=precision, device="cpu"),
            )
        return Solution(found.candidate[0], found.target, found.passes)

    def prepare() -> Callable[[], Solution]:
        solve(inputs.x[:1000], inputs.priority[:1000])
        return lambda: solve(inputs.x, inputs.priority)

    return prepare


def pot(inputs: Inputs, dtype: Any) -> Callable[[], Callable[[], Solution]]:
    """Prepare POT's Sinkhorn, stopped once its own check certifies as much as ours does."""

    def prepare() -> Callable[[], Solution]:
        import ot

        x, y = inputs.x.astype(dtype), inputs.y.astype(dtype)
        a, b = np.full(len(x), 1 / len(x), dtype), np.full(len(y), 1 / len(y), dtype)
        # POT looks at an L2 error every ten iterations; so scaled it bounds the L1 error.
        threshold = CERTIFIED / np.sqrt(len(y))

        def run() -> Solution:
            cost = ot.dist(x, y)
            _, log = ot.sinkhorn(
                a, b, cost, inputs.epsilon, numItermax=1000, stopThr=threshold, log=True, warn=False
            )
            f = inputs.epsilon * (np.log(log["u"].astype(np.float64)) - np.log(a))
            g = inputs.epsilon * (np.log(log["v"].astype(np.float64)) - np.log(b))
            return Solution(f, g, 1 + int(log["niter"]))  # pyright: ignore[reportArgumentType]

        return run

    return prepare


def geomloss(inputs: Inputs, scaling: float) -> Callable[[], Callable[[], Solution]]:
    """Prepare geomloss's annealed Sinkhorn on the whole matrix."""

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
        x, y = torch.from_numpy(inputs.x), torch.from_numpy(inputs.y)

        def run() -> Solution:
            with torch.no_grad():
                f, g = loss(x, y)
            return Solution(
                2.0 * f.flatten().double().numpy(), 2.0 * g.flatten().double().numpy(), None
            )

        return run

    return prepare


def ott(
    inputs: Inputs, threshold: float, momentum: float | None
) -> Callable[[], Callable[[], Solution]]:
    """Prepare ott-jax in batches of 2000, compiled before the measurement."""

    def prepare() -> Callable[[], Solution]:
        import jax

        if not hasattr(jax.interpreters.batching, "is_vmappable"):
            raise Unavailable("ott-jax's batch_size fails on this jax; install the bench extra's")
        import jax.numpy as jnp
        from ott.geometry import pointcloud
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import acceleration, sinkhorn

        solver = sinkhorn.Sinkhorn(
            threshold=threshold,
            momentum=None if momentum is None else acceleration.Momentum(value=momentum),
            inner_iterations=1 if momentum is not None else 10,
            max_iterations=2000,
        )

        def solve(y: Any, x: Any) -> Any:
            cloud = pointcloud.PointCloud(y, x, epsilon=inputs.epsilon, batch_size=2000)
            return solver(linear_problem.LinearProblem(cloud))

        y, x = jnp.asarray(inputs.y), jnp.asarray(inputs.x)
        compiled = jax.jit(solve).lower(y, x).compile()

        def run() -> Solution:
            out = compiled(y, x)
            f, g = (np.asarray(p, dtype=np.float64) for p in (out.g, out.f))
            # Its plan has no masses outside: they are in the potentials.
            f, g = f + inputs.epsilon * np.log(len(f)), g + inputs.epsilon * np.log(len(g))
            return Solution(f, g, int(out.n_iters))

        return run

    return prepare


def if_it_fits(
    prepare: Callable[[], Any], inputs: Inputs, bytes_each: int, memory_gib: float
) -> Callable[[], Any]:
    """Raise if the matrices of a dense solver would not fit."""
    needed = len(inputs.x) * len(inputs.y) * bytes_each / 2**30

    def check() -> Any:
        if needed > memory_gib:
            raise Unavailable(f"would hold {needed:.1f} GiB; --memory allows {memory_gib:g}")
        return prepare()

    return check


def contenders(inputs: Inputs, memory_gib: float, quick: bool) -> list[Contender]:
    """List all contenders."""

    def dense(name: str, prepare: Callable[[], Any]) -> Callable[[], Any]:
        return if_it_fits(prepare, inputs, DENSE_BYTES[name], memory_gib)

    field = [
        Contender(ONE_PASS, ours(inputs, 1)),
        Contender(SURE, ours(inputs, 10)),
        Contender("gotd, certified, bfloat16", ours(inputs, 10, "bfloat16")),
        Contender(POT32, dense(POT32, pot(inputs, np.float32)), ("ot",)),
        Contender(POT64, dense(POT64, pot(inputs, np.float64)), ("ot",)),
        Contender(PUBLISHED, ott(inputs, 0.1, 1.3), ("ott", "jax")),
        Contender("ott-jax, threshold 1e-2", ott(inputs, 1e-2, None), ("ott", "jax")),
        Contender(GEOMLOSS, dense(GEOMLOSS, geomloss(inputs, 0.5)), ("geomloss",)),
    ]
    return [c for c in field if not (quick and "ott" in c.needs)]
