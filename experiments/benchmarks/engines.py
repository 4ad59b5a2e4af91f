"""Compare the local engine with Ray: the same shards, scored by the same function.

Both engines have the same number of workers with one thread each. They read scores from files
and write them to files. The processes of Ray are started before the measurement. Its workers
are other processes, so this comparison is of wall-clock seconds and not pinned.

    python experiments/benchmarks/engines.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from side_by_side import (
    Contender,
    claim,
    claims_table,
    command,
    describe_machine,
    mixture,
    options,
    pin,
    ratio,
    table,
    take_turns,
    write,
)

from gotd.data.rows import Rows
from gotd.engine.local import Engine, LocalEngine
from gotd.selectors.got_d import GotD
from gotd.storage.memmap import create_array, open_array

LOCAL, RAY = "local", "Ray"


def write_shards(folder: Path, rows: np.ndarray, files: int) -> list[Path]:
    """Cut the pool into ``.npy`` files."""
    paths = []
    for number, part in enumerate(np.array_split(rows, files)):
        path = folder / f"embeddings-{number:05d}.npy"
        create_array(path, part.shape, np.float32)[:] = part
        paths.append(path)
    return paths


def score_with(
    engine: Callable[[], Engine], target: np.ndarray, paths: list[Path], out: Path
) -> Callable[[], Callable[[], dict[str, Any]]]:
    """Prepare GOT-D's scoring of all files on an engine, and score them once."""

    def prepare() -> Callable[[], dict[str, Any]]:
        out.mkdir()
        ran, pool, files = engine(), [], []
        for number, path in enumerate(paths):
            rows = open_array(path)
            ids = pa.array([f"{number}-{i}" for i in range(len(rows))])
            pool.append(Rows(ids, ids, embeddings=rows))
            files.append(create_array(out / f"scores-{number:05d}.npy", (len(rows),), np.float64))
        ids = pa.array([f"target-{i}" for i in range(len(target))])
        wanted = Rows(ids, ids, embeddings=target)

        def run() -> dict[str, Any]:
            found = GotD(precision="float32", device="cpu").scores(wanted, pool, 0, ran, files)
            return {
                "scores": np.concatenate([np.array(part) for part in files]),
                "passes": found.diagnostics["passes"],
            }

        run()
        return run

    return prepare


def ray_engine(workers: int) -> Engine:
    """Start a Ray on this machine."""
    from gotd.engine.ray import RayEngine

    return RayEngine(workers=workers)


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    rows = [
        [name, row["median_wall_s"], min(row["wall_s"], default=None), row["prepare_s"]]
        + [result["ratios"][name], row["reason"]]
        for name, row in result["contenders"].items()
    ]
    identical = {True: "The scores are the same to the last bit.", None: ""}.get(
        result["identical"], "**The scores differ.**"
    )
    return [
        f"{result['n']:,} candidates of width {result['d']} in {result['files']} files, "
        f"{result['m']:,} targets, GOT-D in float32 to a marginal error of 5e-3, "
        f"{result['workers']} workers of one thread, {result['rounds']} rounds in turns. "
        "Wall-clock seconds of all passes; starting and the first run are not in them.",
        "",
        *table(["engine", "seconds", "least", "start and first run", "÷ local", "note"], rows),
        "",
        *claims_table(result["claims"]),
        "",
        identical,
    ]


def main() -> None:
    """Run both engines in turns, compare them, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("-n", type=int, default=200_000, help="candidates")
    parser.add_argument("-m", type=int, default=1_000, help="targets")
    parser.add_argument("-d", type=int, default=384, help="width")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.m, arguments.d = 20_000, 100, 16
    pin(None, cores=arguments.workers)
    machine = describe_machine(("torch", "ray", "gotd"))
    pool, target = mixture(arguments.n, [arguments.m], arguments.d, arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        paths = write_shards(Path(name), pool, arguments.files)
        workers = arguments.workers
        outcomes = take_turns(
            [
                Contender(
                    LOCAL,
                    score_with(lambda: LocalEngine(workers), target, paths, Path(name) / "local"),
                ),
                Contender(
                    RAY,
                    score_with(lambda: ray_engine(workers), target, paths, Path(name) / "ray"),
                    ("ray",),
                ),
            ],
            arguments.rounds,
            arguments.limit,
        )
    times = ratio(outcomes[RAY], outcomes[LOCAL], "wall_s")
    local, ray = outcomes[LOCAL].value, outcomes[RAY].value
    identical = None if ray is None else bool(np.array_equal(local["scores"], ray["scores"]))
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"data": arguments.seed},
        "n": arguments.n,
        "m": arguments.m,
        "d": arguments.d,
        "files": arguments.files,
        "workers": workers,
        "rounds": arguments.rounds,
        "contenders": {name: outcome.row() for name, outcome in outcomes.items()},
        "ratios": {LOCAL: None, RAY: times},
        "passes": local["passes"],
        "identical": identical,
        "claims": [
            claim(
                "Ray, warm, times the local engine's seconds",
                None if times is None else times["median"],
                1.2,
                at_most=True,
            )
        ],
    }
    write(arguments, result, "Engines: Ray against this machine's threads", as_page(result))


if __name__ == "__main__":
    main()
