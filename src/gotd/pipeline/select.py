"""From raw rows to a selection, out of core.

    target, candidates -> pools -> embeddings -> scores -> rows

Every arrow but the last is an artifact in the store, named by what decided its bytes: the
same request with another budget finds all of them done. `gotd select` and `gotd.GotD`
both come through here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd.data.columns import Columns
from gotd.data.inputs import Part
from gotd.data.pool import Unit, pool_facts
from gotd.data.rows import Rows
from gotd.embedding.encoders import Encoder
from gotd.engine.local import Engine, LocalEngine
from gotd.engine.progress import Silent, Tick, Watch, Watched
from gotd.pipeline.steps.pool import (
    POTENTIAL,
    RANKING,
    embeddings_step,
    open_scores,
    pool_step,
    pools,
    ranking_step,
    read_facts,
    scores_step,
)
from gotd.selection_report.explain import Explainer
from gotd.selection_report.measures import Measures, coverage
from gotd.selection_report.rows import blocks, embeddings_of, locate
from gotd.selectors.topk import Best, smallest_rows
from gotd.storage.artifacts import Step, Store
from gotd.transport import Geometry, NotConverged, Whitening

SIDES = ("target", "candidates")


@dataclass(frozen=True)
class Request:
    """What to select, for what, and how.

    Args:
        target: Parts that make up the target.
        candidates: Parts that make up the pool.
        method: The selector.
        method_name: What it is called.
        encoder: How texts become vectors.
        target_columns: Which columns of the target are read.
        columns: Which columns of the candidates are read.
        unit: ``whole``: a candidate is a row as it was given; ``fixed``: rows are cut
            and joined to pieces of ``length_chars``. A target row is always whole.
        length_chars: Length of a ``fixed`` piece, and what the encoder reads of any row.
        seed: Seed of the selection.
    """

    target: Sequence[Part]
    candidates: Sequence[Part]
    method: Any
    method_name: str
    encoder: Encoder = field(default_factory=Encoder)
    target_columns: Columns = field(default_factory=Columns)
    columns: Columns = field(default_factory=Columns)
    unit: Unit = "whole"
    length_chars: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.unit not in ("whole", "fixed"):
            raise ValueError(f"unit must be whole or fixed, not {self.unit!r}")
        if self.length_chars < 1:
            raise ValueError(f"length_chars must be at least 1, not {self.length_chars}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")

    @property
    def embeds(self) -> bool:
        """Whether the method needs vectors."""
        return "embeddings" in self.method.requires


@dataclass(frozen=True)
class StepTime:
    """What a step took: in this run, and when it was built."""

    step: str
    found: bool
    elapsed_s: float
    built_s: float
    peak_memory_gib: float


class Prepared:
    """A request whose candidates are all scored: any budget is now quick.

    Args:
        request: What to select.
        limit: The largest budget; only methods that make lists look at it.
        store: Where artifacts stand.
        engine: Maps over shards.
        watch: Shown how far it is.

    Raises:
        ValueError: If rows cannot be read, the budget exceeds the pool, or a solve misses
            its tolerance.
        ArtifactError: If the disk is full or an artifact is damaged.
    """

    def __init__(
        self,
        request: Request,
        limit: int,
        store: Store,
        engine: Engine,
        watch: Watch | None = None,
    ) -> None:
        self.request, self.limit, self.store, self.engine = request, limit, store, engine
        self.watch: Watch = watch or Silent()
        self.times: list[StepTime] = []
        self.steps: dict[str, Step] = {}
        if request.embeds:
            request.encoder.dimension()  # an encoder that is not there is known at once
        self._run("target", "reading the target", self._pool_of("target"))
        self._run("candidates", "reading candidates", self._pool_of("candidates"))
        self._check_limit()
        if request.embeds:
            for side in SIDES:
                rows = sum(pool_facts(self.folder(side))["rows"])
                self._run(f"{side}_embeddings", f"embedding {side}", self._space_of(side), rows)
        try:
            self._run("scores", f"scoring by {request.method_name}", self._scoring())
        except NotConverged as error:
            raise ValueError(str(error)) from error

    def folder(self, name: str) -> Path:
        """Give the folder of a step: a side, its embeddings, or ``scores``."""
        return self.store.folder(self.steps[name])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What was counted when the candidates were read (`gotd.data.pool.pool_facts`)."""
        return pool_facts(self.folder("candidates"))

    @cached_property
    def sides(self) -> tuple[Rows, list[Rows]]:
        """The target, and the candidates' shards."""
        return pools({name: self.folder(name) for name in self.steps if name != "scores"})

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """What the method reported: ``diagnostics`` and ``with_replacement``."""
        return read_facts(self.folder("scores"))

    @cached_property
    def best(self) -> Best:
        """The first ``limit`` rows, best first; each budget is a prefix of them."""
        folder, (_, candidates) = self.folder("scores"), self.sides
        if not (folder / RANKING).exists():
            scores = open_scores(folder, len(candidates))
            ids = [shard.ids for shard in candidates]
            return smallest_rows(scores, ids, self.limit, self.engine)
        ranked = pq.read_table(folder / RANKING).slice(0, self.limit)
        ids, scores = ranked["id"].combine_chunks(), ranked["score"].to_numpy()
        return locate(ids, scores, candidates, self.engine)

    def select(self, budget: int, *, explain: bool = False) -> Chosen:
        """Take the first ``budget`` rows.

        Args:
            budget: Rows to take, ``limit`` at most.
            explain: Say of each row which target it serves.

        Raises:
            ValueError: If the budget is not in ``[1, limit]``.
        """
        if not 1 <= budget <= self.limit:
            raise ValueError(f"the budget must be in [1, {self.limit:,}], not {budget:,}")
        return Chosen(self, budget, self._explainer() if explain else None)

    # The steps -----------------------------------------------------------------------

    def _run(
        self, name: str, label: str, make: Callable[[Tick], Step], total: int | None = None
    ) -> None:
        """Build a step if it is not there, and note what it took."""
        began = time.perf_counter()
        with self.watch.step(label, total) as tick:
            step = make(tick)
            found = self.store.is_done(step)
            self.store.get(step)
        self.steps[name] = step
        cost = self.store.manifest(step)["cost"]
        elapsed_s = time.perf_counter() - began
        self.times.append(
            StepTime(name, found, elapsed_s, cost["elapsed_s"], cost["peak_memory_gib"])
        )

    def _pool_of(self, side: str) -> Callable[[Tick], Step]:
        request = self.request
        parts, columns = request.target, request.target_columns
        unit: Unit = "whole"
        if side == "candidates":
            parts, columns, unit = request.candidates, request.columns, request.unit
        return lambda tick: pool_step(side, parts, columns, unit, request.length_chars, tick)

    def _space_of(self, side: str) -> Callable[[Tick], Step]:
        # A target is small: a cluster would take longer to be asked than to answer.
        engine = self.engine if side == "candidates" else LocalEngine()
        request = self.request
        return partial(
            embeddings_step, self.steps[side], request.encoder, request.length_chars, engine
        )

    def _scoring(self) -> Callable[[Tick], Step]:
        request, read = self.request, dict(self.steps)

        def make(tick: Tick) -> Step:
            engine = Watched(self.engine, tick)
            if callable(getattr(request.method, "scores", None)):
                return scores_step(request.method, request.method_name, read, request.seed, engine)
            return ranking_step(
                request.method, request.method_name, read, self.limit, request.seed, engine
            )

        return make

    def _check_limit(self) -> None:
        rows = sum(self.facts["rows"])
        if self.limit < 1:
            raise ValueError(f"the budget must be at least 1, not {self.limit}")
        if self.limit > rows:
            raise ValueError(
                f"the budget {self.limit:,} is larger than the pool of {rows:,} candidates; "
                "lower the budget or add candidates"
            )

    def _explainer(self) -> Explainer:
        method, (target, candidates) = self.request.method, self.sides
        if target.embeddings is None:
            texts = pc.utf8_slice_codeunits(target.texts, 0, self.request.length_chars)
            rows = self._embedder.embed(texts.to_pylist())
            target = Rows(target.ids, target.texts, target.domains, rows)
        whitening = None
        if getattr(method, "whiten", False):
            whitening = Whitening.fit([np.asarray(shard.embeddings) for shard in candidates])
        geometry = Geometry(getattr(method, "cost", "squared_euclidean"), whitening)
        potential = self.folder("scores") / POTENTIAL
        if not potential.exists():
            return Explainer(target, geometry)
        epsilon = self.outcome["diagnostics"]["epsilon_absolute"]
        return Explainer(target, geometry, np.load(potential), epsilon)

    @cached_property
    def _embedder(self) -> Any:
        return self.request.encoder.make()

    def vectors(self, start: int, block: pa.Table) -> np.ndarray:
        """Give the embeddings of a block of chosen rows that begins at rank ``start``."""
        _, candidates = self.sides
        if candidates[0].embeddings is not None:
            return embeddings_of(self.best, candidates, np.arange(start, start + len(block)))
        texts = pc.utf8_slice_codeunits(block["text"], 0, self.request.length_chars)
        return self._embedder.embed(texts.to_pylist())


class Chosen:
    """The rows of one budget, read block by block, and what can be said of them.

    Args:
        prepared: The scored request.
        budget: Rows to take.
        explainer: Attributes rows to targets.
    """

    def __init__(self, prepared: Prepared, budget: int, explainer: Explainer | None) -> None:
        self.prepared, self.budget, self.explainer = prepared, budget, explainer
        self._measures = Measures()

    def blocks(self) -> Iterator[pa.Table]:
        """Yield tables of the rows, best first; counts them for `summary` as they pass.

        Columns are ``id``, ``text``, ``score`` (lower was selected first), ``rank`` (from
        1) and ``domain``; with an explainer also ``target_id`` and ``target_share``.
        """
        self._measures = Measures()
        _, candidates = self.prepared.sides
        start = 0
        for block in blocks(self.prepared.best, candidates, self.budget):
            self._measures.add(block)
            if self.explainer is not None:
                ids, share = self.explainer(self.prepared.vectors(start, block))
                block = block.append_column("target_id", ids)
                block = block.append_column("target_share", pa.array(share))
            start += len(block)
            yield block

    def summary(self) -> dict[str, Any]:
        """Describe the rows that `blocks` gave, beside what chance would have chosen."""
        target, candidates = self.prepared.sides
        found = self._measures.summary(self.prepared.facts)
        found["coverage"] = None
        if target.embeddings is not None:
            found["coverage"] = coverage(self.prepared.best, self.budget, candidates, target)
        found["targets"] = None if self.explainer is None else self.explainer.summary()
        return found
