"""Compare what `gotd plan` states for a sweep with what the sweep then takes.

Every experiment starts with an empty store, so the plan knows no earlier runs. The other programs
of the machine change the seconds of a run, so it should have none.

    python experiments/benchmarks/planning.py                      # four sweeps
    python experiments/benchmarks/planning.py --sweeps glue
    python experiments/benchmarks/planning.py --quick              # two cells
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from side_by_side import (
    claim,
    claims_table,
    command,
    describe_machine,
    options,
    table,
    write,
)

from gotd.planning.estimates import this_machine
from gotd.planning.plan import concurrency, lay_out, plan_steps, wall_seconds
from gotd.storage.artifacts import MANIFEST

EIGHT = "none,random,nearest,dsir,curated_tapt,got_d,half_oracle,oracle"
"""The default selectors of commit 26fb982, before there were more."""
SWEEPS = {
    "glue": ("glue", ["seed=11"]),
    "glue_eight": ("glue", ["seed=11", f"selector={EIGHT}"]),
    "gap": ("gap", ["seed=11"]),
    "zeroshot": ("zeroshot", []),
}
"""Experiment and overrides of each; a world of the first three takes minutes, not half an hour."""
WANTED = {
    "glue": {"core_s": 1000, "wall_s": 600},
    "glue_eight": {"core_s": 600, "wall_s": 360},
}
"""Most seconds of the processor, and of the clock on two idle cores."""
QUICK = (
    "task=cola", "seed=1", "selector=none,random", "budget=100", "model.pretraining.epochs=0",
    "pre_fine_tune.epochs=1", "fine_tune.epochs=1",
)  # fmt: skip


def planned(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the seconds that the plan states, in all and by kind of step."""
    cells, _, _ = lay_out(overrides)
    at_once = concurrency(overrides)
    distinct = {cell.record.key: cell for cell in cells}
    machine = this_machine(at_once.threads)
    lines = plan_steps(list(distinct.values()), {}, machine)
    by_kind = {line.kind: sum(estimate.seconds for estimate in line.estimates) for line in lines}
    return {
        "seeds": sorted({cell.axes["seed"] for cell in cells}),
        "cells": len(distinct),
        "processes": at_once.processes,
        "planned_s": sum(by_kind.values()),
        "planned_wall_s": wall_seconds(lines, len(distinct), at_once.processes, machine),
        "planned_s_by_kind": by_kind,
    }


def ran(overrides: Sequence[str], store: Path) -> dict[str, Any]:
    """Run a sweep and return its seconds: of the clock, of the processor, and of each step."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gotd.cli.main", "run", *overrides],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr or done.stdout)
    by_kind: dict[str, float] = defaultdict(float)
    for path in store.glob(f"*/*/{MANIFEST}"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        by_kind[manifest["kind"]] += manifest["cost"]["elapsed_s"]
    return {
        "wall_s": time.perf_counter() - began,
        "core_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "steps_s": sum(by_kind.values()),
        "steps_s_by_kind": dict(by_kind),
    }


def measure(experiment: str, given: Sequence[str], store: Path) -> dict[str, Any]:
    """Plan a sweep, run it, and return both."""
    overrides = [f"experiment={experiment}", *given, f"store={store}", "tracker=none"]
    plan = planned(overrides)
    run = ran(overrides, store)
    return {
        **plan,
        **run,
        "steps_ratio": plan["planned_s"] / run["steps_s"],
        "wall_ratio": plan["planned_wall_s"] / run["wall_s"],
    }


def main() -> None:
    """Run every experiment and write the result."""
    parser: argparse.ArgumentParser = options(__doc__)
    parser.add_argument("--sweeps", default=",".join(SWEEPS), help="names, with commas")
    parser.set_defaults(rounds=1)
    arguments = parser.parse_args()
    names = ["glue"] if arguments.quick else arguments.sweeps.split(",")
    for name in names:
        if name not in SWEEPS:
            parser.error(f"--sweeps: there is no {name!r}; choose from {', '.join(SWEEPS)}")
    hardware, sweeps = describe_machine(["gotd", "torch", "transformers"]), {}
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            experiment, given = SWEEPS[name]
            overrides = QUICK if arguments.quick else given
            sweeps[name] = measure(experiment, overrides, Path(place) / name)
    result = {
        "command": command(),
        "seeds": {name: sweep.pop("seeds") for name, sweep in sweeps.items()},
        "hardware": hardware,
        "sweeps": sweeps,
        "claims": [] if arguments.quick else claims(sweeps),
    }
    write(arguments, result, "Sweeps: cost, and what gotd plan stated", body(result))


def claims(sweeps: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare the seconds of sweeps with the goals."""
    kinds = {"core_s": "seconds of the processor", "wall_s": "seconds of the clock"}
    return [
        claim(f"{name}, {kinds[kind]}", sweeps[name][kind], most, at_most=True)
        for name in sweeps
        for kind, most in WANTED.get(name, {}).items()
    ]


def body(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    columns = {
        "cells": "cells",
        "processes": "processes",
        "planned_s": "planned, one after another, s",
        "steps_s": "steps, s",
        "steps_ratio": "planned ÷ steps",
        "planned_wall_s": "planned, at once, s",
        "wall_s": "wall s",
        "wall_ratio": "planned ÷ wall",
        "core_s": "core-s",
    }
    sweeps = result["sweeps"]
    rows = [[name, *(sweep[key] for key in columns)] for name, sweep in sweeps.items()]
    lines = [*table(["sweep", *columns.values()], rows), ""]
    if result["claims"]:
        lines += [
            "`glue` is one world with the default selectors, `glue_eight` with eight: "
            f"{EIGHT.replace(',', ', ')}.",
            "",
            *claims_table(result["claims"]),
            "",
        ]
    for name, sweep in sweeps.items():
        plan, run = sweep["planned_s_by_kind"], sweep["steps_s_by_kind"]
        kinds = sorted(run, key=lambda kind: -run[kind])
        steps = [[kind, plan.get(kind), run[kind]] for kind in kinds if run[kind] >= 1]
        lines += [f"## {name}", "", *table(["step", "planned s", "run s"], steps), ""]
    return lines


if __name__ == "__main__":
    main()
