"""Compare our two DSIR featurisers with the official package, on the same texts.

Each side counts the n-grams of the target and of the pool, computes the log-ratio of each
bucket, and weights every text of the pool. That is two passes over the pool, as a selection
needs. The official side is the package's own class in one process. It gets lists instead of
files, so it reads no JSON. It is slow, so it gets ``--official`` texts of the pool.
Throughputs are per text.

    DATA=../shared/data python experiments/benchmarks/dsir.py
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from side_by_side import (
    OVERLAPS,
    Contender,
    claim,
    claims_table,
    command,
    describe_machine,
    fidelity,
    number,
    options,
    pin,
    table,
    take_turns,
    write,
)

from gotd.selectors.dsir import DSIR
from gotd.selectors.hashed_ngrams import FastNgrams, Sha256Ngrams

FAST, SHA256, OFFICIAL = "gotd, fast", "gotd, sha256", "data-selection"

# A prime just above, so that SHA-256 fills other buckets.
BUCKETS, OTHER_BUCKETS = 10_000, 10_007


class Weights(NamedTuple):
    """Results of one side: bucket counts of target and pool, and each text's log weight."""

    target: np.ndarray
    pool: np.ndarray
    log_weight: np.ndarray


def load_texts(n: int, m: int, seed: int) -> tuple[list[str], list[str], str]:
    """Return the pool, the target and their description."""
    random = np.random.default_rng(seed)
    if os.environ.get("DATA"):
        folder = Path(os.environ["DATA"])
        pool = []
        for file in sorted((folder / "candidates").glob("*.parquet")):
            pool += pq.read_table(file, columns=["text"])["text"].to_pylist()
        target = pq.read_table(folder / "domain" / "chemprot" / "train.parquet")["text"].to_pylist()
        if len(pool) < n or len(target) < m:
            raise SystemExit(f"DATA has {len(pool):,} passages and {len(target):,} target texts")
        chosen = [pool[i] for i in random.permutation(len(pool))[:n]]
        wanted = [target[i] for i in random.permutation(len(target))[:m]]
        return chosen, wanted, "real passages, targets from ChemProt"
    syllables = ["ba", "ce", "di", "fo", "gu", "ha", "ki", "lo", "mi", "ne", "pra", "stu"]
    words = np.array(["".join(random.choice(syllables, 1 + i % 4)) for i in range(20_000)])
    common = 1.0 / np.arange(1, len(words) + 1)
    sides = []
    for rows, chance in ((n, common), (m, np.roll(common, 40))):
        drawn = random.choice(words, size=(rows, 160), p=chance / chance.sum())
        sides.append([", ".join((" ".join(row[:80]), " ".join(row[80:]))) for row in drawn])
    return sides[0], sides[1], "generated texts of 160 words of Zipf frequency"


def ours(
    kind: type, pool: list[str], target: list[str], buckets: int = BUCKETS
) -> Callable[[], Callable[[], Weights]]:
    """Prepare one of our featurisers."""
    pool_texts, target_texts = pa.array(pool, pa.large_string()), pa.array(target)

    def weigh(pool_texts: pa.Array, target_texts: pa.Array) -> Weights:
        features, selector = kind(2, buckets), DSIR(buckets=buckets)
        wanted, there = features.count(target_texts), features.count(pool_texts)
        return Weights(wanted, there, features.score(pool_texts, selector.log_ratio(wanted, there)))

    def prepare() -> Callable[[], Weights]:
        weigh(pool_texts[:10], target_texts[:10])  # compiles
        return lambda: weigh(pool_texts, target_texts)

    return prepare


def official(pool: list[str], target: list[str]) -> Callable[[], Callable[[], Weights]]:
    """Prepare the package's class on texts in memory."""

    def prepare() -> Callable[[], Weights]:
        from data_selection import HashedNgramDSIR

        def run() -> Weights:
            sides = {"pool": pool, "target": target}
            with (
                tempfile.TemporaryDirectory() as cache,
                Path(os.devnull).open("w") as nowhere,
                contextlib.redirect_stderr(nowhere),  # its progress bars
            ):
                dsir = HashedNgramDSIR(
                    ["pool"],
                    ["target"],
                    cache,
                    raw_load_dataset_fn=sides.__getitem__,  # pyright: ignore[reportArgumentType]
                    raw_parse_example_fn=str,
                    target_load_dataset_fn=sides.__getitem__,  # pyright: ignore[reportArgumentType]
                    target_parse_example_fn=str,
                    num_proc=1,
                )
                dsir.fit_importance_estimator(num_tokens_to_fit="all")
                dsir.compute_importance_weights()
                (found,) = dsir.log_importance_weights_dir.glob("*.npy")
                weights = np.load(found)
                pool_share: Any = dsir.raw_probs
                target_share: Any = dsir.target_probs
            return Weights(target_share, pool_share, weights)

        return run

    return prepare


def main() -> None:
    """Run both sides in turns, compare them, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("-n", type=int, default=50_000, help="texts of the pool")
    parser.add_argument("-m", type=int, default=1_000, help="texts of the target")
    parser.add_argument("--official", type=int, default=10_000, help="texts for the package")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.m, arguments.official = 300, 30, 100
    pin(arguments.core)
    machine = describe_machine(("data-selection", "nltk", "numba", "pyarrow", "gotd"))
    pool, target, origin = load_texts(arguments.n, arguments.m, arguments.seed)
    part = pool[: arguments.official]
    peers = ("data_selection", "nltk")
    outcomes = take_turns(
        [
            Contender(FAST, ours(FastNgrams, pool, target)),
            Contender(SHA256, ours(Sha256Ngrams, pool, target)),
            Contender(OFFICIAL, official(part, target), peers),
        ],
        arguments.rounds,
        arguments.limit,
    )
    rows: dict[str, dict[str, Any]] = {}
    for name, outcome in outcomes.items():
        # The target is read once, the pool twice.
        texts = len(target) + 2 * len(part if name == OFFICIAL else pool)
        rate = [texts / seconds for seconds in outcome.core_s]
        rows[name] = {**outcome.row(), "texts_read": texts, "texts_per_core_s": rate}
    ratios = {
        name: times(rows[name]["texts_per_core_s"], rows[OFFICIAL]["texts_per_core_s"])
        for name in (FAST, SHA256)
    }
    # The package has seen a part of the pool; ours is asked about the same part.
    same = ours(Sha256Ngrams, part, target)()()
    theirs = outcomes[OFFICIAL].value
    difference = None if theirs is None else largest_difference(same, theirs)
    # What any other hash of the same quality agrees: SHA-256 again, other buckets.
    other = ours(Sha256Ngrams, pool, target, OTHER_BUCKETS)()()
    published = -outcomes[SHA256].value.log_weight
    agreement = {
        "fast": fidelity(-outcomes[FAST].value.log_weight, published),
        f"sha256 into {OTHER_BUCKETS:,} buckets": fidelity(-other.log_weight, published),
    }
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"texts": arguments.seed},
        "data": origin,
        "n": len(pool),
        "m": len(target),
        "official": len(part),
        "mean_bytes": float(np.mean([len(text.encode()) for text in pool])),
        "rounds": arguments.rounds,
        "contenders": rows,
        "ratios": ratios,
        "largest_difference": difference,
        "agreement": agreement,
        "claims": [
            claim("fast, times the package's texts/s", median(ratios[FAST]), 40),
            claim("sha256, times the package's texts/s", median(ratios[SHA256]), 2),
            claim("sha256, largest difference", (difference or {}).get("any"), 1e-9, at_most=True),
        ],
    }
    write(arguments, result, "DSIR: gotd against the official package", as_page(result))


def median(found: dict[str, float] | None) -> float | None:
    """Return the median of a ratio that may not have been measured."""
    return None if found is None else found["median"]


def times(ours: list[float], theirs: list[float]) -> dict[str, float] | None:
    """Compare throughputs round by round."""
    found = [a / b for a, b in zip(ours, theirs, strict=False)]
    if not found:
        return None
    return {"median": float(np.median(found)), "least": min(found), "most": max(found)}


def largest_difference(ours: Weights, theirs: Weights) -> dict[str, float]:
    """Compare bucket shares, and log weights relative to their size."""
    shares = max(
        float(np.abs(a / a.sum() - b).max())
        for a, b in ((ours.target, theirs.target), (ours.pool, theirs.pool))
    )
    scale = np.maximum(1.0, np.abs(theirs.log_weight))
    weights = float((np.abs(ours.log_weight - theirs.log_weight) / scale).max())
    return {"bucket_share": shares, "log_weight": weights, "any": max(shares, weights)}


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    rows = [
        [
            name,
            f"{row['texts_read']:,}",
            row["median_core_s"],
            float(np.median(row["texts_per_core_s"])) if row["texts_per_core_s"] else None,
            result["ratios"].get(name),
            row["reason"],
        ]
        for name, row in result["contenders"].items()
    ]
    difference = result["largest_difference"] or {}
    return [
        f"{result['n']:,} texts ({result['data']}; {result['mean_bytes']:,.0f} bytes each on "
        f"average) and a target of {result['m']:,}; the package has the first "
        f"{result['official']:,}. One core, {result['rounds']} rounds in turns. Each side counts "
        "target and pool and weighs the pool, so it reads the target once and the pool twice; "
        "unigrams and bigrams, 10,000 buckets.",
        "",
        *table(["side", "texts read", "core-s", "texts/core-s", "× the package", "note"], rows),
        "",
        *claims_table(result["claims"]),
        "",
        "`sha256` has the package's buckets: on the same texts bucket shares differ by at most "
        f"{number(difference.get('bucket_share'), 2)}, log weights by at most "
        f"{number(difference.get('log_weight'), 2)} of their size. `fast` has buckets of its own. "
        "Rankings without noise, against that of `sha256`; the second row is what SHA-256 itself "
        "agrees when other n-grams share a bucket:",
        "",
        *table(
            ["ranking", "Spearman", *(f"top {percent} %" for percent in OVERLAPS)],
            [
                [
                    name,
                    number(found["spearman"], 6),
                    *(number(found[f"top_{percent}"], 4) for percent in OVERLAPS),
                ]
                for name, found in result["agreement"].items()
            ],
        ),
    ]


if __name__ == "__main__":
    main()
