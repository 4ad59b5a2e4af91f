"""Explain in which spaces GOT-D selects the missing domain: what one of its rows is worth.

GOT-D ranks rows by how much more of a row lowers the transport cost. A row serves the target texts
that are near to it, so this depends on how near to one another the texts of a domain are. For each
half of the target this program measures the distance of its texts to rows of their own domain,
and the mean value of these rows, both in mean costs. It also shows how well a space knows the
missing domain at all: the share of a missing target text's ten nearest candidates that are of its
domain.

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

from gotd.cli.parser import whole_numbers
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
    """Return squared distances, float64 ``[targets, candidates]``."""
    pool, target = pool.astype(np.float64), target.astype(np.float64)
    return (target**2).sum(1)[:, None] + (pool**2).sum(1) - 2 * target @ pool.T


def describe(pool: np.ndarray, target: np.ndarray, draw: Draw) -> dict[str, float]:
    """Measure distances: to rows of the own domain, and the missing half's neighbours.

    Args:
        pool: ``[candidates, width]``.
        target: ``[targets, width]``.
        draw: Its rows, in the same order.
    """
    domains, halves = (np.array(domains_of(side).to_pylist()) for side in (draw.pool, draw.target))
    cost, found = costs(pool, target), {}
    cost = cost / cost.mean()
    for half in HALVES:
        of_half = cost[halves == draw.names[half]]
        found[f"own_{half}"] = float(of_half[:, domains == draw.names[half]].mean())
    missing = cost[halves == draw.names["missing"]]
    nearest = np.argpartition(missing, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    found["neighbours"] = float((domains[nearest] == draw.names["missing"]).mean())
    return found


def rank(pool: np.ndarray, target: np.ndarray, draw: Draw, epsilon: float) -> dict[str, float]:
    """Rank the pool by GOT-D.

    Returns:
        The missing domain's share of the selection, and the mean value of a row of each half's
        domain: how far its score is below the mean score, in mean costs.
    """
    ours, theirs = (
        Rows(rows.ids, rows.texts, rows.domains, matrix)
        for rows, matrix in ((draw.pool, pool), (draw.target, target))
    )
    selector = GotD(epsilon=epsilon, max_passes=100)
    ranking = selector.rank(theirs, [ours], len(draw.pool), 0, LocalEngine())
    position = pc.index_in(ranking.ids, draw.pool.ids).to_numpy()
    domains = np.array(domains_of(draw.pool).to_pylist())[position]
    values = (ranking.scores.mean() - ranking.scores) / costs(pool, target).mean()
    found = {"selected": float((domains[: draw.budget] == draw.names["missing"]).mean())}
    for half in HALVES:
        found[f"value_{half}"] = float(values[domains == draw.names[half]].mean())
    return found


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
                ranked = rank(*sides, draw, epsilon)
                row |= {f"{name}_{epsilon:g}": value for name, value in ranked.items()}
            found.append(row)
            print(row, flush=True)
    return found


def tabulate(rows: Sequence[dict[str, Any]]) -> str:
    """Format the means over draws and domains, and those of each domain, as Markdown."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    drawn = sorted({row["draw"] for row in rows})
    draws = len(drawn)
    columns = {
        "own distance, covered": "own_covered",
        "own distance, missing": "own_missing",
        "neighbours, %": "neighbours",
        "value, covered": "value_covered_0.05",
        "value, missing": "value_missing_0.05",
        "selected, %": "selected_0.05",
        "selected at .01, %": "selected_0.01",
    }
    by_task = [f"selected, {task.removeprefix('gap_')}, %" for task in tasks]
    lines = [
        "# Why GOT-D selects the missing domain in one space and not in another",
        "",
        f"Mean over {len(tasks)} missing domains and {draws} draw{'s' if draws > 1 else ''} of "
        f"{rows[0]['rows']:,} candidates. Own distance: of a target text to rows of its own "
        "domain, in mean costs. Neighbours: share of the missing domain among the "
        f"{NEIGHBOURS} nearest candidates of a missing text. Value: how much the score of a row of "
        "the half's domain is better than the mean, in mean costs. Selected: share of the missing "
        "domain in GOT-D's selection, at epsilon .05 (and .01) of the mean cost.",
        "",
        "## By space",
        "",
        "| space | " + " | ".join([*columns, *by_task]) + " |",
        "| --- |" + " ---: |" * (len(columns) + len(tasks)),
    ]
    for space in dict.fromkeys(row["space"] for row in rows):
        of = [row for row in rows if row["space"] == space]
        cells = [space]
        for title, name in columns.items():
            mean = float(np.mean([row[name] for row in of]))
            cells.append(f"{100 * mean:.0f}" if title.endswith("%") else f"{mean:.2f}")
        shares = ([r["selected_0.05"] for r in of if r["task"] == task] for task in tasks)
        cells += [f"{100 * np.mean(share):.0f}" for share in shares]
        lines.append("| " + " | ".join(cells) + " |")
    machine, commit = rows[0]["hardware"], rows[0]["commit"][:7]
    said = f"--rows {rows[0]['rows']} --draws {','.join(map(str, drawn))} --out results"
    origin = f"{commit}; {machine['cores']} cores {machine['cpu']}."
    command = f"Command: `DATA=… python experiments/spaces.py {said}`, {origin}"
    return "\n".join([*lines, "", command, ""])


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, and write the table and the numbers behind it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=4_000, help="candidates of a draw")
    parser.add_argument(
        "--draws", type=whole_numbers, default="1", help="draws, with commas between them"
    )
    parser.add_argument("--out", type=Path, default=Path("artifacts/spaces"))
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of every cell")
    options = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in options.draws:
            for task in TASKS:
                draw = load_draw(task, number, options.rows, options.overrides)
                found = measure(task, draw, Path(folder) / str(number))
                made = {"draw": number, "commit": code()["git_sha"], "hardware": hardware()}
                rows += [row | made for row in found]
    page = tabulate(rows)
    tables = options.out / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    (tables / "spaces.md").write_text(page, encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tables / "spaces.jsonl").write_text(lines, encoding="utf-8")
    print(page)
    return rows


if __name__ == "__main__":
    main()
