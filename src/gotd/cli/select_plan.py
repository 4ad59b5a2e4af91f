"""Print what a selection will cost."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from gotd.data.head_rows import Size
from gotd.engine.local import Engine
from gotd.pipeline.amounts import Amount
from gotd.pipeline.request import Request
from gotd.planning.selection import SelectionPlan, Trials, steps_found
from gotd.storage.artifacts import Store
from gotd.storage.files import resolved
from gotd.storage.printing import printable

MIB = 2**20


def print_selection_plan(
    request: Request,
    amounts: Sequence[Amount],
    suffix: str | None,
    engine: Engine,
    store: Path,
    weights: bool,
) -> None:
    """Run trials and print what the selection will take; nothing is kept.

    Args:
        request: What to select.
        amounts: How much.
        suffix: Format of the output; ``None``: a folder.
        engine: Maps over shards.
        store: Folder of the artifacts.
        weights: Whether every row gets a weight.

    Raises:
        ValueError: If the rows cannot be selected from, or a side is a stream.
    """
    trials = Trials(request, amounts, suffix, engine, weights)
    found = steps_found(request, Store(store), engine)
    for line in plan_lines(trials.plan(found), sorted(found), store):
        print(printable(line))


def plan_lines(plan: SelectionPlan, found: Sequence[str], store: Path) -> list[str]:
    """Return the lines of a plan, at most 80 characters wide but for names of folders."""
    lines = [_side(side, sizes) for side, sizes in plan.sizes.items()]
    lines += ["", f"{'step':<28}{'seconds':>10}"]
    if plan.start_s:
        lines.append(f"{'loading libraries':<28}{plan.start_s:>10.1f}")
    for name, seconds in plan.seconds.items():
        shown = "writing" if name == "select" else name.replace("_", " ")
        lines.append(f"{shown:<28}{seconds:>10.1f}")
    if found:
        names = ", ".join(name.replace("_", " ") for name in found)
        lines.append(f"in the store already: {names}")
    existing = next(folder for folder in (store, *resolved(store).parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 2**30
    return [
        *lines,
        "",
        f"in all about {_duration(plan.total_s)} of processor time, "
        f"{_duration(plan.load * plan.total_s)} at the present load",
        f"at most {plan.memory_gib:.1f} GiB of memory, {_bytes(plan.store_bytes)} in {store}",
        f"and {_bytes(plan.output_bytes)} of rows; {free:,.0f} GiB are free",
        f"by trials on up to {plan.trial_rows:,} candidates, which took {plan.trial_s:.0f} s; "
        "nothing is kept",
    ]


def _side(side: str, sizes: Sequence[Size]) -> str:
    rows, held = sum(size.rows for size in sizes), sum(size.data_bytes for size in sizes)
    about = "" if all(size.exact for size in sizes) else "about "
    files = "1 file" if len(sizes) == 1 else f"{len(sizes):,} files"
    return f"{side:<12}{files}, {about}{rows:,} rows, {_bytes(held)}"


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count > 2**30 else f"{max(0.1, count / MIB):.1f} MiB"


def _duration(seconds: float) -> str:
    if seconds > 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
