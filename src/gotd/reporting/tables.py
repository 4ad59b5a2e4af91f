"""The tables of a block, built from records and from nothing else.

A cell without a record is empty, a cell with fewer seeds than the block has is marked, and
an average over tasks uses only seeds for which every task is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from gotd.evaluation.metrics import metric
from gotd.evaluation.results import DOMAIN_PREFIX, ROW_NOISE
from gotd.reporting.cells import Block, average_interval, task_interval
from gotd.reporting.measures import NOTE, Measures, measures_of, prompts_table
from gotd.reporting.records import Record
from gotd.reporting.render import Table
from gotd.reporting.selections import TRAINING_NOTE, flags_note, training_amounts
from gotd.reporting.statistics import (
    Interval,
    decimals,
    format_interval,
    interquartile_mean,
    stratified_bootstrap,
)

HEADLINE = {"headline", "headline_name", "headline_higher_is_better"}
AVERAGE = "average"
NOISE = "(test rows)"
NOISE_NOTE = (
    f"{NOISE}: standard error of one score over the choice of the reported rows "
    "(bootstrap, mean over cells), and their number: one row is worth about 100 / rows points, 1.5 "
    "of 65. All arms see the same rows, so a paired difference has less of this noise. It is 0 "
    "where a small set has no errors."
)


def seeds_note(block: Block) -> str:
    """Describe what the seeds of a block change."""
    roles = {role for record in block.cells.values() for role in record["seeds"]}
    if block.seed_is_world:
        kind = "a seed is a generated world with its own base model, so intervals are over worlds"
    elif block.axes.get("source") == "mix":
        kind = (
            "a seed draws pool, target and evaluation texts, the training order and, where random, "
            "the selection; all seeds share the base model, so intervals hold for this base"
        )
    elif "generation" in roles:
        kind = (
            "a seed draws the training order, the continuations and, where random, the "
            "selection; all seeds share the prompts and the base model"
        )
    elif "evaluation" in roles:
        kind = (
            "a seed draws the training order and, where random, the selection; all seeds share "
            "the rows that are answered and the base model"
        )
    else:
        kind = (
            "a seed draws the held-out rows, the labelled subset where labels are limited, "
            "the head, the training order and, where random, the selection"
        )
    return f"{counted_seeds(len(block.seeds))}; {kind}."


def counted_seeds(count: int) -> str:
    """Return a number of seeds in words."""
    return f"{count} seed{'' if count == 1 else 's'}"


def scores_table(block: Block) -> Table:
    """Show arms by tasks with the average, the seeds and what was selected.

    An experiment of one task that is measured in several ways has a column per measure.
    """
    if measures := measures_of(block):
        return _measures_table(block, measures)
    factors = {task: block.metric_of(task).factor for task in block.tasks}
    cells = {(a, t): task_interval(block, a, t) for a in block.arms for t in block.tasks}
    digits = decimals(cells.values(), max(factors.values()))
    if block.metric.unit == "nats":  # two decimals would hide most differences
        digits = block.metric.digits
    n_seed = len(block.seeds)
    amounts = training_amounts(block)
    rows = []
    for arm in block.arms:
        asked = {task: n_seed for task, of, _ in block.cells if of == arm}
        scores = [
            format_interval(cells[arm, task], asked.get(task, 0), factors[task], digits)
            for task in block.tasks
        ]
        mean = average_interval(block, arm)
        average = format_interval(mean, n_seed, block.metric.factor, digits)
        seeds = _range([cells[arm, task].n for task in asked])
        shown = average if block.comparable else ""
        trained = [of[arm] for of in amounts.values()]
        rows.append((arm, *scores, shown, seeds, *_selection_columns(block, arm), *trained))
    if noise := _noise_row(block, factors, digits):
        rows.append((NOISE, *noise, *[""] * (4 + len(amounts))))
    notes = (
        "Mean ± half-width of the 95 % t-interval; " + seeds_note(block),
        "(n/N) marks a cell with n of N seeds; the average uses only seeds with every task done.",
        f"Scores × 100 (perplexity and loss as they are). {_metrics_note(block)}",
        *_absent_note(block),
        *([NOISE_NOTE] if noise else []),
        *([TRAINING_NOTE] if amounts else []),
        *flags_note(block),
    )
    selected = ("distinct / rows", "under-covered %", *amounts)
    columns = ("arm", *block.tasks, AVERAGE, "seeds", *selected)
    return Table("Scores", columns, tuple(rows), notes)


def _measures_table(block: Block, measures: Measures) -> Table:
    """Show arms by measures."""
    amounts, rows = training_amounts(block), []
    for arm in block.arms:
        intervals = {name: task_interval(block, arm, block.tasks[0], name) for name in measures}
        cells = [
            format_interval(i, len(block.seeds), metric(n).factor, metric(n).digits) if i.n else "–"
            for n, i in intervals.items()
        ]
        measured = next(iter(intervals.values())).n
        chosen = (_selection_columns(block, arm)[0], *(of[arm] for of in amounts.values()))
        rows.append((arm, *cells, str(measured), *chosen))
    columns = ("arm", *measures.values(), "seeds", "distinct / rows", *amounts)
    said = f"Mean ± half-width of the 95 % t-interval; {seeds_note(block)}"
    notes = (said, NOTE, *([TRAINING_NOTE] if amounts else []), *flags_note(block))
    return Table("Scores", columns, tuple(rows), notes)


def _noise_row(block: Block, factors: Mapping[str, float], digits: int) -> tuple[str, ...]:
    """Return the noise of the test rows by task; empty if no record has it."""
    cells = []
    for task in block.tasks:
        records = [record for arm in block.arms for record in block.of(arm, task)]
        errors = [e for r in records if (e := r["metrics"].get(ROW_NOISE)) is not None]
        rows = _range([r["n_eval"] for r in records])
        error = float(np.mean(errors)) * factors[task] if errors else 0.0
        cells.append(f"±{error:.{digits}f}, {rows} rows" if errors else "")
    return tuple(cells) if any(cells) else ()


def _absent_note(block: Block) -> tuple[str, ...]:
    """List the paper's tasks that are not in the table, and why; empty if all are."""
    reasons: dict[str, list[str]] = {"not run": [], "not in the data": []}
    for task, is_held in block.absent().items():
        reasons["not run" if is_held else "not in the data"].append(task)
    named = [f"{', '.join(tasks)} ({reason})" for reason, tasks in reasons.items() if tasks]
    return (f"Not in this table: {'; '.join(named)}.",) if named else ()


def _metrics_note(block: Block) -> str:
    """List the metric of each task."""
    tasks: dict[str, list[str]] = {}
    for task in block.tasks:
        tasks.setdefault(block.metric_of(task).name or "no cell done", []).append(task)
    return "; ".join(f"{metric}: {', '.join(of)}" for metric, of in tasks.items()) + "."


def _range(values: Sequence[int]) -> str:
    if not values:
        return ""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def _selection_columns(block: Block, arm: str) -> tuple[str, str]:
    """Describe what an arm selected: distinct of all rows, share from under-covered domains."""
    selections = block.selections(arm)
    if not selections:
        return ("", "")
    distinct, rows = (_range([s[n] for s in selections]) for n in ("distinct_rows", "rows"))
    shares = [v for s in selections if (v := s.get("under_covered_share")) is not None]
    share = f"{100 * float(np.mean(shares)):.1f}" if shares else ""
    return (f"{distinct}/{rows}", share)


def aggregates_table(block: Block) -> Table | None:
    """Show the average over tasks with three intervals; ``None`` where there is no average."""
    if not block.has_average:
        return None
    factor = block.metric.factor
    rows = []
    for arm in block.arms:
        scores = block.scores(arm).T
        complete = scores[~np.isnan(scores).any(axis=1)]
        mean = average_interval(block, arm)
        boot, middle = (
            stratified_bootstrap(complete, np.random.default_rng(0), statistic, block.seed_is_world)
            for statistic in (np.mean, interquartile_mean)
        )
        row = {
            "arm": arm,
            "complete seeds": f"{len(complete)}/{len(block.seeds)}",
            "mean": f"{mean.mean * factor:.2f}" if mean.n else "",
            "t-interval": _ends(mean, factor),
            "bootstrap": _ends(boot, factor),
            "IQM": f"{middle.mean * factor:.2f}" if mean.n else "",
            "IQM bootstrap": _ends(middle, factor),
        }
        rows.append(row)
    unit = "whole worlds are redrawn" if block.seed_is_world else "seeds are redrawn within tasks"
    note = (
        f"95 % intervals over complete seeds. Bootstrap: tasks are fixed, {unit}; with few "
        "seeds it is too short, so the t-interval is the one to quote. IQM: mean of the middle "
        "half of all cells."
    )
    return Table.of("Average over tasks", rows, note)


def _ends(interval: Interval, factor: float) -> str:
    if np.isnan(interval.low):
        return ""
    return f"{interval.low * factor:.2f} to {interval.high * factor:.2f}"


def metrics_table(block: Block, title: str, choose: Callable[[str], bool]) -> Table | None:
    """Show further metrics, tasks and arms as rows; ``None`` when no cell has any.

    Args:
        block: The records.
        title: Title of the table.
        choose: Which metrics to show, by name.
    """
    recorded = {name for arm in block.arms for r in block.of(arm) for name in r["metrics"]}
    names = sorted(n for n in recorded - HEADLINE if choose(n))
    if not names:
        return None
    rows = []
    for task in block.tasks:
        for arm in block.arms:
            if not block.of(arm, task):
                continue
            cells = [task, arm]
            for name in names:
                interval = task_interval(block, arm, task, name)
                # A domain score has the unit of the task's headline.
                of = block.metric_of(task) if name.startswith(DOMAIN_PREFIX) else metric(name)
                expected = len(block.seeds) if interval.n else 0
                digits = of.digits if of.unit == "nats" else 1
                cells.append(format_interval(interval, expected, of.factor, digits))
            rows.append(tuple(cells))
    headings = tuple(name.removeprefix(DOMAIN_PREFIX) for name in names)
    notes = ("Mean ± half-width of the 95 % t-interval; " + seeds_note(block),)
    return Table(title, ("task", "arm", *headings), tuple(rows), notes)


def domains_table(block: Block) -> Table | None:
    """Show the score within each domain of the target."""
    return metrics_table(block, "Scores by domain", lambda n: n.startswith(DOMAIN_PREFIX))


def other_metrics_table(block: Block) -> Table | None:
    """Show every metric that is neither the headline nor a domain score."""
    if measures_of(block):
        return prompts_table(block)
    shown = {ROW_NOISE, *(block.metric_of(task).name for task in block.tasks)}
    apart = (DOMAIN_PREFIX,)
    if not any(name.startswith("target_loss") for name in shown):
        apart += ("target_loss",)  # in tables of their own
    return metrics_table(
        block, "Other metrics", lambda n: not n.startswith(apart) and n not in shown
    )


def failed_table(block: Block) -> Table | None:
    """List failed cells with their errors; ``None`` when none failed."""
    rows = []
    for record in block.failed():
        axes, error = record["axes"], record["error"]
        message = error["message"].strip().splitlines() or [""]
        row = {
            "key": record["key"][:12],
            "where": ", ".join(f"{k} {v}" for k, v in axes.items() if v is not None),
            "error": error["type"],
            "message": message[0][:200],
        }
        rows.append(row)
    return Table.of("Failed cells", rows)


def cost_table(block: Block) -> Table | None:
    """Show what the cells of each arm cost, the failed ones included in the total."""
    steps = sorted(
        {name for r in block.cells.values() for name in (r["cost"].get("stages_s") or {})}
    )
    rows = []
    for arm in block.arms:
        costs = [record["cost"] for (_, of, _), record in block.cells.items() if of == arm]
        done = [record["cost"] for record in block.of(arm)]
        memory = [c["peak_memory_gib"] for c in done if c.get("peak_memory_gib") is not None]
        row = {
            "arm": arm,
            "done": str(len(done)),
            "failed": str(len(costs) - len(done)),
            "s per cell": _mean([c.get("elapsed_s") for c in done]),
            **{f"{n}, s": _mean([(c.get("stages_s") or {}).get(n) for c in done]) for n in steps},
            "total h": f"{sum(c.get('elapsed_s') or 0.0 for c in costs) / 3600:.3f}",
            "peak GiB": f"{max(memory):.2f}" if memory else "",
        }
        rows.append(row)
    note = "Seconds are means over done cells; total hours include failed cells."
    return Table.of("Cost", rows, note, hardware(block))


def _mean(values: Iterable[float | None]) -> str:
    present = [value for value in values if value is not None]
    return f"{float(np.mean(present)):.2f}" if present else ""


def hardware(block: Block) -> str:
    """Count the records of a block by the machine they come from."""
    machines: Counter[str] = Counter()
    for record in block.cells.values():
        machine = record["cost"].get("hardware") or {}
        forms = {"gpu": "{}", "cpu": "{}", "cores": "{} cores", "memory_gib": "{:g} GiB"}
        parts = [form.format(machine[name]) for name, form in forms.items() if machine.get(name)]
        machines[", ".join(parts) or "not recorded"] += 1
    return "Hardware: " + "; ".join(f"{name} ({n} cells)" for name, n in sorted(machines.items()))


def provenance_table(records: Sequence[Record]) -> Table:
    """Count what the records were made with: versions, code, data, hardware.

    More than one line for one thing means the set mixes versions.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        hardware = (record["cost"].get("hardware") or {}).items()
        parts = {
            "version of ": record["versions"],
            "code: ": record["cost"].get("code") or {},
            "data: ": record["data"],
            "hardware: ": {name: value for name, value in hardware if value is not None},
        }
        for kind, values in parts.items():
            counts.update((f"{kind}{name}", str(value)) for name, value in values.items())
    rows = tuple((what, value[:200], str(n)) for (what, value), n in sorted(counts.items()))
    return Table("Provenance", ("what", "value", "records"), rows)
