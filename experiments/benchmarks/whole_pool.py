"""Select from all passages of the folder with every method of `gotd select`.

Each method runs in a process of its own with a new store, so that its cost has everything: reading,
fitting the encoder, embedding, ranking and writing. Methods that read a model get one of the
gap experiment's size, built from its configuration with random weights, since weights do not
change the time. ``less`` reads a part of the pool, since it needs gradients. Memory is the peak
of resident memory without mapped files, of the process and its children.

    DATA=… python experiments/benchmarks/whole_pool.py
    DATA=… python experiments/benchmarks/whole_pool.py --quick          # 2,000 passages
    DATA=… python experiments/benchmarks/whole_pool.py --methods got_d --methods less
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from large_pool import measured
from selection import methods
from side_by_side import claim, claims_table, command, describe_machine, options, table, write

from gotd.training.models import ModelSpec, build_model

TARGETS, BUDGET, SEED = 500, 10_000, 0
PART = 50_000
"""Passages that ``less`` reads."""
QUICK = 2_000
WITH_MODEL = {"rds_plus": None, "loss_drop": None, "perplexity": None, "less": PART}
"""Methods that read a model, and the most passages that each reads."""
HOUR_S, MEMORY_GIB = 3600.0, 4.0


def passages(folder: Path) -> Iterator[pa.Table]:
    """Read the passages, one file after another."""
    for path in sorted((folder / "candidates").glob("*.parquet")):
        yield pq.read_table(path, columns=["id", "text", "domain"])


def write_part(folder: Path, rows: int, out: Path) -> int:
    """Write ``rows`` passages at equal distances, or all if there are fewer; return how many."""
    total = sum(len(one) for one in passages(folder))
    rows = min(rows, total)
    wanted, first, parts = np.arange(rows) * total // rows, 0, []
    for one in passages(folder):
        own = wanted[(wanted >= first) & (wanted < first + len(one))] - first
        parts.append(one.take(pa.array(own)))
        first += len(one)
    pq.write_table(pa.concat_tables(parts), out)
    return rows


def write_model(texts: list[str], out: Path) -> None:
    """Write a BERT of two layers and width 128 with random weights, and its tokenizer."""
    spec = ModelSpec(
        tokenizer="wordpiece",
        vocabulary_size=8192,
        layers=2,
        hidden_size=128,
        heads=2,
        feed_forward_size=512,
        max_length_tokens=128,
    )
    build_model(spec, texts, SEED, out)


def measure(method: str, candidates: Path, folder: Path, budget: int) -> dict[str, Any]:
    """Run `gotd select` with a method; return its seconds and memory."""
    apart = folder / method
    apart.mkdir()
    select = [
        *(sys.executable, "-m", "gotd.cli.main", "select", "--method", method),
        *("--target", str(folder / "target.parquet"), "--candidates", str(candidates)),
        *("--budget", str(budget), "--out", str(apart / "chosen.parquet")),
        *("--store", str(apart / "store"), "--seed", str(SEED)),
        *(("--model", str(folder / "model")) if method in WITH_MODEL else ()),
    ]
    result = measured(select, apart / "store")
    rows = pq.read_metadata(apart / "chosen.parquet").num_rows
    return {"method": method, "selected": rows, "wall_s": result.pop("elapsed_s"), **result}


def main() -> None:
    """Measure every method, and write the page and the JSON file."""
    parser = options(__doc__)
    parser.add_argument("--methods", action="append", help="one method; may be repeated")
    arguments = parser.parse_args()
    if not os.environ.get("DATA"):
        raise SystemExit("name the folder of passages: DATA=… python …")
    data, known = Path(os.environ["DATA"]), [*methods(), *WITH_MODEL]
    for name in arguments.methods or ():
        if name not in known:
            raise SystemExit(f"unknown method {name!r}; choose from {', '.join(known)}")
    machine = describe_machine(["gotd", "torch", "pyarrow", "scikit-learn"])
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = pq.read_table(data / "domain" / "chemprot" / "train.parquet", columns=["text"])
        pq.write_table(target.slice(0, TARGETS), folder / "target.parquet")
        pools: dict[int | None, Path] = {PART: folder / "part.parquet", None: data / "candidates"}
        counts: dict[int | None, int] = {
            PART: write_part(data, QUICK if arguments.quick else PART, pools[PART])
        }
        counts[None] = sum(len(one) for one in passages(data))
        write_model(pq.read_table(pools[PART])["text"].to_pylist(), folder / "model")
        for method in arguments.methods or known:
            size = PART if arguments.quick else WITH_MODEL.get(method)
            budget = 100 if arguments.quick else BUDGET
            row = measure(method, pools[size], folder, budget) | {"pool": counts[size]}
            print(row, flush=True)
            rows.append(row)
    slowest = max(row["core_s"] for row in rows)
    most = max(row["peak_anonymous_gib"] for row in rows)
    result = {
        "command": command(),
        "seeds": {"selection": SEED},
        "hardware": machine,
        "budget": 100 if arguments.quick else BUDGET,
        "targets": TARGETS,
        "methods": rows,
        "claims": [
            claim("processor seconds of the slowest method", slowest, HOUR_S, at_most=True),
            claim("GiB of the method that needs most", most, MEMORY_GIB, at_most=True),
        ],
    }
    write(arguments, result, "Every method on the whole pool", body(result))


def body(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    names = ["method", "pool", "selected", "core_s", "wall_s", "peak_anonymous_gib"]
    header = ["method", "passages", "selected", "core-s", "wall s", "peak memory GiB"]
    rows = [
        [f"{row[name]:,}" if name in ("pool", "selected") else row[name] for name in names]
        for row in result["methods"]
    ]
    says = (
        f"`gotd select` of {result['budget']:,} passages for {result['targets']} texts of "
        "ChemProt, by default options, with a new store each. So every row has reading, fitting "
        "the encoder, embedding, ranking and writing. The last four methods read a BERT of two "
        "layers and width 128."
    )
    return [says, "", *table(header, rows), "", *claims_table(result["claims"])]


if __name__ == "__main__":
    main()
