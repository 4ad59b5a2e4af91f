"""What a selection from user data will cost, from trials on its first rows.

Each step is timed on a few and on some thousand rows. What a step takes grows linearly with the
rows it works on, so two times give its fixed part and its rate on this machine, for this
method, encoder and kind of rows. Times are those of the processor, which other programs do not
change much. The trials run in a temporary folder that is deleted.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gotd.data.head_rows import HeadRows, Size, size_of
from gotd.data.pool import SHARD_ROWS
from gotd.pipeline.amounts import Amount, prepare
from gotd.pipeline.output import Output
from gotd.pipeline.request import Request, pool_step
from gotd.pipeline.select import SIDES
from gotd.pipeline.steps import left_out, pools
from gotd.pipeline.written import write_selection
from gotd.planning.estimates import this_machine
from gotd.storage import progress
from gotd.storage.artifacts import Store
from gotd.storage.environment import peak_memory_gib

SMALL_ROWS, MOST_ROWS = 64, 4_000
"""Candidates of the two trials."""
MOST_TARGETS, CANDIDATES_PER_TARGET = 5_000, 3
"""Of the larger trial: a solver takes long where targets are many and candidates few."""
PAIR_PASSES = 6.0
"""Operations on a number of an embedding for each pair of a target and a candidate."""
TRIAL_S = 20.0
"""The larger trial has fewer rows if their embeddings would take longer."""
SHARDS_HELD = 2
"""Shards that are in memory at once; beyond them memory does not grow."""


@dataclass(frozen=True)
class Trial:
    """What one trial took.

    Args:
        rows: Rows by side.
        seconds: Of the processor, by step.
        stored_bytes: What the store keeps, by step.
        output_bytes: Bytes of the files of rows.
        memory_gib: Largest peak of a step.
        elapsed_s: In all.
    """

    rows: Mapping[str, int]
    seconds: Mapping[str, float]
    stored_bytes: Mapping[str, float]
    output_bytes: int
    memory_gib: float
    elapsed_s: float


@dataclass(frozen=True)
class SelectionPlan:
    """What a selection will cost.

    Args:
        sizes: Files, rows and bytes of each side: lists of `Size`.
        seconds: Of the processor, by step.
        start_s: What loading the libraries takes.
        load: Seconds of the clock in the larger trial, over those of the processor.
        memory_gib: Peak of resident memory.
        store_bytes: What the store will keep in addition.
        output_bytes: Bytes of the files of rows.
        trial_rows: Candidates of the larger trial.
        trial_s: What the trials took.
    """

    sizes: Mapping[str, Sequence[Size]]
    seconds: Mapping[str, float]
    start_s: float
    load: float
    memory_gib: float
    store_bytes: float
    output_bytes: float
    trial_rows: int
    trial_s: float

    @property
    def total_s(self) -> float:
        """Return the seconds of all steps, the start included."""
        return self.start_s + sum(self.seconds.values())


class Trials:
    """Trials of a request.

    Args:
        request: What to select.
        amounts: How much.
        suffix: Format of the output; ``None``: a folder.
        engine: Maps over shards.
        weights: Whether every row gets a weight.

    Raises:
        ValueError: If a part is a stream, whose size is not known.
    """

    def __init__(
        self,
        request: Request,
        amounts: Sequence[Amount],
        suffix: str | None,
        engine: Any,
        weights: bool = False,
    ) -> None:
        self._request, self._amounts, self._suffix = request, list(amounts), suffix
        self._engine, self._weights = engine, weights
        replay = () if request.replay is None else request.replay.parts
        sides = {"target": request.target, "candidates": request.candidates, "replay": replay}
        self._parts = {side: parts for side, parts in sides.items() if parts}
        self.sizes = {side: list(map(size_of, parts)) for side, parts in self._parts.items()}

    def plan(self, found: Container[str] = ()) -> SelectionPlan:
        """Run the trials and return what all rows will take.

        Args:
            found: Steps that are in the store, which take no time.

        Raises:
            ValueError: If the rows cannot be selected from; as the selection would raise it.
        """
        began, loading_s = time.perf_counter(), time.process_time()
        full = {side: _rows(sizes) for side, sizes in self.sizes.items()}
        warm, small = self._trial(SMALL_ROWS), self._trial(SMALL_ROWS)
        per_row = small.seconds.get("candidates_embeddings", 0.0) / small.rows["candidates"]
        targets = min(MOST_TARGETS, full["target"])
        most = max(MOST_ROWS, CANDIDATES_PER_TARGET * targets)
        large = self._trial(int(min(most, TRIAL_S / max(1e-6, per_row))), targets)
        self._flops_per_s = this_machine().flops_per_s
        names = [name for name in large.seconds if name not in found]
        seconds = {n: self._grown(n, "seconds", small, large, full) for n in names}
        stored = [self._grown(n, "stored_bytes", small, large, full) for n in names]
        n, shards = full["candidates"], SHARDS_HELD * SHARD_ROWS
        few, more = small.rows["candidates"], large.rows["candidates"]
        held = _line(few, more, small.memory_gib, large.memory_gib, min(n, shards))
        return SelectionPlan(
            self.sizes,
            seconds,
            # The libraries that are loaded by now, and those that the first trial loads.
            loading_s + max(0.0, sum(warm.seconds.values()) - sum(small.seconds.values())),
            large.elapsed_s / max(1e-3, sum(large.seconds.values())),
            max(held, large.memory_gib),
            sum(stored),
            large.output_bytes * n / large.rows["candidates"],
            large.rows["candidates"],
            time.perf_counter() - began,
        )

    def _grown(
        self, name: str, what: str, small: Trial, large: Trial, full: Mapping[str, int]
    ) -> float:
        """Return seconds or bytes of a step on so many rows, by a line through two trials."""
        first, second = getattr(small, what).get(name), getattr(large, what)[name]
        driver = partial(self._driver, name)
        if name.startswith("scored") and what == "seconds" and self._request.embeds:
            # The solver reads a sample of the pool; the other rows are compared once.
            pairs = full["candidates"] * full["target"]
            pairs -= large.rows["candidates"] * large.rows["target"]
            return second + PAIR_PASSES * pairs * self._request.encoder.width() / self._flops_per_s
        if first is None:
            return second * driver(full) / driver(large.rows)
        return _line(driver(small.rows), driver(large.rows), first, second, driver(full))

    def _driver(self, step: str, rows: Mapping[str, int]) -> float:
        """Return the number that what a step takes is linear in."""
        candidates, target = rows["candidates"], rows["target"]
        if step.startswith("replay"):
            return rows["replay"]
        if step.startswith("target"):
            return target
        if step == "encoder":
            encoder: Any = self._request.encoder
            sampled = min(candidates, encoder.sample_rows)
            both = encoder.fitted_on != "pool"
            return sampled + (min(target, encoder.sample_rows) if both else 0)
        return candidates + (target if step.startswith("scored") else 0)

    def _trial(self, rows: int, targets: int = SMALL_ROWS) -> Trial:
        """Select from the first rows, in a folder that is deleted."""
        wanted = {"target": targets, "replay": min(rows, SMALL_ROWS)}
        heads = {side: self._heads(side, wanted.get(side, rows)) for side in self._parts}
        counts = {side: sum(head.rows for head in parts) for side, parts in heads.items()}
        share = counts["candidates"] / _rows(self.sizes["candidates"])
        request = replace(
            self._request,
            target=heads["target"],
            candidates=heads["candidates"],
            bounds=type(self._request.bounds)(),  # fewer rows may not meet them
            replay=self._request.replay
            and replace(self._request.replay, parts=heads["replay"], share=1e-6),
        )
        amounts = [
            one if one.unit == "share" else replace(one, value=max(1, round(one.value * share)))
            for one in self._amounts
        ]
        began, clock = time.perf_counter(), _Clock()
        with tempfile.TemporaryDirectory(prefix="gotd-plan-") as folder, _quiet():
            output = Output(Path(folder) / f"rows{self._suffix or ''}")
            store = Store(Path(folder) / "store")
            weights = Path(folder) / "weights.jsonl" if self._weights else None
            with progress.watch(clock.time_step):
                prepared, budgets = prepare(request, amounts, store, self._engine)
                with progress.step("select"):
                    write_selection(prepared, budgets, output, command="", weights=weights)
            steps = prepared.steps.items()
            labels = {name: f"{step.kind} {step.name}" for name, step in steps}
            elapsed_s = time.perf_counter() - began
            written = output.out if output.suffix else output.folder
            return Trial(
                counts,
                {name: clock.seconds.get(label, 0.0) for name, label in labels.items()}
                | {"select": clock.seconds["select"]},
                {name: _size_of(prepared.folder(name)) for name in prepared.steps} | {"select": 0},
                _size_of(written) + (_size_of(weights) if weights else 0),
                max(peak_memory_gib(), *(time.peak_memory_gib for time in prepared.times)),
                elapsed_s,
            )

    def _heads(self, side: str, rows: int) -> list[HeadRows]:
        """Return the first rows of each part, in proportion to its rows."""
        sizes = self.sizes[side]
        share = min(1.0, rows / max(1, _rows(sizes)))
        counts = [max(1, min(size.rows, round(size.rows * share))) for size in sizes]
        return [HeadRows(p, count) for p, count in zip(self._parts[side], counts, strict=True)]


class _Clock:
    """Times steps by the seconds of the processor, which other programs do not change."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time_step(self, label: str, total: int | None) -> Iterator[progress.Tick]:
        """Time a step; see `gotd.storage.progress.Watcher`."""
        began = time.process_time()
        yield lambda rows: None
        self.seconds[label] = time.process_time() - began


def steps_found(request: Request, store: Store, engine: Any) -> set[str]:
    """Return the steps of a request that a store has, of those known before anything is read."""
    steps = {side: pool_step(request, side) for side in SIDES}
    rules = request.leave_out
    if rules.parameters:
        steps["left_out"] = left_out.left_out(steps["candidates"], rules, request.candidates)
    encoder: Any = request.encoder
    if request.embeds and not request.reads_model:
        fitted, length = None, request.length_chars
        if hasattr(encoder, "fit"):
            sides = {side: steps[side] for side in SIDES}
            fitted = steps["encoder"] = pools.fitted_encoder(encoder, sides, length)
        for side in SIDES:
            one = pools.embeddings(steps[side], encoder, engine, length, fitted)
            steps[f"{side}_embeddings"] = one
    return {name for name, step in steps.items() if store.is_done(step)}


def _line(x0: float, x1: float, y0: float, y1: float, x: float) -> float:
    """Return the value at ``x`` of a line through two points that neither falls nor is negative."""
    slope = max(0.0, (y1 - y0) / (x1 - x0)) if x1 > x0 else 0.0
    fixed = max(0.0, y1 - slope * x1)
    return fixed + slope * x


def _size_of(path: Path) -> int:
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(file.stat().st_size for file in files)


@contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing of a trial."""
    logger = logging.getLogger("gotd")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _rows(sizes: Sequence[Size]) -> int:
    return sum(size.rows for size in sizes)
