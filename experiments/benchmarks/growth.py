"""Measure how time and memory of `gotd select` grow with the rows of its pool.

Each row has a text of about 110 characters and five more columns, one of them nested, which the
output carries. Default options: exact duplicates are removed, GOT-D with the default encoder.
Each size runs in a process of its own with a new store. Memory is the peak of resident memory
without mapped files (RssAnon), of the process and its children.

    python experiments/benchmarks/growth.py            # 100,000 to 5 million rows
    python experiments/benchmarks/growth.py --quick    # 2,000 and 6,000 rows
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from large_pool import measured
from matplotlib.figure import Figure
from side_by_side import claim, claims_table, command, describe_machine, options, table, write

SIZES, QUICK_SIZES = (100_000, 300_000, 1_000_000, 5_000_000), (2_000, 6_000)
ROWS_PER_FILE = 100_000
TARGETS, BUDGET, SEED = 500, 1_000, 11
TOPICS, WORDS = 20, 16
LANGUAGES, SOURCES = ("en", "de", "fr"), ("web", "books", "forum", "code")


def texts(rows: int, random: np.random.Generator, topics: np.ndarray) -> list[str]:
    """Return texts, half of whose words are of a topic, by a Zipf distribution."""
    own = (random.zipf(1.3, (rows, WORDS // 2)) % 2_000) + 10_000 * topics[:, None]
    common = (random.zipf(1.3, (rows, WORDS // 2)) % 5_000) + 1_000_000
    return [" ".join(line) for line in np.char.add("w", np.hstack([own, common]).astype(str))]


def rows_of(number: int, rows: int, random: np.random.Generator) -> pa.Table:
    """Return one file of the pool."""
    topics = random.integers(0, TOPICS, rows)
    columns = {
        "id": [f"{number}/{row}" for row in range(rows)],
        "text": texts(rows, random, topics),
        "lang": random.choice(LANGUAGES, rows),
        "stars": random.integers(1, 6, rows),
        "source": random.choice(SOURCES, rows),
        "score": random.random(rows),
        "meta": [{"topic": int(topic), "tags": [f"t{topic}", "x"]} for topic in topics],
    }
    return pa.table(columns)


def write_rows(folder: Path, rows: int) -> None:
    """Write a target of two topics and the pool, in files of 100,000 rows."""
    random = np.random.default_rng(SEED)
    (folder / "pool").mkdir(parents=True)
    wanted = texts(TARGETS, random, np.arange(TARGETS) % 2)
    pq.write_table(pa.table({"text": wanted}), folder / "target.parquet")
    for number, start in enumerate(range(0, rows, ROWS_PER_FILE)):
        part = rows_of(number, min(ROWS_PER_FILE, rows - start), random)
        pq.write_table(part, folder / "pool" / f"part-{number:03d}.parquet")


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """Select from a pool of ``rows``; return seconds, memory, and the share of right topics."""
    write_rows(folder, rows)
    select = [
        *(sys.executable, "-m", "gotd.cli.main", "select"),
        *("--target", str(folder / "target.parquet"), "--candidates", str(folder / "pool")),
        *("--budget", str(min(BUDGET, rows // 20)), "--out", str(folder / "chosen.parquet")),
        *("--store", str(folder / "store")),
    ]
    result = measured(select, folder / "store")
    chosen = pq.read_table(folder / "chosen.parquet")
    topics = np.array([meta["topic"] for meta in chosen["meta"].to_pylist()])
    return {
        "rows": rows,
        "wall_s": result["elapsed_s"],
        "core_s": result["core_s"],
        "core_us_per_row": 1e6 * result["core_s"] / rows,
        "peak_anonymous_gib": result["peak_anonymous_gib"],
        "pool_gb": sum(path.stat().st_size for path in (folder / "pool").iterdir()) / 1e9,
        "selected": len(chosen),
        "columns": chosen.num_columns,
        "share_of_target_topics": float((topics < 2).mean()),
    }


def draw(sizes: list[dict[str, Any]]) -> Figure:
    """Draw processor seconds and memory over the rows, both axes logarithmic."""
    rows = [size["rows"] for size in sizes]
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "gotd"}):
        figure = Figure(figsize=(7.2, 3), layout="constrained")
        for axis, key, label in zip(
            figure.subplots(1, 2),
            ("core_s", "peak_anonymous_gib"),
            ("processor seconds", "peak of anonymous memory, GiB"),
            strict=True,
        ):
            values = np.array([size[key] for size in sizes])
            axis.loglog(rows, values, "o-", color="#0072B2")
            axis.set(xlabel="rows of the pool", title=label)
            axis.grid(alpha=0.3)
            if key == "core_s":
                axis.loglog(rows, values[-1] * np.array(rows) / rows[-1], ":", color="#777777")
            else:
                axis.set_ylim(0.1, 10)
    return figure


def main() -> None:
    """Measure each size, and write the page, the JSON file and the figure."""
    parser = options(__doc__)
    parser.set_defaults(rounds=1)
    arguments = parser.parse_args()
    machine = describe_machine(["gotd", "torch", "pyarrow", "scikit-learn"])
    sizes = []
    for rows in QUICK_SIZES if arguments.quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            sizes.append(measure(Path(folder), rows))
        print(sizes[-1], flush=True)
    last, before = sizes[-1], sizes[-2]
    slope = np.log(last["core_s"] / before["core_s"]) / np.log(last["rows"] / before["rows"])
    claims = [claim("exponent of time in rows, last two sizes", float(slope), 1.1, at_most=True)]
    for size in sizes[-2:]:
        grown = size["peak_anonymous_gib"] / sizes[0]["peak_anonymous_gib"]
        says = f"memory at {size['rows']:,} rows ÷ memory at {sizes[0]['rows']:,}"
        claims.append(claim(says, grown, 1.25, at_most=True))
    result = {
        "command": command(),
        "seeds": {"rows": SEED},
        "hardware": machine,
        "budget": BUDGET,
        "targets": TARGETS,
        "sizes": sizes,
        "claims": claims,
        "figure": f"{arguments.name}.svg",
    }
    write(arguments, result, "`gotd select`: growth with the pool", body(result))
    picture = arguments.out / result["figure"]
    draw(sizes).savefig(picture, metadata={"Date": None})


def body(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    header = [
        "rows", "pool GB", "wall s", "core-s", "core-µs a row", "peak memory GiB", "selected",
        "share of the target's topics",
    ]  # fmt: skip
    names = [
        "rows", "pool_gb", "wall_s", "core_s", "core_us_per_row", "peak_anonymous_gib",
        "selected", "share_of_target_topics",
    ]  # fmt: skip
    rows = [[size[name] for name in names] for size in result["sizes"]]
    says = (
        f"Selections of {result['budget']:,} rows for {result['targets']} target rows, with all "
        "columns, by default options. Two of twenty topics are the target's. The dotted line is "
        "proportional to the rows."
    )
    lines = [*table(header, rows), "", *claims_table(result["claims"])]
    return [says, "", f"![Time and memory by rows]({result['figure']})", "", *lines]


if __name__ == "__main__":
    main()
