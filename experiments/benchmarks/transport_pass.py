"""Compare one scoring pass with bare matrix products, and time it up to a million rows.

A pass multiplies all candidates with all targets. It converts every row of the product to a
potential and a share of each target's marginal. Measured are its cost beyond the product, the
cost of the marginals, the gain of bfloat16 and of `gotd.products`, and the growth of time and
memory. All run in turns on one core with one thread.

    python experiments/benchmarks/transport_pass.py
"""

from __future__ import annotations

import argparse
import math
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from side_by_side import (
    Contender,
    Outcome,
    claim,
    claims_table,
    command,
    describe_machine,
    mixture,
    number,
    options,
    pin,
    ratio,
    table,
    take_turns,
    write,
)
from torch import Tensor

from gotd.products import linear
from gotd.storage.memmap import create_array, open_array
from gotd.transport import Compute, Potentials, Problem, score, solve_semidual
from gotd.transport.blocks import Logits, Precision, Stream, smallest_weight
from gotd.transport.cost import squared_norms

PRODUCTS, PRODUCTS_BF16 = "products, float32", "products, bfloat16"
TORCH = "torch.mm, float32"
PASS, PASS_BF16, WITHOUT = "pass, float32", "pass, bfloat16", "pass, float32, no marginals"
EPSILON = 0.05


class Shape(NamedTuple):
    """Numbers of candidates and targets, and their width."""

    n: int
    m: int
    d: int


SHAPES = (Shape(100_000, 1_000, 384), Shape(20_000, 5_000, 384), Shape(50_000, 1_000, 768))
LENGTHS = (100_000, 250_000, 500_000, 1_000_000)
QUICK_SHAPES, QUICK_LENGTHS = (Shape(8_000, 100, 16), Shape(4_000, 200, 16)), (4_000, 8_000)


def posed(x: np.ndarray, y: np.ndarray) -> tuple[Problem, Potentials]:
    """Return a problem and some target potential; the time of a pass does not depend on it."""
    mean = float((x[:10_000] ** 2).sum(1).mean() + (y**2).sum(1).mean())
    mean -= 2.0 * float(x[:10_000].mean(0) @ y.mean(0))
    potentials = Potentials(
        candidate=(),
        target=np.zeros(len(y)),
        epsilon_absolute=EPSILON * mean,
        mean_cost=mean,
        marginal_error=math.nan,
        passes=0,
        converged=False,
    )
    return Problem(y, [x]), potentials


def products(
    x: np.ndarray, y: np.ndarray, dtype: torch.dtype, multiply: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[], Callable]:
    """Prepare nothing but the products, in the blocks of a pass."""

    def prepare() -> Callable[[], None]:
        blocks = Stream(Problem(y, [x]), Compute(device="cpu")).blocks
        weight = torch.from_numpy(y.T.copy()).to(dtype)
        rows = torch.from_numpy(x).to(dtype)

        def run() -> None:
            for block in blocks:
                multiply(rows[block.start : block.stop], weight)

        return run

    return prepare


def a_pass(x: np.ndarray, y: np.ndarray, precision: Precision) -> Callable[[], Callable]:
    """Prepare the library's pass."""

    def prepare() -> Callable[[], None]:
        problem, potentials = posed(x, y)
        out = [np.empty(len(x))]
        return lambda: score(problem, potentials, Compute(precision, "cpu"), out) and None

    return prepare


def without_marginals(x: np.ndarray, y: np.ndarray) -> Callable[[], Callable]:
    """Prepare the same pass without the sums over columns."""

    def prepare() -> Callable[[], np.ndarray]:
        problem, potentials = posed(x, y)
        epsilon, out = potentials.epsilon_absolute, np.empty(len(x))

        def run() -> np.ndarray:
            stream = Stream(problem, Compute(device="cpu"))
            logits = Logits(stream, epsilon * math.log(2.0))
            gamma = stream.b.log() / math.log(2.0)
            lowest = math.log2(smallest_weight(stream.dtype))
            for block in stream.blocks:
                rows, _ = stream.load_block(block)
                z = logits(rows, gamma)
                top = z.amax(dim=1)
                sums = z.sub_(top[:, None]).clamp_(min=lowest).exp2_().sum(dim=1)
                soft_max = math.log(2.0) * top.double() + sums.double().log()
                f = squared_norms(rows).double() - epsilon * soft_max
                out[block.start : block.stop] = f.numpy()
            return out

        return run

    return prepare


def measure_shape(shape: Shape, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the pass with its products at one shape."""
    x, y = mixture(shape.n, [shape.m], shape.d, arguments.seed)
    field = [
        Contender(TORCH, products(x, y, torch.float32, torch.mm)),
        Contender(PRODUCTS, products(x, y, torch.float32, lambda a, b: linear(a, b.T))),
        Contender(PASS, a_pass(x, y, "float32")),
        Contender(WITHOUT, without_marginals(x, y)),
        Contender(PRODUCTS_BF16, products(x, y, torch.bfloat16, torch.mm)),
        Contender(PASS_BF16, a_pass(x, y, "bfloat16")),
    ]
    outcomes = take_turns(field, arguments.rounds, arguments.limit)
    flop = 2.0 * shape.n * shape.m * shape.d

    def rate(outcome: Outcome) -> float | None:
        return flop / float(np.median(outcome.core_s)) / 1e9 if outcome.core_s else None

    return {
        "shape": shape._asdict(),
        "gflops": {name: rate(outcome) for name, outcome in outcomes.items()},
        "products_over_torch": ratio(outcomes[TORCH], outcomes[PRODUCTS]),
        "share_of_products": ratio(outcomes[PRODUCTS], outcomes[PASS]),
        "bfloat16_gain": ratio(outcomes[PASS], outcomes[PASS_BF16]),
        "with_over_without_marginals": ratio(outcomes[PASS], outcomes[WITHOUT]),
        "contenders": {name: outcome.row() for name, outcome in outcomes.items()},
    }


def measure_lengths(lengths: tuple[int, ...], arguments: argparse.Namespace) -> dict[str, Any]:
    """Time passes over files of growing length, and solve the longest for its memory."""
    m, d = (1_000, 384) if max(lengths) > 10_000 else (100, 16)
    x, y = mixture(lengths[0], [m], d, arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "candidates.npy"
        file = create_array(path, (lengths[-1], d), np.float32)
        for start in range(0, lengths[-1], len(x)):
            file[start : start + len(x)] = x[: lengths[-1] - start]
        file.flush()
        mapped = open_array(path)
        field = [Contender(f"{n:,}", a_pass(mapped[:n], y, "float32")) for n in lengths]
        outcomes = take_turns(field, arguments.rounds, 10.0 * arguments.limit)
        peak_mib, solved = solve_watched(mapped, y, Path(name), arguments.seed)
    first = outcomes[f"{lengths[0]:,}"]
    rows = []
    for n in lengths:
        slower = ratio(outcomes[f"{n:,}"], first)
        rows.append(
            {
                "n": n,
                **outcomes[f"{n:,}"].row(),
                "per_row_against_the_first": slower
                and {key: value * lengths[0] / n for key, value in slower.items()},
            }
        )
    return {"m": m, "d": d, "rows": rows, "peak_mib": peak_mib, **solved}


def solve_watched(
    x: np.ndarray, y: np.ndarray, folder: Path, seed: int
) -> tuple[float, dict[str, Any]]:
    """Solve to a certificate and return the peak memory without the file's."""
    priority = np.random.default_rng(seed + 1).permutation(len(x)).astype(np.float64)
    out = create_array(folder / "scores.npy", (len(x),), np.float64)
    done, before, most = threading.Event(), _anonymous_mib(), [0.0]

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], _anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        found = solve_semidual(
            Problem(y, [x]), [priority], compute=Compute(device="cpu"), out=[out]
        )
    finally:
        done.set()
        watcher.join()
    return most[0] - before, {"passes": found.passes, "marginal_error": found.marginal_error}


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def claims(shapes: list[dict[str, Any]], lengths: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the claims for N = 100k, M = 1k, d = 384, and up to a million."""
    first = shapes[0]

    def of(key: str) -> float | None:
        return first[key] and first[key]["median"]

    slowest = [row["per_row_against_the_first"] for row in lengths["rows"]]
    return [
        claim("pass, share of the machine's own float32 products", of("share_of_products"), 0.8),
        claim("bfloat16 pass, times as fast", of("bfloat16_gain"), 1.6),
        claim("pass over pass without marginals", of("with_over_without_marginals"), 1.1, True),
        claim("peak MiB above the inputs, a million solved", lengths["peak_mib"], 1024, True),
        claim(
            "seconds a row, largest N over the smallest",
            slowest[-1] and slowest[-1]["median"],
            1.1,
            at_most=True,
        ),
    ]


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    shapes = [
        [
            f"{row['shape']['n']:,} x {row['shape']['m']:,} x {row['shape']['d']}",
            *(row["gflops"][name] for name in (TORCH, PRODUCTS, PASS, PRODUCTS_BF16, PASS_BF16)),
            row["products_over_torch"],
            row["share_of_products"],
            row["bfloat16_gain"],
            row["with_over_without_marginals"],
        ]
        for row in result["shapes"]
    ]
    lengths = result["lengths"]
    grown = [
        [f"{row['n']:,}", row["median_core_s"], row["per_row_against_the_first"]]
        for row in lengths["rows"]
    ]
    return [
        f"One core, one thread, {result['rounds']} rounds in turns; GFLOP/s of the products alone "
        "by medians of processor seconds, ratios as median (least–most) over rounds.",
        "",
        *table(
            [
                "N x M x d",
                TORCH,
                PRODUCTS,
                PASS,
                PRODUCTS_BF16,
                PASS_BF16,
                "products, times torch.mm",
                "pass, share of products",
                "bfloat16, times as fast",
                "with ÷ without marginals",
            ],
            shapes,
        ),
        "",
        f"M = {lengths['m']:,}, d = {lengths['d']}, candidates memory-mapped from a file. Solving "
        f"the longest to a marginal error of {number(lengths['marginal_error'], 2)} took "
        f"{lengths['passes']} passes and at most {number(lengths['peak_mib'])} MiB above the "
        "inputs (anonymous memory, looked at every 5 ms).",
        "",
        *table(["N", "pass, core-s", "per row, against the first"], grown),
        "",
        f"![Seconds of a pass by number of candidates]({result['figure']})",
        "",
        *claims_table(result["claims"]),
    ]


def draw(lengths: dict[str, Any]) -> Figure:
    """Draw the seconds of every round over N, and the line through the first length."""
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "gotd"}):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        axis = figure.subplots()
        rows = lengths["rows"]
        per_row = rows[0]["median_core_s"] / rows[0]["n"]
        longest = rows[-1]["n"]
        axis.plot([0, longest / 1e3], [0, longest * per_row], color="#c8ccd0", zorder=0)
        for row in rows:
            axis.scatter(
                [row["n"] / 1e3] * len(row["core_s"]), row["core_s"], s=18, color="#3b6ea5"
            )
        axis.set(xlabel="candidates, thousands", ylabel="one pass, processor seconds")
        axis.set(xlim=(0, None), ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Run all contenders in turns, and write the page, the JSON file and the figure."""
    parser = options(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    pin(arguments.core)
    machine = describe_machine(("torch", "gotd"))
    shapes = QUICK_SHAPES if arguments.quick else SHAPES
    lengths = measure_lengths(QUICK_LENGTHS if arguments.quick else LENGTHS, arguments)
    measured = [measure_shape(shape, arguments) for shape in shapes]
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"data": arguments.seed, "reference sample": arguments.seed + 1},
        "rounds": arguments.rounds,
        "shapes": measured,
        "lengths": lengths,
        "figure": f"{arguments.name}.svg",
        "claims": [] if arguments.quick else claims(measured, lengths),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(lengths).savefig(arguments.out / result["figure"], metadata={"Date": None})
    write(arguments, result, "Transport: one pass against its products", as_page(result))


if __name__ == "__main__":
    main()
