"""Measure what near-duplicates in a pool cost: the share of the budget, and the outcome.

Some questions of the generated instructions have up to a hundred copies with small edits. A
selected row is lost if another selected row is a copy of the same question. The outcome is the
loss of a small GPT on held-out responses after tuning on the selection. Kernel size and alpha of
TSDS are varied, and whether its density counts the pool or the rows that were looked up (D31).

    python experiments/near_duplicates.py                       # five worlds
    python experiments/near_duplicates.py --seeds 10 --out results   # for the committed page

A second call runs what is missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gotd.data.microworld.instructions import COPY
from gotd.pipeline.experiment import plan_cell, run_cell
from gotd.pipeline.ranked_pool import SELECTED
from gotd.reporting.statistics import t_interval
from gotd.runs.expand import expand

POOLS = {
    "no copies": ["source.repeated_share=0.0"],
    "1 % x 10": ["source.repeated_share=0.01", "source.repeats=10"],
    "1 % x 100": ["source.repeated_share=0.01", "source.repeats=100"],
    "5 % x 20": ["source.repeated_share=0.05", "source.repeats=20"],
}
"""Share of the rows that are repeated, and how often."""
KDE, ALPHA, SIGMA = "selector=tsds_kde", "selector.method.alpha", "selector.method.sigma"
ARMS: dict[str, list[str]] = {
    "none": ["selector=none"],
    "random": ["selector=random"],
    "nearest": ["selector=nearest"],
    "bm25": ["selector=bm25"],
    "KNN-Uniform": ["selector=tsds"],
    **{f"KNN-Uniform (alpha {a})": ["selector=tsds", f"{ALPHA}={a}"] for a in (0.01, 0.1)},
    "KNN-KDE": [KDE],
    **{f"KNN-KDE (alpha {a})": [KDE, f"{ALPHA}={a}"] for a in (0.01, 0.1)},
    **{f"KNN-KDE (sigma {s})": [KDE, f"{SIGMA}={s}"] for s in (0.1, 0.3, 0.5)},
    "KNN-KDE (looked up)": [KDE, "selector.method.density_over=looked_up"],
    "got_d": ["selector=got_d"],
    "got_d_path": ["selector=got_d_path"],
}
"""Overrides of each arm; the kernel sizes are those of TSDS's ablation."""
SETTING = [
    "experiment=instruction/micro",
    "embedder=tfidf_svd",  # of unit length, as the kernel sizes suppose
    "budget_unit=rows",
    "budget=100",
    "rank_rows=100",
    "tracker=none",
]


def lost_share(ids: list[str]) -> float:
    """Return the share of the selected rows that repeat the question of another one."""
    return 1 - len({name.partition(COPY)[0] for name in ids}) / len(ids)


def measure(pool: str, arm: str, seed: int, overrides: list[str]) -> dict[str, Any]:
    """Run a cell, or read it where it is done, and return its loss and what was lost."""
    given = [*SETTING, *POOLS[pool], *ARMS[arm], f"seed={seed}", *overrides]
    ((config, variant),) = expand(given)
    record, cell = run_cell(config, variant), plan_cell(config, variant)
    if record["status"] != "done":
        raise SystemExit(f"{pool}, {arm}, seed {seed}: {record['error']['message']}")
    step = cell.record.inputs.get("selection")
    ids = []
    if step is not None:
        ids = pq.read_table(cell.store.get(step) / SELECTED)["id"].to_pylist()
    return {
        "pool": pool,
        "arm": arm,
        "seed": seed,
        "loss": record["metrics"]["headline"],
        "lost_share": lost_share(ids) if ids else None,
    }


def tabulate(rows: list[dict[str, Any]], command: str) -> str:
    """Format means and 95 % intervals over worlds as Markdown."""
    pools = list(dict.fromkeys(row["pool"] for row in rows))
    seeds = len({row["seed"] for row in rows})
    lines = [
        "# What do near-duplicates cost?",
        "",
        f"Mean and 95 % t-interval over {seeds} worlds. Lost: share of the selected rows that "
        "repeat the question of another one. Loss: nats per token of held-out responses after "
        "tuning on the selection; less is better. A pool is named by the share of its rows that "
        "is repeated, and how often.",
        "",
        "## By arm",
        "",
        "| arm | " + " | ".join(f"{pool}: lost, % | {pool}: loss" for pool in pools) + " |",
        "| --- |" + " ---: | ---: |" * len(pools),
    ]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = [arm]
        for pool in pools:
            found = [row for row in rows if (row["pool"], row["arm"]) == (pool, arm)]
            for name, factor, digits in (("lost_share", 100, 1), ("loss", 1, 3)):
                values = [row[name] for row in found if row[name] is not None]
                cells.append(_interval([factor * value for value in values], digits))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Command: `{command}`", ""])


def _interval(values: list[float], digits: int) -> str:
    if not values:
        return ""
    interval = t_interval(values)
    mean = f"{interval.mean:.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def _named(given: str | None, known: dict[str, list[str]], parser: Any) -> list[str]:
    chosen = list(known) if given is None else given.split(";")
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"unknown name {unknown[0]!r}; choose from {'; '.join(known)}")
    return chosen


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, then write the table and the numbers behind it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pools", help="names, with ; between them; default: all")
    parser.add_argument("--arms", help="names, with ; between them; default: all")
    parser.add_argument("--seeds", type=int, default=5, help="worlds, from 11 on")
    parser.add_argument("--out", type=Path, default=Path("artifacts/near_duplicates"))
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of every cell")
    options = parser.parse_args(arguments)
    rows = []
    for seed in range(11, 11 + options.seeds):
        for pool in _named(options.pools, POOLS, parser):
            arms = _named(options.arms, ARMS, parser)
            rows += [measure(pool, arm, seed, options.overrides) for arm in arms]
            print(f"world {seed}, {pool}: done", flush=True)
    page = tabulate(rows, f"python experiments/near_duplicates.py --seeds {options.seeds}")
    folder = options.out / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "near_duplicates.md").write_text(page, encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "near_duplicates.jsonl").write_text(lines, encoding="utf-8")
    print(page)
    return rows


if __name__ == "__main__":
    main()
