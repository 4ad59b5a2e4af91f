"""How much of a selection depends on what was not meant to matter.

Epsilon is chosen by hand and the reference sample by a seed. If other values of either give
other rows, a difference between two arms may be no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from gotd.data.rows import Rows
from gotd.engine.local import Engine, LocalEngine
from gotd.selectors.got_d import GotD

EPSILONS = (0.01, 0.02, 0.05, 0.1, 0.2)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Stability:
    """One selection compared with the one that is asked about.

    Args:
        epsilon: Its regularisation, in the unit of the selector's.
        seed: Its seed of the reference sample.
        overlap: Share of the budget that both selections hold.
        jaccard: Rows in both over rows in either.
        marginal_error: Certificate of its solve.
        passes: Passes over all candidates that it took.
    """

    epsilon: float
    seed: int
    overlap: float
    jaccard: float
    marginal_error: float
    passes: int


def stability(
    target: Rows,
    candidates: Sequence[Rows],
    budget: int,
    epsilons: Sequence[float] = EPSILONS,
    seeds: Sequence[int] = SEEDS,
    engine: Engine | None = None,
    selector: GotD | None = None,
    seed: int = 0,
) -> list[Stability]:
    """Select again with other epsilons and other reference samples, and compare.

    A pool small enough to be solved as a whole has no reference sample: its seeds all
    agree.

    Args:
        target: What is selected for.
        candidates: The pool.
        budget: Rows selected.
        epsilons: Other regularisations, each with the seed asked about.
        seeds: Other seeds, each with the selector's epsilon.
        engine: Maps over blocks; this machine when ``None``.
        selector: The selection asked about; GOT-D as it comes when ``None``.
        seed: Its seed.

    Returns:
        One row per epsilon and seed other than the ones asked about, epsilons first.

    Raises:
        ValueError: If the request cannot be answered.
        NotConverged: If a solve misses its tolerance, likely at a small epsilon.
    """
    selector, engine = selector or GotD(), engine or LocalEngine()
    chosen = selector.rank(target, candidates, budget, seed, engine).ids
    others = [(epsilon, seed) for epsilon in epsilons if epsilon != selector.epsilon]
    others += [(selector.epsilon, other) for other in seeds if other != seed]
    rows = []
    for epsilon, other in others:
        ranking = replace(selector, epsilon=epsilon).rank(target, candidates, budget, other, engine)
        overlap = _common(chosen, ranking.ids) / budget
        rows.append(
            Stability(
                epsilon=epsilon,
                seed=other,
                overlap=overlap,
                jaccard=overlap / (2.0 - overlap),
                marginal_error=ranking.diagnostics["marginal_error"],
                passes=ranking.diagnostics["passes"],
            )
        )
    return rows


def as_markdown(rows: Sequence[Stability]) -> str:
    """Lay the rows out as a table."""
    lines = [
        "| epsilon | seed | overlap | Jaccard | marginal error | passes |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.epsilon:g} | {row.seed} | {row.overlap:.3f} | {row.jaccard:.3f} "
        f"| {row.marginal_error:.1e} | {row.passes} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _common(one: pa.Array, other: pa.Array) -> int:
    return pc.sum(pc.is_in(one, value_set=other)).as_py() or 0
