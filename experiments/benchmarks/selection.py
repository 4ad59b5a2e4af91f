"""Measure every selector without a model: processor seconds and memory of a selection.

Each one ranks ``--limit-rows`` rows of the pool with the settings of ``gotd select``. Embeddings
are those of its default encoder; they are made once, in advance, and their time is a row of its
own. The memory is what a selector needs beside texts and embeddings.

    DATA=../shared/data python experiments/benchmarks/selection.py --rounds 1
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from side_by_side import (
    Contender,
    command,
    describe_machine,
    options,
    pin,
    table,
    take_turns,
    write,
)

from gotd.data.rows import Rows
from gotd.embedding.tfidf import TfidfSvdEncoder
from gotd.engine.local import LocalEngine
from gotd.selectors.registry import build_selector, entries, entry, selector_class

LENGTH_CHARS = 1000
SHARD_ROWS = 16_384
RUNS_ON = {"texts", "embeddings", "domains"}
"""What a selector may require here."""
EMBEDDING = "embedding of both sides"


def methods() -> list[str]:
    """Return the offered selectors that need neither a model nor a file, in table order."""
    names = [one.name for one in entries() if one.offered and one.target]
    built = {name: selector_class(name)(**entry(name).preset) for name in names}
    return [name for name, one in built.items() if one.requires <= RUNS_ON]


def rows_of(texts: Sequence[str], domains: Sequence[str] | None, prefix: str) -> Rows:
    """Return rows without embeddings."""
    ids = pa.array([f"{prefix}{number:07d}" for number in range(len(texts))])
    named = None if domains is None else pa.array(domains)
    return Rows(ids, pa.array([text[:LENGTH_CHARS] for text in texts]), named)


def load_rows(n: int, m: int, seed: int) -> tuple[Rows, Rows, str]:
    """Return the pool, the target and their description."""
    random = np.random.default_rng(seed)
    if os.environ.get("DATA"):
        folder = Path(os.environ["DATA"])
        files = sorted((folder / "candidates").glob("*.parquet"))
        pool = pa.concat_tables(pq.read_table(file, columns=["text", "domain"]) for file in files)
        target = pq.read_table(folder / "domain" / "chemprot" / "train.parquet")["text"]
        if len(pool) < n or len(target) < m:
            raise SystemExit(f"DATA has {len(pool):,} passages and {len(target):,} target texts")
        pool = pool.take(random.permutation(len(pool))[:n])
        wanted = target.take(random.permutation(len(target))[:m]).to_pylist()
        sides = pool["text"].to_pylist(), pool["domain"].to_pylist()
        return rows_of(*sides, "c"), rows_of(wanted, None, "t"), "real passages, ChemProt"
    words = np.array([f"w{number}" for number in range(400)])
    domains = random.integers(4, size=n + m)
    starts = 100 * domains
    texts = [" ".join(words[start + random.integers(100, size=30)]) for start in starts]
    names = [f"domain_{number}" for number in domains]
    return rows_of(texts[:n], names[:n], "c"), rows_of(texts[n:], None, "t"), "generated texts"


def embedded(rows: Rows, matrix: np.ndarray) -> list[Rows]:
    """Return rows with their embeddings, in shards."""
    whole = Rows(rows.ids, rows.texts, rows.domains, matrix)
    return [whole.slice(start, start + SHARD_ROWS) for start in range(0, len(rows), SHARD_ROWS)]


def embed(pool: Rows, target: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Fit the default encoder of ``gotd select`` and embed both sides."""
    encoder = TfidfSvdEncoder()
    with tempfile.TemporaryDirectory() as folder:
        encoder.fit([[pool], [target]], Path(folder))
        embedder = encoder.load(Path(folder))
    parts = [
        embedder.embed(part.texts.to_pylist()) for part in embedded(pool, np.empty((len(pool), 0)))
    ]
    return np.vstack(parts), embedder.embed(target.texts.to_pylist())


def contender(name: str, pool: list[Rows], target: Rows, limit: int, seed: int) -> Contender:
    """Return a selector to be timed; a first call on few rows imports and compiles."""
    engine = LocalEngine()

    def prepare() -> Callable[[], str | None]:
        selector = build_selector(name, {})
        few = pool[0].slice(0, 200)
        with contextlib.suppress(ValueError):  # too few rows for it
            selector.rank(target.slice(0, 20), [few], 20, seed, engine)

        def run() -> str | None:
            try:
                selector.rank(target, pool, limit, seed, engine)
            except ValueError as error:
                return str(error)
            return None

        return run

    return Contender(name, prepare)


def main() -> None:
    """Time every selector, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("-n", type=int, default=50_000, help="rows of the pool")
    parser.add_argument("-m", type=int, default=500, help="rows of the target")
    parser.add_argument("--limit-rows", type=int, default=5_000, help="rows to rank")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some selectors alone")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = [name for name in methods() if name in (arguments.only or methods())]
    if unknown := set(arguments.only or ()) - set(names):
        parser.error(f"--only: there is no {min(unknown)!r}; choose from {', '.join(methods())}")
    if arguments.quick:
        arguments.n, arguments.m, arguments.limit_rows = 400, 30, 40
    pin(arguments.core)
    machine = describe_machine(("torch", "scikit-learn", "numba", "pyarrow", "gotd"))
    pool, target, origin = load_rows(arguments.n, arguments.m, arguments.seed)
    matrices = embed(pool, target)
    shards, (wanted,) = embedded(pool, matrices[0]), embedded(target, matrices[1])
    outcomes = take_turns(
        [
            Contender(EMBEDDING, lambda: lambda: embed(pool, target) and None),
            *(
                contender(name, shards, wanted, arguments.limit_rows, arguments.seed)
                for name in names
            ),
        ],
        arguments.rounds,
        arguments.limit,
    )
    rows: dict[str, dict[str, Any]] = {}
    for name, outcome in outcomes.items():
        reason = outcome.reason or outcome.value
        rows[name] = {**outcome.row(), "reason": reason}
        if reason:
            rows[name] |= {"core_s": [], "median_core_s": None}
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"rows": arguments.seed},
        "data": origin,
        "n": len(pool),
        "m": len(target),
        "limit_rows": arguments.limit_rows,
        "rounds": arguments.rounds,
        "contenders": rows,
    }
    write(arguments, result, "Selectors without a model", as_page(result))


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    rows = [
        [name, row["median_core_s"], row["peak_mib"], row["reason"]]
        for name, row in result["contenders"].items()
    ]
    return [
        f"{result['limit_rows']:,} of {result['n']:,} rows ({result['data']}) are ranked for "
        f"{result['m']:,} targets, on one core. Settings are those of `gotd select`; "
        "embeddings are those of its default encoder, made in advance. The memory is what is "
        "needed beside texts and embeddings.",
        "",
        *table(["selector", "core-s", "peak MiB", "note"], rows),
    ]


if __name__ == "__main__":
    main()
