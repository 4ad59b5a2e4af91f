"""Compare the fit of the target potential with plain Sinkhorn steps and with combined ones.

Both contenders are the same solver; in the plain one `Anderson` only adds the step. They take
turns on one core. Iterations are those of fits on the sample of candidates; every task also has
passes over all candidates, which both need.

    DATA=../shared/data python experiments/benchmarks/potential_fit.py --rounds 3
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from selection import embed, embedded, load_rows
from side_by_side import Outcome, command, describe_machine, options, pin, ratio, table, write
from torch import Tensor

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.engine.local import LocalEngine
from gotd.selectors.registry import build_selector
from gotd.transport import Compute, Potentials, Problem, reference, solve_semidual
from gotd.transport.anderson import Anderson
from gotd.transport.proof import prove

Task = Callable[[], np.ndarray]
"""Solves, and returns scores (lower is better) or the rows that were selected."""


class PlainSteps(Anderson):
    """The iteration without combinations."""

    def advance(self, point: Tensor, step: Tensor, error: float, value: float) -> Tensor:
        """Return the point after the plain step."""
        return point + step


KINDS = {"plain steps": PlainSteps, "combined steps": Anderson}
PLAIN, COMBINED = KINDS


@contextmanager
def counted(kind: type[Anderson]) -> Iterator[list[int]]:
    """Fit with one kind of iteration, and count its steps in a list of one number."""
    steps = [0]

    class Counted(kind):
        def advance(self, point: Tensor, step: Tensor, error: float, value: float) -> Tensor:
            steps[0] += 1
            return super().advance(point, step, error, value)

    with mock.patch.object(reference, "Anderson", Counted):
        yield steps


def tasks(pool: Rows, target: Rows, limit: int, seed: int) -> dict[str, Task]:
    """Return what is timed: solves, their proof, and selections that solve many times."""
    x, y = embed(pool, target)
    problem, compute = Problem(y, [x]), Compute(device="cpu")
    priority = uniform_by_id(pool.ids, seed, "got_d reference")
    shards, (wanted,) = embedded(pool, x), embedded(target, y)

    def solve(tolerance: float) -> Potentials:
        return solve_semidual(
            problem, [priority], tolerance=tolerance, max_passes=30, compute=compute
        )

    def ranked(name: str) -> np.ndarray:
        found = build_selector(name, {}).rank(wanted, shards, limit, seed, LocalEngine())
        return np.asarray(found.ids)

    return {
        "solve, tolerance 5e-3": lambda: solve(5e-3).candidate[0],
        "solve, tolerance 5e-4": lambda: solve(5e-4).candidate[0],
        "solve and prove": lambda: prove(problem, solve(5e-3), compute)[0].candidate[0],
        "got_d_path": lambda: ranked("got_d_path"),
        "got_d_clusters": lambda: ranked("got_d_clusters"),
    }


def best(result: np.ndarray, limit: int) -> set[Any]:
    """Return the selected rows."""
    if result.dtype.kind != "f":
        return set(result)
    return set(np.argsort(result, kind="stable")[:limit])


def measure(task: Task, rounds: int, limit: int) -> dict[str, Any]:
    """Run one task by both kinds in turns, and return a line of the result."""
    outcomes, chosen = {name: Outcome() for name in KINDS}, {}
    iterations = dict.fromkeys(KINDS, 0)
    for _ in range(rounds):
        for name, kind in KINDS.items():
            with counted(kind) as steps:
                start = time.process_time()
                chosen[name] = best(task(), limit)
                outcomes[name].core_s.append(time.process_time() - start)
            iterations[name] = steps[0]
    return {
        "iterations": iterations,
        "core_s": {name: outcome.core_s for name, outcome in outcomes.items()},
        "times_as_fast": ratio(outcomes[PLAIN], outcomes[COMBINED]),
        "same_rows": len(chosen[PLAIN] & chosen[COMBINED]) / limit,
    }


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    heads = ["", "iterations, plain", "combined", "core-s, plain", "combined"]
    heads += ["times as fast (least to most)", "same selected rows"]
    lines = []
    for name, row in result["tasks"].items():
        seconds = [float(np.median(row["core_s"][kind])) for kind in KINDS]
        fast = row["times_as_fast"]
        lines.append(
            [
                name,
                *(f"{row['iterations'][kind]:,}" for kind in KINDS),
                *(f"{one:.2f}" for one in seconds),
                f"{fast['median']:.2f} ({fast['least']:.2f} to {fast['most']:.2f})",
                f"{100 * row['same_rows']:.1f} %",
            ]
        )
    return [
        f"{result['n']:,} candidates, {result['m']:,} targets ({result['data']}), "
        f"{result['limit']:,} rows selected; one core, {result['rounds']} rounds in turns.",
        "",
        *table(heads, lines),
    ]


def main() -> None:
    """Measure, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--targets", type=int)
    parser.add_argument("--limit-rows", type=int, help="rows to select")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pin(arguments.core)
    n = arguments.rows or (1_500 if arguments.quick else 50_000)
    m = arguments.targets or (70 if arguments.quick else 500)
    limit = arguments.limit_rows or (40 if arguments.quick else 500)
    machine = describe_machine(("torch", "gotd"))
    pool, target, described = load_rows(n, m, arguments.seed)
    timed = tasks(pool, target, limit, arguments.seed)
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"data": arguments.seed, "reference sample": arguments.seed},
        "n": n,
        "m": m,
        "limit": limit,
        "data": described,
        "rounds": arguments.rounds,
        "tasks": {name: measure(task, arguments.rounds, limit) for name, task in timed.items()},
    }
    write(arguments, result, "Transport: the fit of the target potential", as_page(result))


if __name__ == "__main__":
    main()
