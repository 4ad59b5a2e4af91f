r"""Compare weights of the warm-up on fresh draws: the registered tests, over two bases.

Runs the cells of results/registrations/warm_up_weight.md, or reads those that are done, and
writes the table of its four comparisons and of all selectors. A sweep runs several cells at a time:

    S=21,22,23,24,25,26,27,28,29,30
    DATA=… python experiments/gap.py scale=folder budget=300 seed=$S \
        selector=none,dsir,got_d,half_oracle                # then the same with model.seed=1
    DATA=… python experiments/gap.py scale=folder budget=300 seed=$S \
        selector=got_d_path selector.method.weight=0.083,0.3,0.9
    DATA=… python experiments/gap.py scale=folder budget=300 seed=$S \
        selector=mmd_herding selector.method.weight=0.3
    DATA=… python experiments/warm_up_weight_comparison.py --out results
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gotd.cli.parser import whole_numbers
from gotd.pipeline.experiment import run_cell
from gotd.reporting.statistics import PairedTest, holm, paired_test
from gotd.runs.expand import expand

SETTING = ["experiment=gap", "scale=folder", "tracker=none", "budget=300"]
TASKS = ("gap_biomedical", "gap_cs_papers", "gap_math")
SEEDS = range(21, 31)
BASES = {"first base": [], "second base": ["model.seed=1"]}
WEIGHT = "selector.method.weight"
ARMS = {
    "none": ["selector=none"],
    "dsir": ["selector=dsir"],
    "got_d": ["selector=got_d"],
    "half_oracle": ["selector=half_oracle"],
    "got_d_path .083": ["selector=got_d_path", f"{WEIGHT}=0.083"],
    "got_d_path .3": ["selector=got_d_path", f"{WEIGHT}=0.3"],
    "got_d_path .9": ["selector=got_d_path", f"{WEIGHT}=0.9"],
    "mmd_herding .3": ["selector=mmd_herding", f"{WEIGHT}=0.3"],
}
REGISTERED = (
    ("got_d_path .3", "dsir"),
    ("got_d_path .3", "got_d"),
    ("got_d_path .083", "got_d"),
    ("got_d_path .3", "got_d_path .9"),
)
"""The primary family; Holm's correction runs over it."""
OTHERS = (
    *(("got_d", "none"), ("got_d", "dsir"), ("got_d_path .083", "dsir")),
    *(("mmd_herding .3", "got_d"), ("mmd_herding .3", "dsir")),
    *(("half_oracle", "got_d"), ("got_d_path .3", "half_oracle")),
)
"""Shown with intervals, without a verdict."""
HALVES = ("covered", "missing")
LEVEL = 0.05


@dataclass(frozen=True)
class Result:
    """A comparison: the tests of its differences, and Holm's p where it is registered.

    Args:
        arm: The arm that is compared.
        reference: The arm it is compared with.
        over: Each base, then the average over both, by name.
        holm_p: Of the average, within the primary family.
    """

    arm: str
    reference: str
    over: dict[str, PairedTest]
    holm_p: float | None = None

    @property
    def verdict(self) -> str:
        """Return the conclusion in a word; empty where no corrected test allows one."""
        if self.holm_p is None or not self.holm_p <= LEVEL:
            return ""
        return "better" if self.over["both"].difference.mean < 0 else "worse"


def measure(seeds: Sequence[int], overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Run every cell, or read those that are done; list base, arm, task, seed and losses."""
    rows = []
    for base, of_base in BASES.items():
        for arm, of_arm in ARMS.items():
            axes = [f"task={','.join(TASKS)}", f"seed={','.join(map(str, seeds))}"]
            for config, variant in expand([*SETTING, *of_arm, *axes, *of_base, *overrides]):
                record, task, seed = run_cell(config, variant), config.task.name, config.seed
                if record["status"] != "done":
                    message = record["error"]["message"]
                    raise SystemExit(f"{base}, {arm}, {task}, seed {seed}: {message}")
                rows.append(_row(record, base=base, arm=arm, task=task, seed=seed))
            print(f"{base}, {arm}: done", flush=True)
    return rows


def _row(record: dict[str, Any], **cell: Any) -> dict[str, Any]:
    """Return a cell with its losses, in nats, and the missing domain's share of the selection."""
    metrics, selection = record["metrics"], record["selection"]
    losses = {part: metrics[f"target_loss/{part}"] for part in ("mean", "covered", "missing")}
    share = None if selection is None else selection["under_covered_share"]
    code, hardware = record["cost"]["code"]["git_sha"], record["cost"]["hardware"]
    about = {"key": record["key"], "commit": code, "hardware": hardware}
    return {**cell, **losses, "missing_share": share, **about}


def differences(rows: Sequence[dict[str, Any]], arm: str, reference: str, base: str) -> np.ndarray:
    """Return the mean difference over the tasks, one per draw; float64 ``[draws]``."""
    losses: dict[tuple[str, int, str], float] = {
        (row["arm"], row["seed"], row["task"]): row["mean"] for row in rows if row["base"] == base
    }
    seeds = sorted({seed for _, seed, _ in losses})
    tasks = sorted({task for _, _, task in losses})
    return np.array(
        [
            np.mean([losses[arm, seed, task] - losses[reference, seed, task] for task in tasks])
            for seed in seeds
        ]
    )


def compare(rows: Sequence[dict[str, Any]]) -> list[Result]:
    """Test the registered pairs on the average over both bases; list the others after them."""
    results = []
    for arm, reference in (*REGISTERED, *OTHERS):
        by_base = {base: differences(rows, arm, reference, base) for base in BASES}
        by_base = {"both": np.mean(list(by_base.values()), axis=0), **by_base}
        # A fresh generator each: the p of a pair cannot depend on the pairs before it.
        tests = {
            name: paired_test(values, np.random.default_rng(0)) for name, values in by_base.items()
        }
        results.append(Result(arm, reference, tests))
    adjusted = holm([one.over["both"].p_value for one in results[: len(REGISTERED)]])
    tested = [
        Result(one.arm, one.reference, one.over, float(p))
        for one, p in zip(results, adjusted, strict=False)
    ]
    return [*tested, *results[len(REGISTERED) :]]


def tabulate(rows: Sequence[dict[str, Any]]) -> str:
    """Format the comparisons, and the mean losses of each selector, as Markdown."""
    results, draws = compare(rows), len({row["seed"] for row in rows})
    lines = [
        "# Weights of the warm-up, on fresh draws",
        "",
        f"Difference of the loss on held-out target texts, in nats: arm minus reference, averaged "
        f"over three missing domains, with {draws} draws; less is better. The first four pairs are "
        "registered, on the average over both bases, and have Holm's correction over the four. "
        "Detectable: the smallest true difference that has power .8 at level .05.",
        "",
        "## Comparisons",
        "",
        "| arm | against | both bases | 95 % interval | detectable | Holm p | verdict | "
        + " | ".join(f"{base} (95 %)" for base in BASES)
        + " |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |" + " ---: |" * len(BASES),
    ]
    for one in results:
        both = one.over["both"]
        cells = [one.arm, one.reference, f"{both.difference.mean:+.4f}", _span(both)]
        cells += [f"{both.detectable:.4f}", "" if one.holm_p is None else f"{one.holm_p:.3f}"]
        cells += [one.verdict]
        cells += [
            f"{one.over[base].difference.mean:+.4f} ({_span(one.over[base])})" for base in BASES
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_levels(rows), "", *_origin(rows), ""])


def _origin(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the command, the commits that made the cells, and the machines."""
    commits = sorted({row["commit"][:7] for row in rows})
    machines = sorted({f"{h['cores']} cores {h['cpu']}" for row in rows if (h := row["hardware"])})
    return [
        "Command: `python experiments/warm_up_weight_comparison.py --out results`, "
        f"cells of {', '.join(commits)}; {', '.join(machines)}."
    ]


def _levels(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "## Halves of the target",
        "",
        "Mean loss of each half against none, and the share of the selection that is of the "
        "missing domain:",
        "",
        "| arm | "
        + " | ".join(f"{base}, {half}" for base in BASES for half in HALVES)
        + " | share |",
        "| --- |" + " ---: | ---: |" * len(BASES) + " ---: |",
    ]
    for arm in ARMS:
        cells = [arm]
        for base in BASES:
            for half in HALVES:
                own, plain = (
                    np.mean([r[half] for r in rows if (r["arm"], r["base"]) == (name, base)])
                    for name in (arm, "none")
                )
                cells.append("" if arm == "none" else f"{own - plain:+.4f}")
        shares = [
            r["missing_share"] for r in rows if r["arm"] == arm and r["missing_share"] is not None
        ]
        cells.append(f"{np.mean(shares):.2f}" if shares else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _span(test: PairedTest) -> str:
    return f"{test.difference.low:+.4f} to {test.difference.high:+.4f}"


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, test, and write the table and the numbers behind it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    draws = "draws, with commas between them; default: registered"
    parser.add_argument("--seeds", type=whole_numbers, default=list(SEEDS), help=draws)
    parser.add_argument("--out", type=Path, default=Path("artifacts/warm_up_weight"))
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of every cell")
    options = parser.parse_args(arguments)
    rows = measure(options.seeds, options.overrides)
    page = tabulate(rows)
    folder = options.out / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "warm_up_weight_comparison.md").write_text(page, encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "warm_up_weight_comparison.jsonl").write_text(lines, encoding="utf-8")
    print(page)
    return rows


if __name__ == "__main__":
    main()
