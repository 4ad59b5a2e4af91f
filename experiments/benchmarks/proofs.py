"""Measure which share of a selection is proven exact, by tolerance, and what the proof costs.

The pool is solved to every tolerance. Each solution is examined (no score changes), and the
loosest is solved on until all rows are proven. Shares are of selections of 1 and 5 % of the pool.
Whether the selection is in fact the exact one is known from that last solution.

    DATA=../shared/data python experiments/benchmarks/proofs.py --rounds 1
    python experiments/benchmarks/proofs.py --rounds 1 --mixture --rows 1000000
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from selection import embed, load_rows
from side_by_side import command, describe_machine, mixture, options, pin, table, write

from gotd.data.sampling import uniform_by_id
from gotd.transport import Compute, Potentials, Problem, solve_semidual
from gotd.transport.proof import Proof, count_proven, examine, prove

TOLERANCES, SHARES = (5e-3, 5e-4, 1e-6), (0.01, 0.05)
PROVE = "prove"
MIXTURE_WIDTH = 384


def core_seconds(since: float) -> float:
    """Return the processor seconds of this process since a reading."""
    return time.process_time() - since


def shares(solved: Potentials, found: Proof, exact: np.ndarray) -> list[dict[str, Any]]:
    """Return by selected share what is proven, and what is right."""
    (f,), rows = solved.candidate, []
    order, best = np.argsort(f, kind="stable"), np.argsort(exact, kind="stable")
    for share in SHARES:
        k = max(1, int(share * len(f)))
        counts = count_proven([f], k, found.width, found.rounding)
        right = len(np.intersect1d(order[:k], best[:k])) / k
        proven = {"k": k, "proven_share": counts.inside / k, "right_share": right}
        rows.append({"share": share, **proven, **dataclasses.asdict(counts)})
    return rows


def measure(
    problem: Problem, priority: np.ndarray, compute: Compute, tolerances: Sequence[float]
) -> list[dict[str, Any]]:
    """Solve and examine at every tolerance, and prove from the loosest."""

    def solve(tolerance: float) -> tuple[Potentials, float]:
        start = time.process_time()
        settings = {"tolerance": tolerance, "max_passes": 30, "on_failure": "warn"}
        return solve_semidual(problem, [priority], compute=compute, **settings), core_seconds(start)

    solved, solve_s = solve(max(tolerances))
    start = time.process_time()
    exact, found = prove(problem, solved, compute)
    rows = [row(PROVE, exact, found, solve_s, core_seconds(start), exact.candidate[0])]
    for tolerance in sorted(tolerances):
        solved, solve_s = solve(tolerance)
        start = time.process_time()
        found = examine(problem, solved, compute)
        spent = core_seconds(start)
        name = f"tolerance {tolerance:g}"
        rows.insert(0, row(name, solved, found, solve_s, spent, exact.candidate[0]))
    return rows


def row(
    name: str,
    solved: Potentials,
    found: Proof,
    solve_s: float,
    proof_s: float,
    exact: np.ndarray,
) -> dict[str, Any]:
    """Return one line of the result."""
    return {
        "name": name,
        "marginal_error": solved.marginal_error,
        "precision": solved.precision,
        "passes": solved.passes,
        "width_in_epsilons": found.width / solved.epsilon_absolute,
        "rounding_in_epsilons": found.rounding / solved.epsilon_absolute,
        "proof_passes": found.passes,
        "hessians": found.hessians,
        "solve_core_s": solve_s,
        "proof_core_s": proof_s,
        "selections": shares(solved, found, exact),
    }


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    heads = ["", "marginal error", "all scores exact to, in epsilons"]
    heads += [f"{100 * share:g} %: proven, right, undecided, ties" for share in SHARES]
    heads += ["solve, core-s", "proof, core-s", "passes of the proof (Hessians)"]

    def cells(selections: Sequence[dict[str, Any]]) -> list[str]:
        return [
            f"{100 * one['proven_share']:.2f} %, {100 * one['right_share']:.2f} %, "
            f"{one['left']:,}, {one['ties']:,}"
            for one in selections
        ]

    lines = [
        [
            one["name"],
            f"{one['marginal_error']:.1e}",
            f"{one['width_in_epsilons']:.1e}",
            *cells(one["selections"]),
            one["solve_core_s"],
            one["proof_core_s"],
            f"{one['proof_passes']} ({one['hessians']})",
        ]
        for one in result["rows"]
    ]
    return [
        f"{result['n']:,} candidates, {result['m']:,} targets ({result['data']}), one core. "
        "Undecided rows and ties are counted on both sides of the boundary.",
        "",
        *table(heads, lines),
    ]


def main() -> None:
    """Measure, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--targets", type=int)
    parser.add_argument("--mixture", action="store_true", help="a generated mixture, not DATA")
    parser.add_argument("--tolerances", default=",".join(f"{t:g}" for t in TOLERANCES))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        tolerances = [float(given) for given in arguments.tolerances.split(",")]
    except ValueError:
        parser.error(f"--tolerances: {arguments.tolerances!r} is not numbers with commas between")
    pin(arguments.core)
    n = arguments.rows or (1_500 if arguments.quick else 50_000)
    m = arguments.targets or (20 if arguments.quick else 500)
    machine = describe_machine(("torch", "gotd"))
    if arguments.mixture:
        x, y = mixture(n, (m,), MIXTURE_WIDTH, arguments.seed)
        ids, described = pa.array(map(str, range(n))), "a mixture of 40 clusters"
    else:
        pool, target, described = load_rows(n, m, arguments.seed)
        (x, y), ids = embed(pool, target), pool.ids
    priority = uniform_by_id(ids, arguments.seed, "got_d reference")
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"data": arguments.seed, "reference sample": arguments.seed},
        "n": n,
        "m": m,
        "d": x.shape[1],
        "data": described,
        "rows": measure(Problem(y, [x]), priority, Compute(device="cpu"), tolerances),
    }
    write(arguments, result, "Transport: which part of a selection is proven", as_page(result))


if __name__ == "__main__":
    main()
