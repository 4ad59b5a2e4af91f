"""Explain in which spaces GOT-D selects the missing domain: how much dearer other text is.

GOT-D follows the transport cost, so it asks how far a text of the target is from rows of its own
domain, and how far from the others. For each half of the target this program measures both, in
mean costs. A half whose own rows save more cost gets more of the selection, whatever its share.
It also shows how well a space knows the missing domain at all: the share of a missing target
text's ten nearest candidates that are of its domain.

It reads a random part of the pool of the gap experiment, on a development draw that no table
uses. The budget is the same share of the pool as there.

    DATA=… python experiments/spaces.py
    DATA=… python experiments/spaces.py --rows 1000 --draws 1,2
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd.config.build import build
from gotd.data.pool import as_one, open_pool
from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.pipeline.experiment import plan_cell
from gotd.runs.expand import expand
from gotd.selectors.got_d import GotD
from gotd.storage.artifacts import Step
from gotd.storage.environment import code, hardware
from gotd.transport.cost import Whitening

SETTING = ["experiment=gap", "scale=folder", "tracker=none", "budget=300", "selector=got_d"]
TASKS = ("gap_biomedical", "gap_cs_papers", "gap_math")
SPACES = ("tfidf_svd", "minilm_tokens", "minilm")
HALVES = ("covered", "missing")
NEIGHBOURS, BUDGET = 10, 300
EPSILONS = (0.05, 0.01)


def step_of(step: Step, kind: str) -> Step:
    """Return the step of a kind among the inputs of a step, or theirs."""
    waiting = [step]
    while waiting:
        one = waiting.pop()
        if one.kind == kind:
            return one
        waiting += one.inputs.values()
    raise LookupError(f"{step.name} has no step {kind}")


@dataclass(frozen=True)
class Draw:
    """A random part of a pool, and the target.

    Args:
        pool: The part, without embeddings.
        target: All texts of the target.
        names: Domain of each half.
        budget: Rows to select: the same share of the part as 300 are of the pool.
    """

    pool: Rows
    target: Rows
    names: dict[str, str]
    budget: int


def load_draw(task: str, draw: int, rows: int, overrides: Sequence[str]) -> Draw:
    """Load a random part of a pool of the gap experiment, which is built if it is not there."""
    ((config, variant),) = expand([*SETTING, f"task={task}", f"seed={draw}", *overrides])
    cell = plan_cell(config, variant)
    pool, target = (
        as_one(open_pool(cell.store.get(step_of(cell.record, kind)))) for kind in ("pool", "target")
    )
    taken = pa.array(np.sort(np.random.default_rng(draw).permutation(len(pool))[:rows]))
    columns = (column.take(taken) for column in (pool.ids, pool.texts, domains_of(pool)))
    names = {half: str(config.task[half]) for half in HALVES}
    return Draw(Rows(*columns), target, names, max(5, round(BUDGET * len(taken) / len(pool))))


def domains_of(rows: Rows) -> pa.Array:
    """Return the domain of each row.

    Raises:
        ValueError: If rows have none.
    """
    if rows.domains is None:
        raise ValueError("the rows of the gap experiment have no domain")
    return rows.domains


def embed(space: str, pool: Rows, target: Rows, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embed both sides; float32 ``[candidates, width]`` and ``[targets, width]``."""
    ((config, _),) = expand([*SETTING, f"task={TASKS[0]}", "seed=1", f"embedder={space}"])
    encoder = build(config.embedder)
    if hasattr(encoder, "fit"):
        folder.mkdir(parents=True)
        encoder.fit([[pool], [target]], folder)
        embedder = encoder.load(folder)
    else:
        embedder = encoder.load()
    sides = (np.asarray(embedder.embed(rows.texts.to_pylist())) for rows in (pool, target))
    ours, theirs = map(_float32, sides)
    return ours, theirs


def _float32(matrix: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(matrix, dtype=np.float32)


def costs(pool: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return squared distances in units of their mean, float64 ``[targets, candidates]``."""
    pool, target = pool.astype(np.float64), target.astype(np.float64)
    cross = (target**2).sum(1)[:, None] + (pool**2).sum(1) - 2 * target @ pool.T
    return cross / cross.mean()


def describe(pool: np.ndarray, target: np.ndarray, draw: Draw) -> dict[str, float]:
    """Measure a space: what own rows save for each half, and the missing half's neighbours.

    Args:
        pool: ``[candidates, width]``.
        target: ``[targets, width]``.
        draw: Its rows, in the same order.
    """
    domains, halves = (np.array(domains_of(side).to_pylist()) for side in (draw.pool, draw.target))
    cost, found = costs(pool, target), {}
    for half in HALVES:
        own = domains == draw.names[half]
        of_half = cost[halves == draw.names[half]]
        found[f"saved_{half}"] = float(of_half[:, ~own].mean() - of_half[:, own].mean())
    missing = cost[halves == draw.names["missing"]]
    nearest = np.argpartition(missing, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    found["neighbours"] = float((domains[nearest] == draw.names["missing"]).mean())
    return found


def selected_share(pool: np.ndarray, target: np.ndarray, draw: Draw, epsilon: float) -> float:
    """Return the share of the missing domain in GOT-D's selection."""
    ours, theirs = (
        Rows(rows.ids, rows.texts, rows.domains, matrix)
        for rows, matrix in ((draw.pool, pool), (draw.target, target))
    )
    selector = GotD(epsilon=epsilon, max_passes=100)
    ranking = selector.rank(theirs, [ours], draw.budget, 0, LocalEngine())
    missing = draw.pool.ids.filter(pc.equal(domains_of(draw.pool), draw.names["missing"]))
    return float(np.mean(pc.is_in(ranking.ids, missing).to_numpy(zero_copy_only=False)))


def measure(task: str, draw: Draw, folder: Path) -> list[dict[str, Any]]:
    """Measure every space, plain and whitened, on one draw of one missing domain."""
    found = []
    for space in SPACES:
        pool, target = embed(space, draw.pool, draw.target, folder / f"{task}-{space}")
        matrix = Whitening.fit([pool]).matrix
        whitened = _float32(pool @ matrix), _float32(target @ matrix)
        for name, sides in ((space, (pool, target)), (f"{space}, whitened", whitened)):
            row = {"space": name, "task": task, "rows": len(draw.pool), "budget": draw.budget}
            row |= describe(*sides, draw)
            for epsilon in EPSILONS:
                row[f"selected_{epsilon:g}"] = selected_share(*sides, draw, epsilon)
            found.append(row)
            print(row, flush=True)
    return found


def tabulate(rows: Sequence[dict[str, Any]]) -> str:
    """Format the means over draws and domains, and those of each domain, as Markdown."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    draws = len(rows) // len(tasks) // (2 * len(SPACES))
    columns = ["saved_covered", "saved_missing", "neighbours"]
    columns += [f"selected_{epsilon:g}" for epsilon in EPSILONS]
    lines = [
        "# Why GOT-D selects the missing domain in one space and not in another",
        "",
        f"Mean over {len(tasks)} missing domains and {draws} draw{'s' if draws > 1 else ''} of "
        f"{rows[0]['rows']:,} candidates. Saved: how much nearer a target text is to the rows of "
        "its own domain than to the others, in mean costs. Neighbours: share of the missing domain "
        f"among the {NEIGHBOURS} nearest candidates of a missing text. Selected: its share in "
        "GOT-D's selection, by epsilon in mean costs.",
        "",
        "| space | saved, covered half | saved, missing half | neighbours | "
        + " | ".join(f"selected, {epsilon:g}" for epsilon in EPSILONS)
        + " | "
        + " | ".join(f"saved, {task.removeprefix('gap_')}: covered / missing" for task in tasks)
        + " |",
        "| --- |" + " ---: |" * (len(columns) + len(tasks)),
    ]
    for space in dict.fromkeys(row["space"] for row in rows):
        of = [row for row in rows if row["space"] == space]
        cells = [space, *(f"{np.mean([row[name] for row in of]):.2f}" for name in columns)]
        for task in tasks:
            saved = ([r[f"saved_{half}"] for r in of if r["task"] == task] for half in HALVES)
            cells.append(" / ".join(f"{np.mean(values):.2f}" for values in saved))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, and write the table and the numbers behind it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4_000, help="candidates of a draw")
    parser.add_argument("--draws", default="1", help="draws, with commas between them")
    parser.add_argument("--out", type=Path, default=Path("artifacts/spaces"))
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of every cell")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in map(int, options.draws.split(",")):
            for task in TASKS:
                draw = load_draw(task, number, options.rows, options.overrides)
                found = measure(task, draw, Path(folder) / str(number))
                rows += [row | {"draw": number} for row in found]
    machine = hardware()
    said = f"--rows {options.rows} --draws {options.draws} --out results"
    page = tabulate(rows) + (
        f"\nCommand: `DATA=… python experiments/spaces.py {said}`, {code()['git_sha'][:7]}; "
        f"{machine['cores']} cores {machine['cpu']}.\n"
    )
    tables = options.out / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    (tables / "spaces.md").write_text(page, encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tables / "spaces.jsonl").write_text(lines, encoding="utf-8")
    print(page)
    return rows


if __name__ == "__main__":
    main()
