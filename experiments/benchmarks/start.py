"""Measure what a short command costs: the help, and a selection from four lines.

Every call is a process of its own, so that imports are in its seconds. The first selection fits
the default encoder; the second finds it, and its texts, in the store. Nothing else is stored.

    python experiments/benchmarks/start.py --rounds 5
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from side_by_side import claim, claims_table, command, describe_machine, options, pin, table, write

HELP, FITS, STORED = "gotd --help", "gotd select, four lines", "the same, with a stored encoder"
TARGET = ("Enzymes bind a substrate.", "A protein folds.", "Cells divide.", "Genes are copied.")
POOL = (
    "The enzyme was purified.",
    "It rains in June.",
    "A goal in extra time.",
    "Eggs and flour.",
)


def core_seconds(arguments: Sequence[str], folder: Path) -> float:
    """Run a command and return its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "gotd.cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path) -> dict[str, float]:
    """Run every command once, from an empty store."""
    for name, texts in (("target", TARGET), ("pool", POOL)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    select = ["select", "--target", "target.jsonl", "--candidates", "pool.jsonl", "--budget", "2"]
    return {
        HELP: core_seconds(["--help"], folder),
        FITS: core_seconds([*select, "--out", "first.jsonl"], folder),
        STORED: core_seconds([*select, "--out", "second.jsonl"], folder),
    }


def main() -> None:
    """Measure, and write the page and the JSON file."""
    arguments = options(__doc__).parse_args()
    pin(arguments.core)
    machine = describe_machine(("gotd", "torch", "scikit-learn"))
    with tempfile.TemporaryDirectory() as empty:
        measure(Path(empty))  # byte code is compiled and files are read into memory
    runs = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as empty:
            runs.append(measure(Path(empty)))
    result: dict[str, Any] = {
        "command": command(),
        "hardware": machine,
        "seeds": {"selection": 0},
        "core_s": {name: [run[name] for run in runs] for name in runs[0]},
    }
    middle = {name: statistics.median(spent) for name, spent in result["core_s"].items()}
    result["claims"] = [
        claim(f"{HELP}, core-s", middle[HELP], 0.3, at_most=True),
        claim(f"{FITS}, core-s", middle[FITS], 2.5, at_most=True),
        claim(f"{STORED}, core-s", middle[STORED], 2.5, at_most=True),
    ]
    write(arguments, result, "The start of a command", as_page(result))


def as_page(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    rows = [
        [name, statistics.median(spent), min(spent), max(spent)]
        for name, spent in result["core_s"].items()
    ]
    heads = ["", "core-s, median", "least", "most"]
    return [*table(heads, rows), "", *claims_table(result["claims"])]


if __name__ == "__main__":
    main()
