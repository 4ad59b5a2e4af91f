"""Estimate the weight that a warm-up gives to its selection, from selections of known shares.

Lemma 1 of GOT-D says that a model that was warmed up on a selection behaves as if it had been
trained on the mixture (1 - weight) p + weight u, with the shares p of the pool and u of the
selection. A domain d then has u_d / p_d times its former share, with weight ``weight``, and its
loss on held-out texts changes by

    c_d - b log(1 + weight (u_d / p_d - 1)).

Here c_d is what any warm-up changes, and b >= 0 is how much of its likelihood the model takes from
knowing the domain. This program warms up on random rows of known shares, on draws that no table
uses, and fits weight, b and c_d by least squares. `GotDPath` and `MMDHerding` have this weight as
an option.

    DATA=… python experiments/warm_up_weight.py                        # budget 300, draws 1 and 2
    DATA=… python experiments/warm_up_weight.py --budgets 100,300,1000 --out results
    DATA=… python experiments/warm_up_weight.py model.seed=1           # another base

A second call runs what is missing. Source: GOT-D (ICLR 2024), Lemma 1; the estimate is ours.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from gotd.cli.parser import whole_numbers
from gotd.pipeline.experiment import run_cell
from gotd.runs.expand import expand

SETTING = ["experiment=gap", "scale=folder", "tracker=none"]
TASKS = ("gap_biomedical", "gap_cs_papers", "gap_math")
ARMS = ("random", "quarter_oracle", "half_oracle", "three_quarters_oracle", "oracle")
"""Random rows of known shares: of the whole pool, and 25 to 100 % of the missing domain."""
PARTS = ("covered", "missing")
RESAMPLES, SEED = 200, 0
GRID = np.linspace(0.005, 0.995, 67)


@dataclass(frozen=True)
class Change:
    """The change of one domain's held-out loss by one warm-up.

    Args:
        unit: Draw and task, which are resampled together.
        part: Part of the target, ``covered`` or ``missing``.
        domain: The domain of its held-out texts.
        selected: Share of the domain in the selection.
        pool: Its share in the pool.
        change: Nats per token, after minus before.
    """

    unit: str
    part: str
    domain: str
    selected: float
    pool: float
    change: float


@dataclass(frozen=True)
class Fit:
    """The least-squares fit: weight in (0, 1), slope b in nats, and the explained share."""

    weight: float
    slope: float
    explained: float


def fit_weight(changes: Sequence[Change]) -> Fit:
    """Fit weight, slope and an offset per domain.

    Args:
        changes: At least four, with two ratios or more in a domain.

    Returns:
        The fit of the least squared error. The weight lies in [.005, .995].
    """
    ratio = np.array([one.selected / one.pool for one in changes])
    change = np.array([one.change for one in changes])
    names = [one.domain for one in changes]
    domains = np.array([[name == domain for domain in dict.fromkeys(names)] for name in names])

    def solve(weight: float) -> tuple[float, float]:
        """Return the squared error and the slope for a weight, with offsets projected out."""
        gain = -np.log1p(weight * (ratio - 1))
        gain, rest = (_centred(values, domains) for values in (gain, change))
        slope = max(0.0, float(gain @ rest) / max(float(gain @ gain), 1e-300))
        return float(np.square(rest - slope * gain).sum()), slope

    best = int(np.argmin([solve(weight)[0] for weight in GRID]))
    low, high = GRID[max(0, best - 1)], GRID[min(len(GRID) - 1, best + 1)]
    found = minimize_scalar(lambda weight: solve(weight)[0], bounds=(low, high), method="bounded")
    error, slope = solve(float(found.x))
    total = float(np.square(_centred(change, domains)).sum())
    return Fit(float(found.x), slope, 1 - error / total if total else 0.0)


def _centred(values: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Subtract the mean of each domain."""
    means = (values @ domains) / domains.sum(axis=0)
    return values - domains @ means


def interval(changes: Sequence[Change]) -> tuple[float, float]:
    """Return the 95 % interval of the weight, by resampling units (draw and task)."""
    random = np.random.default_rng(SEED)
    units: dict[str, list[Change]] = {}
    for one in changes:
        units.setdefault(one.unit, []).append(one)
    weights = []
    for _ in range(RESAMPLES):
        drawn = random.choice(list(units), len(units))
        weights.append(fit_weight([one for unit in drawn for one in units[unit]]).weight)
    low, high = np.quantile(weights, [0.025, 0.975])
    return float(low), float(high)


def changes_of(record: dict[str, Any]) -> list[Change]:
    """Read the change of both parts of a target from a record of the gap experiment."""
    selection, task = record["selection"], record["config"]["task"]
    unit = f"{task['name']}, draw {record['config']['seed']}"
    found = []
    for part in PARTS:
        domain, metrics = task[part], record["metrics"]
        selected = selection["domains"].get(domain, 0) / selection["rows"]
        pool = selection["expected_domains"][domain] / selection["rows"]
        change = metrics[f"target_loss/{part}"] - metrics[f"target_loss_base/{part}"]
        found.append(Change(unit, part, domain, selected, pool, change))
    return found


def measure(budget: int, seeds: Sequence[int], overrides: Sequence[str]) -> list[Change]:
    """Run the cells of one budget, or read those that are done."""
    changes = []
    for seed in seeds:
        for task in TASKS:
            for arm in ARMS:
                cell = [f"task={task}", f"selector={arm}", f"budget={budget}", f"seed={seed}"]
                ((config, variant),) = expand([*SETTING, *cell, *overrides])
                record = run_cell(config, variant)
                if record["status"] != "done":
                    raise SystemExit(f"{', '.join(cell)}: {record['error']['message']}")
                changes += changes_of(record)
            print(f"budget {budget}, draw {seed}, {task}: done", flush=True)
    return changes


def best_missing_share(fits: dict[str, Fit], pool: dict[str, float]) -> float:
    """Compute the missing part's share that minimises the mean loss of both parts.

    Args:
        fits: The curve of each part.
        pool: Its share of the pool.

    Returns:
        The best of 1,001 shares in [0, 1]; the covered part gets the rest.
    """
    shares = np.linspace(0, 1, 1001)
    given = {"missing": shares, "covered": 1 - shares}
    losses = [
        -fits[part].slope * np.log1p(fits[part].weight * (given[part] / pool[part] - 1))
        for part in PARTS
    ]
    return float(shares[int(np.argmin(sum(losses)))])


def estimate(budget: int, changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Fit one weight for both parts, and one for each part.

    Returns:
        Rows of the table: one weight, covered, missing, each its own.
    """
    pool = {
        part: float(np.mean([one.pool for one in changes if one.part == part])) for part in PARTS
    }
    of = {part: [one for one in changes if one.part == part] for part in PARTS}
    whole, fits = fit_weight(changes), {part: fit_weight(of[part]) for part in PARTS}
    row = {"budget": budget, "best_missing_share": None, "fit": None, "low": None, "high": None}
    rows = []
    for name, chosen, fit in (
        ("one weight", changes, whole),
        *((f"{part} alone", of[part], fits[part]) for part in PARTS),
    ):
        low, high = interval(chosen)
        rows.append(row | {"parts": name, "fit": asdict(fit), "low": low, "high": high})
    rows[0]["best_missing_share"] = best_missing_share(dict.fromkeys(PARTS, whole), pool)
    own = row | {"parts": "each its own", "best_missing_share": best_missing_share(fits, pool)}
    return [*rows, own]


def tabulate(rows: Sequence[dict[str, Any]], command: str) -> str:
    """Format the estimates as Markdown."""
    lines = [
        "# Weight of a warm-up",
        "",
        "Estimated from the change of held-out losses after warm-ups on random rows of known "
        "shares. Slope: nats. Explained: share of the variance within a domain. Last column: "
        "the share of the missing domain at which the mean loss of both halves is least by these "
        "curves.",
        "",
        "| budget | parts | weight | 95 % interval | slope | explained | best missing share |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = [f"{row['budget']:,}", row["parts"], "", "", "", ""]
        if fit := row["fit"]:
            cells[2:] = [
                f"{fit['weight']:.3f}",
                f"{row['low']:.3f} to {row['high']:.3f}",
                f"{fit['slope']:.4f}",
                f"{fit['explained']:.2f}",
            ]
        best = row["best_missing_share"]
        cells.append("" if best is None else f"{best:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Command: `{command}`", ""])


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, fit, and write the table and the numbers behind it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--budgets", type=whole_numbers, default="300", help="rows, with commas between"
    )
    parser.add_argument("--seeds", type=whole_numbers, default="1,2", help="draws, likewise")
    parser.add_argument("--name", default="warm_up_weight", help="name of the result files")
    parser.add_argument("--out", type=Path, default=Path("artifacts/warm_up_weight"))
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of every cell")
    options = parser.parse_args(arguments)
    rows, points = [], []
    for budget in options.budgets:
        changes = measure(budget, options.seeds, options.overrides)
        rows += estimate(budget, changes)
        points += [{"budget": budget, **asdict(one)} for one in changes]
    said = [word for word in options.overrides if not word.startswith("store=")]
    command = (
        f"python experiments/warm_up_weight.py --budgets {','.join(map(str, options.budgets))}"
    )
    page = tabulate(rows, " ".join([command, *said]))
    folder = options.out / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{options.name}.md").write_text(page, encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, *points])
    (folder / f"{options.name}.jsonl").write_text(lines, encoding="utf-8")
    print(page)
    return rows


if __name__ == "__main__":
    main()
