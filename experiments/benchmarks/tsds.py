"""Compare our TSDS with the published procedure, for a first and for a second target.

The published procedure is written here from its description: Algorithms 1 and 2 with the settings
of its authors' code. It has an inverted-file index of ``floor(sqrt N) / 2`` cells, ten of which
are searched. A second index of the same kind over all neighbours gives their densities, and a
loop runs over a heap. Nothing is reused for a second target. Ours stores the
densities beside the file of the embeddings. Both sides may look up
``--prefetch`` neighbours of a target and select the same number of rows.

    python experiments/benchmarks/tsds.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
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
from tsds_published import Chosen, Published, Settings, Variant

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.density import pool_density
from gotd.selectors.neighbours import nearest_neighbours
from gotd.selectors.tsds import TSDS

SIDES = ("gotd", "published")


class Inputs(NamedTuple):
    """The pool and two targets, as arrays and as shards."""

    pool: np.ndarray
    targets: tuple[np.ndarray, np.ndarray]
    pool_shard: Rows
    target_shards: tuple[Rows, Rows]


def as_shard(rows: np.ndarray, name: str) -> Rows:
    """Return rows with ids; TSDS reads no texts."""
    ids = pa.array([f"{name}-{i:07d}" for i in range(len(rows))])
    return Rows(ids, ids, embeddings=rows)


def ours(inputs: Inputs, variant: Variant, settings: Settings) -> Callable[[], Callable]:
    """Prepare our selector; successive calls are for the first target and the second."""
    selector = TSDS(
        variant,
        alpha=settings.alpha,
        C=settings.scale,
        sigma=settings.sigma,
        prefetch=settings.prefetch,
        kde_neighbours=settings.kde_neighbours,
    )

    def select(target: Rows, pool: Rows, limit: int) -> Chosen:
        ranking = selector.rank(target, [pool], limit, 0, LocalEngine())
        best = np.array([int(i.rpartition("-")[2]) for i in ranking.ids.to_pylist()])
        if variant == "uniform":
            return Chosen(best)
        # Kept by the selector, so looked up here.
        density = pool_density([pool], settings.sigma, settings.kde_neighbours)
        return Chosen(best, points=np.arange(len(pool)), density=density)

    def prepare() -> Callable[[], Chosen]:
        little = as_shard(inputs.pool[:200], "little")
        few = as_shard(inputs.targets[0][:10], "few")
        selector.rank(few, [little], 5, 0, LocalEngine())
        waiting = [inputs.target_shards[0], *(inputs.target_shards[1],) * 1000]
        return lambda: select(waiting.pop(0), inputs.pool_shard, settings.limit)

    return prepare


def published(inputs: Inputs, variant: Variant, settings: Settings) -> Callable[[], Callable]:
    """Prepare the published procedure; successive calls are for first and second target."""

    def prepare() -> Callable[[], Chosen]:
        import faiss

        faiss.omp_set_num_threads(1)
        procedure = Published(inputs.pool, settings)
        waiting = [inputs.targets[0], *(inputs.targets[1],) * 1000]
        return lambda: procedure.select(waiting.pop(0), variant)

    return prepare


def exact_neighbours(pool: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    """Find the ``[m, k]`` nearest rows in float64, in no order."""
    wide, found = pool.astype(np.float64), []
    norms = np.square(wide).sum(axis=1)
    for start in range(0, len(target), 100):
        squared = norms - 2.0 * target[start : start + 100].astype(np.float64) @ wide.T
        found.append(np.argpartition(squared, k - 1, axis=1)[:, :k])
    return np.concatenate(found)


def recall(rows: np.ndarray, exact: np.ndarray) -> float:
    """Return the recall: the share of the exact neighbours."""
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(rows, exact, strict=True))
    return hits / exact.size


def exact_density(points: np.ndarray, which: np.ndarray, settings: Settings) -> np.ndarray:
    """Measure the density at some of the points, pair by pair in float64."""
    wide = points.astype(np.float64)
    density = np.empty(len(which))
    for place, row in enumerate(which):
        kernel = 1.0 - np.square(wide - wide[row]).sum(axis=1) / settings.sigma**2
        kernel = kernel[kernel > 0.0]
        density[place] = np.sort(kernel)[-settings.kde_neighbours :].sum()
    return density


def density_error(
    pool: np.ndarray, points: np.ndarray, density: np.ndarray, which: np.ndarray, settings: Settings
) -> dict[str, float]:
    """Compare densities at some of the points with float64: relative errors."""
    error = np.abs(density[which] / exact_density(pool[points], which, settings) - 1.0)
    return {"density_error_max": float(error.max()), "density_error_mean": float(error.mean())}


def judge(
    inputs: Inputs, kde: dict[str, Outcome], settings: Settings, checked: int, seed: int
) -> dict[str, dict[str, float]]:
    """Compare both sides' neighbours and densities at the first target with float64."""
    exact = exact_neighbours(inputs.pool, inputs.targets[0], settings.prefetch)
    found = nearest_neighbours(
        inputs.target_shards[0], [inputs.pool_shard], settings.prefetch, LocalEngine()
    )
    judged = {"gotd": {"recall": recall(found.rows, exact)}, "published": {}}
    random = np.random.default_rng(seed)
    for side, outcome in kde.items():
        chosen: Chosen | None = outcome.value
        if chosen is None:
            continue
        if chosen.neighbours is not None:
            judged[side]["recall"] = recall(chosen.neighbours, exact)
        if chosen.points is not None and chosen.density is not None:
            which = random.choice(len(chosen.points), min(checked, len(chosen.points)), False)
            judged[side] |= density_error(
                inputs.pool, chosen.points, chosen.density, which, settings
            )
    return judged


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    settings = result["settings"]
    rows = []
    for side in SIDES:
        judged = result["judged"][side]
        timings = result["core_s"][side]
        rows.append(
            [
                side,
                timings["uniform"],
                timings["kde, first target"],
                timings["kde, second target"],
                number(judged.get("recall"), 4),
                number(judged.get("density_error_max"), 2),
                number(judged.get("density_error_mean"), 2),
                result["peak_mib"][side],
                result["reasons"][side],
            ]
        )
    rows.append(["published ÷ gotd", *(result["ratios"][k] for k in result["ratios"]), *[""] * 5])
    return [
        f"N = {result['n']:,}, M = {result['m']:,} (each of two targets), d = {result['d']}, "
        f"{result['data']}. At most {settings['prefetch']:,} neighbours a target, densities over "
        f"{settings['kde_neighbours']:,} neighbours, sigma {settings['sigma']}, alpha "
        f"{settings['alpha']}, C {settings['scale']}, {settings['limit']:,} rows kept. One core; "
        "KNN-Uniform is the median of the rounds, KNN-KDE is run once for each target. Processor "
        "seconds of the whole selection. Recall is of the exact neighbours; density errors are "
        f"relative, at {result['checked']:,} points, against float64 over those that each side "
        "looked at. Peak memory is KNN-KDE's.",
        "",
        *table(
            [
                "side",
                "KNN-Uniform",
                "KNN-KDE, first target",
                "KNN-KDE, second target",
                "recall",
                "largest density error",
                "mean density error",
                "peak MiB",
                "note",
            ],
            rows,
        ),
        "",
        *claims_table(result["claims"]),
        "",
        f"Of the {settings['limit']:,} rows that KNN-KDE keeps for the first target, the two sides "
        f"share {number(result['agreement']['kde'])}; of KNN-Uniform's "
        f"{number(result['agreement']['uniform'])}.",
    ]


def shared(a: Chosen | None, b: Chosen | None) -> float | None:
    """Return the share of rows that two selections have in common."""
    if a is None or b is None:
        return None
    return len(np.intersect1d(a.best, b.best)) / len(a.best)


def main() -> None:
    """Run both sides in turns, check them, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("-n", type=int, default=100_000, help="candidates")
    parser.add_argument("-m", type=int, default=1_000, help="rows of each target")
    parser.add_argument("-d", type=int, default=384, help="width")
    parser.add_argument("--prefetch", type=int, default=2_000, help="neighbours of a target")
    parser.add_argument("--checked", type=int, default=100, help="densities compared")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.m, arguments.d, arguments.prefetch = 3_000, 40, 16, 200
    pin(arguments.core)
    machine = describe_machine(("faiss-cpu", "torch", "numba", "gotd"))
    n, m = arguments.n, arguments.m
    pool, first, second = mixture(n, [m, m], arguments.d, arguments.seed)
    inputs = Inputs(
        pool,
        (first, second),
        as_shard(pool, "pool"),
        (as_shard(first, "first"), as_shard(second, "second")),
    )
    settings = Settings(min(arguments.prefetch, n // 10), min(1_000, n // 10), n // 100)
    sides = {"gotd": (ours, ()), "published": (published, ("faiss",))}
    outcomes = {}
    for variant, rounds, limit in (
        ("uniform", arguments.rounds, arguments.limit),
        ("kde", 2, float("inf")),
    ):
        print(f"KNN-{variant}:")
        outcomes[variant] = take_turns(
            [
                Contender(name, prepare(inputs, variant, settings), needs)
                for name, (prepare, needs) in sides.items()
            ],
            rounds,
            limit,
        )
    uniform, kde = outcomes["uniform"], outcomes["kde"]
    judged = judge(inputs, kde, settings, arguments.checked, 1)
    core_s: dict[str, dict[str, Any]] = {}
    ratios: dict[str, Any] = {"uniform": ratio(uniform["published"], uniform["gotd"])}
    for side in SIDES:
        runs = kde[side].core_s
        core_s[side] = {
            "uniform": uniform[side].row()["median_core_s"],
            "kde, first target": runs[0] if runs else None,
            "kde, second target": runs[1] if len(runs) > 1 else None,
        }
    for key in ("kde, first target", "kde, second target"):
        theirs, own = core_s["published"][key], core_s["gotd"][key]
        ratios[key] = theirs / own if theirs and own else None
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"data": arguments.seed, "checked points": 1},
        "n": n,
        "m": m,
        "d": arguments.d,
        "data": "a 40-cluster anisotropic mixture of unit rows",
        "settings": settings._asdict(),
        "checked": arguments.checked,
        "rounds": arguments.rounds,
        "core_s": core_s,
        "ratios": ratios,
        "runs": {v: {s: outcomes[v][s].row() for s in SIDES} for v in outcomes},
        "peak_mib": {side: kde[side].peak_mib for side in SIDES},
        "reasons": {side: uniform[side].reason or kde[side].reason for side in SIDES},
        "judged": judged,
        "agreement": {v: shared(*(outcomes[v][s].value for s in SIDES)) for v in outcomes},
    }
    result["claims"] = [
        claim(
            "KNN-Uniform, times as fast as published",
            None if ratios["uniform"] is None else ratios["uniform"]["median"],
            1.3,
        ),
        claim("neighbours found of the exact ones", judged["gotd"]["recall"], 1.0),
        claim("KNN-KDE, first target, times as fast", ratios["kde, first target"], 1.0),
        claim("KNN-KDE, second target, times as fast", ratios["kde, second target"], 10.0),
        claim("largest density error", judged["gotd"]["density_error_max"], 0.01, at_most=True),
    ]
    write(arguments, result, "TSDS: gotd against the published procedure", as_page(result))


if __name__ == "__main__":
    main()
