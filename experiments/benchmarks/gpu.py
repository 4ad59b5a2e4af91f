"""Measure on one GPU what other benchmarks measure on a processor, within ten minutes.

Transport until it is certified, with candidates that stay on the GPU and with streamed ones,
beside FlashSinkhorn, geomloss and ott-jax; a pass by the fused kernels and plain; a warm-up of
bert-base, LoRA steps of a 2.7B model, and generation, beside the time and memory of `gotd plan`.
Ours includes the copy of the candidates to the GPU, the other solvers find them there.

    python experiments/benchmarks/gpu.py
    python experiments/benchmarks/gpu.py --cpu --out build      # tiny sizes, to see that it runs
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # jax would take most of a GPU

import torch
from gpu_cells import Cell, measure
from gpu_models import MODELS, model_cells
from gpu_transport import (
    COMPARED,
    FLASH,
    LARGE,
    OURS,
    PASSES,
    SOLVES,
    TINY_COMPARED,
    TINY_LARGE,
    TINY_WIDTHS,
    WIDTHS,
    fitting,
    pass_cells,
    solve_cells,
    words,
)
from side_by_side import claim, claims_table, command, describe_machine, table, write

from gotd.planning.estimates import this_machine

PACKAGES = (
    "torch",
    "triton",
    "flash-sinkhorn",
    "geomloss",
    "ott-jax",
    "jax",
    "transformers",
    "gotd",
)


def cells(arguments: argparse.Namespace, folder: Path, device: str) -> Iterator[Cell]:
    """Yield all cells; those whose figures are goals come early."""
    seed, tiny = arguments.seed, arguments.cpu
    compared, large = (TINY_COMPARED, TINY_LARGE) if tiny else (COMPARED, fitting(LARGE))
    yield from solve_cells(compared, device, seed, peers=True)
    for width in TINY_WIDTHS if tiny else WIDTHS:
        yield from pass_cells((*compared[:2], width), device, seed)
    yield from solve_cells(large, device, seed, peers=False)
    yield from model_cells(folder, device, this_machine(), tiny)


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the goals for a GPU and whether they are met."""

    def median_s(size: tuple[int, int, int], name: str) -> float | None:
        found = [r["median_s"] for r in rows if (r["size"], r["name"]) == (words(size), name)]
        return found[0] if found else None

    ours, theirs = median_s(COMPARED, OURS), median_s(COMPARED, FLASH)
    faster = theirs / ours if ours and theirs else None
    return [
        claim(f"{words(COMPARED)}, times as fast as FlashSinkhorn", faster, 3),
        claim(f"{words(LARGE)}, certified, seconds", median_s(LARGE, OURS), 0.5, at_most=True),
    ]


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""

    def of(section: str, *keys: str) -> list[list[Any]]:
        rows = [row for row in result["rows"] if row["section"] == section]
        return [[row.get(key) for key in ("size", "name", *keys, "reason")] for row in rows]

    solves = of(SOLVES, "median_s", "peak_gib", "steps", "marginal_error")
    passes = of(PASSES, "median_s", "tflop_per_s", "difference")
    models = of(
        *(MODELS, "median_s", "loop_s", "planned_s", "tokens_per_s", "peak_gib", "planned_gib")
    )
    memory = "of torch on the GPU" if result["device"] == "cuda" else "of the process"
    return [
        f"Medians of at most {result['rounds']} rounds on one device ({result['device']}), after "
        f"a first call that compiles. Peak memory is that {memory}.",
        "",
        "Transport, N x M x d, epsilon 0.05 of the mean cost, until a marginal error of 5e-3. "
        "The error in the table is in float64 for every solver. Ours copies the candidates from "
        "the host; the others find them on the device. FlashSinkhorn gets the fewest iterations "
        "that meet the error on a part of the rows. Problems above 300,000 rows repeat these.",
        "",
        *table(
            ["N x M x d", "solver", "s", "peak GiB", "passes", "marginal error", "note"], solves
        ),
        "",
        "One pass over candidates on the device. The difference is that of the received masses "
        "from a pass in float64.",
        "",
        *table(["N x M x d", "pass", "s", "TFLOP/s", "difference", "note"], passes),
        "",
        "Models of random weights, and what `gotd plan` states. `loop s` is the optimiser's loop, "
        "`s` the whole stage, with loading and writing.",
        "",
        *table(
            [
                *("model", "work", "s", "loop s", "planned s", "tokens/s"),
                *("peak GiB", "planned GiB", "note"),
            ],
            models,
        ),
        *(["", *claims_table(result["claims"])] if result["claims"] else []),
    ]


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="calls of each cell")
    parser.add_argument("--limit", type=float, default=540.0, help="seconds to start cells in")
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the processor")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--name", default="gpu", help="name of the result files")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Measure all cells and write the page and the JSON file; status 2 without a GPU."""
    arguments = parse()
    if arguments.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # training takes a GPU wherever there is one
    elif not torch.cuda.is_available():
        print("no CUDA device: nothing is measured; --cpu runs tiny sizes", file=sys.stderr)
        raise SystemExit(2)
    device = "cpu" if arguments.cpu else "cuda"
    machine = describe_machine(PACKAGES)
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    deadline, rows = time.perf_counter() + arguments.limit, []
    with tempfile.TemporaryDirectory() as folder:
        for cell in cells(arguments, Path(folder), device):
            rows.append(measure(cell, arguments.rounds, device, deadline))
            last = rows[-1]
            print(cell.size, cell.name, last["median_s"], last["reason"], sep=" | ", flush=True)
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"data": arguments.seed, "reference sample": arguments.seed + 1},
        "device": device,
        "rounds": arguments.rounds,
        "rows": rows,
        "claims": [] if arguments.cpu else claims(rows),
    }
    write(arguments, result, "One GPU", as_page(result))


if __name__ == "__main__":
    main()
