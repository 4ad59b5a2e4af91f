"""The solver of the published notebook, to measure the effect of its settings.

The notebook runs OTT's Sinkhorn with epsilon 0.1 in raw squared distances, momentum 1.3
and threshold 0.1, and does not check ``converged``. It typically stops after three
iterations, when a tenth of the mass is still at wrong targets. This module does the same
iterations block by block, for any number of candidates.

Source: DV4LLM, ot-selection.ipynb; Thibault et al. (2021) for the momentum.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from gotd.transport.blocks import Block, Compute, Logits, Stream, full_float32
from gotd.transport.cost import squared_norms
from gotd.transport.passes import Passes
from gotd.transport.problem import Potentials, Problem, potentials_of
from gotd.transport.reference import gather

THRESHOLD, MOMENTUM, MAX_ITERATIONS = 0.1, 1.3, 2000


@full_float32()
def solve_published(
    problem: Problem,
    *,
    threshold: float = THRESHOLD,
    momentum: float = MOMENTUM,
    max_iterations: int = MAX_ITERATIONS,
    compute: Compute | None = None,
) -> Potentials:
    """Solve with the iteration and the stopping rule of the notebook.

    One iteration moves the candidate potential ``f`` and then the target potential ``g``
    by ``momentum`` times their Sinkhorn step; it stops once
    ``sum_i |(P 1)_i - a_i| < threshold``. OTT starts at zero in the convention
    ``P_ij = exp((f_i + g_j - C_ij) / eps)``, which is ``f = -eps log a``,
    ``g = -eps log b`` in ours. Because of the momentum, the start changes the result.

    Trap: the rule checks the candidates' marginal only. ``marginal_error`` of the result is
    that of the targets, measured by an additional pass, as for every other solver.
    ``history`` holds the errors of the rule. A bad solution raises no error, as in the
    notebook.

    Args:
        problem: The problem; the paper has ``epsilon=0.1, epsilon_is="absolute"``.
        threshold: Error at which to stop.
        momentum: Step length.
        max_iterations: Largest number of iterations.
        compute: Precision, device, block size and map.
    """
    stream = Stream(problem, compute or Compute())
    stream.keep_blocks()
    mean = stream.mean_cost()
    epsilon = problem.epsilon_in_cost_units(mean)
    logits = Logits(stream, epsilon)
    start = epsilon * math.log(problem.n_candidates)
    f = tuple(np.full(len(array), start) for array in problem.candidates)
    gamma, errors = torch.zeros_like(stream.b), []
    while True:
        error, moved, log_column = _iterate(stream, logits, epsilon, f, gamma, momentum)
        errors.append(error)
        done = len(errors) - 1  # the first error is that of the start
        if done and (error < threshold or done >= max_iterations):
            break
        f = moved
        gamma = (1.0 - momentum) * gamma + momentum * (stream.b.log() - log_column)
    return potentials_of(
        problem,
        f,
        epsilon * (gamma.cpu().numpy() - np.log(problem.b)),
        epsilon_absolute=epsilon,
        mean_cost=mean,
        marginal_error=_error_of_targets(stream, epsilon, gamma),
        passes=len(errors),
        converged=errors[-1] < threshold,
        history=tuple(errors[1:]),
    )


def _error_of_targets(stream: Stream, epsilon: float, gamma: Tensor) -> float:
    """Compute the L1 error of the targets' marginal by a pass of its own."""
    lengths = [len(array) for array in stream.problem.candidates]
    every = np.concatenate([np.c_[np.full(n, k), np.arange(n)] for k, n in enumerate(lengths)])
    passes = Passes(stream, epsilon, every, gather(stream.problem.a, every), stores=False)
    # The potential of the solver contains the momentum, so only received masses are used.
    unused = stream.outputs(None)

    def error_of(received: Tensor) -> float:
        return float((received - stream.b).abs().sum())

    return error_of(passes.certify(gamma, unused, passes.scan(gamma, unused), error_of))


def _iterate(
    stream: Stream,
    logits: Logits,
    epsilon: float,
    f: tuple[np.ndarray, ...],
    gamma: Tensor,
    momentum: float,
) -> tuple[float, tuple[np.ndarray, ...], Tensor]:
    """Take one iteration.

    Returns:
        L1 error of the candidates' marginal *before* the iteration, the candidate potential
        ``f`` after it, and ``[m]`` ``log sum_i a_i exp((f_i - C_ij) / eps)`` for the new ``f``.
    """

    def pass_block(block: Block) -> tuple[float, np.ndarray, Tensor]:
        x, a = stream.load_block(block)
        before = torch.from_numpy(f[block.array][block.start : block.stop]).to(a.device)
        base = logits(x)
        norms = squared_norms(x).double()
        log_rows = torch.logsumexp(base + gamma.to(base.dtype), dim=1).double()
        exact = norms - epsilon * log_rows
        after = (1.0 - momentum) * before + momentum * exact
        error = a * (((before - exact) / epsilon).exp() - 1.0).abs()
        shift = (a.log() + (after - norms) / epsilon).to(base.dtype)
        column = torch.logsumexp(base.add_(shift[:, None]), dim=0).double()
        return float(error.sum()), after.cpu().numpy(), column

    error, values = 0.0, stream.outputs(None)
    log_column = torch.full_like(gamma, -math.inf)
    for block, (block_error, after, column) in stream.map(pass_block):
        error += block_error
        values[block.array][block.start : block.stop] = after
        log_column = torch.logaddexp(log_column, column)
    return error, values, log_column
