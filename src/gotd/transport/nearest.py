"""The cost to the nearest target.

It is the limit of the candidate potential for ``g = 0`` and epsilon to zero, ``min_j C_ij``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gotd.transport.blocks import Block, Compute, Logits, Stream, full_float32
from gotd.transport.cost import squared_norms
from gotd.transport.problem import Problem


@full_float32()
def nearest_cost(
    problem: Problem,
    compute: Compute | None = None,
    out: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, ...]:
    """Compute each candidate's cost to its nearest target, block by block.

    Args:
        problem: Candidates, targets and geometry; masses and epsilon are not used.
        compute: Precision, device, block size and map.
        out: Per candidate array ``[n_k]`` float64, such as a file, filled with costs.

    Returns:
        Per candidate array ``[n_k]`` float64 costs, never negative.
    """
    stream = Stream(problem, compute or Compute())
    costs = stream.outputs(out)
    # At epsilon = 1 a logit is |x|^2 - C.
    logits = Logits(stream, 1.0)

    def pass_block(block: Block) -> tuple[np.ndarray, int]:
        x, _ = stream.load_block(block)
        cost = squared_norms(x).double() - logits(x).amax(dim=1).double()
        return cost.clamp_(min=0.0).cpu().numpy(), 0

    stream.fill(costs, pass_block)
    return costs
