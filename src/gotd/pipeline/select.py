"""Selection from user data, out of core.

    target, candidates -> pools -> embeddings -> scores -> rows

Every arrow but the last is an artifact in the store, found again at another budget.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gotd.data.left_out.record import REMOVED, reasons, removed
from gotd.data.pool import as_one, open_pool, pool_facts, unreadable_rows
from gotd.embedding.coverage import coverage_warning, spaced_texts
from gotd.embedding.embedders import Embedder, check_device
from gotd.embedding.encoders import FittedEncoder, TransformerEncoder
from gotd.engine.local import Engine, LocalEngine
from gotd.pipeline.ranked_pool import SIDES, RankedPool, SelectedRows
from gotd.pipeline.replay import ReplayRows
from gotd.pipeline.request import Request, pool_step
from gotd.pipeline.steps import left_out, pools, selections
from gotd.storage.artifacts import Step, Store
from gotd.storage.seeds import derive_seeds
from gotd.transport import NotConverged

log = logging.getLogger(__name__)

Announce = Callable[[Sequence[Step]], None]
"""Called with the steps that run a model, before the first of them runs."""


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
        limit: The largest budget, which only methods that make lists need; or a function of
            this object and the rows that compete, called when both are known.
        store: The store of artifacts.
        engine: Maps over shards.
        announce: Told of the steps that run a model, before they do.

    Raises:
        ValueError: If rows cannot be read, the budget exceeds the pool, or a solve fails.
        ArtifactError: If the disk is full or an artifact is damaged.
    """

    def __init__(
        self,
        request: Request,
        limit: int | Callable[[Prepared, int], int],
        store: Store,
        engine: Engine,
        announce: Announce = lambda steps: None,
    ) -> None:
        self.request, self.store, self.engine = request, store, engine
        self._limit = limit
        self.times: list[StepTime] = []
        self.steps: dict[str, Step] = {}
        self.left_out: dict[str, int] = {}
        if isinstance(engine, LocalEngine):
            check_device(getattr(request.method, "device", "auto"))
        if request.reads_model:
            self._find_model()
        elif request.embeds:
            request.encoder.width()  # an encoder that does not exist is an error at once
        for side in SIDES:
            self.run_step(side, self._pool(side))
        self._leave_out()
        self._check_limit()
        self.replay = None if request.replay is None else ReplayRows(self, request.replay)
        inputs = {side: self.steps[side] for side in SIDES}
        if request.reads_model:
            inputs |= self._read_model(announce)
        if request.embeds:
            inputs |= {f"{side}_embeddings": self._embed_pool(side) for side in SIDES}
        if self.left_out:
            inputs["kept"] = self._keep()
        self.limit = self._check_limit()
        self._scoring_inputs = inputs
        self._score("scored", request.method)

    def folder(self, name: str) -> Path:
        """Return the folder of a step: a side, its embeddings, or ``scored``."""
        return self.store.folder(self.steps[name])

    @cached_property
    def ranked(self) -> RankedPool:
        """Return the scored pool."""
        folders = {name: self.folder(name) for name in self.steps}
        request = self.request
        return RankedPool(
            folders,
            self.limit,
            self.engine,
            request.embeds,
            bounds=request.bounds,
        )

    def score_for_weights(self) -> Path:
        """Score the candidates without random numbers in the scores; return the folder.

        Raises:
            ValueError: If the method makes a list, which leaves most rows without a score.
        """
        method = self.request.method
        if not callable(getattr(method, "scores", None)):
            raise ValueError(
                f"--weights needs a method that scores every row, and {self.request.method_name} "
                "makes a list; use got_d, dsir, nearest or another one"
            )
        if (without := method.for_weights()) == method:
            return self.folder("scored")
        self._score("scored_for_weights", without)
        return self.folder("scored_for_weights")

    def _score(self, name: str, method: Any) -> None:
        request, inputs = self.request, self._scoring_inputs
        scored = selections.scored(
            method, request.method_name, inputs, self.limit, request.seed, self.engine
        )
        try:
            self.run_step(name, scored)
        except NotConverged as error:
            raise ValueError(str(error)) from error

    def removed(self) -> Iterator[pa.Table]:
        """Yield ``id``, ``reason``, ``because`` and ``text`` of the rows that were left out.

        The first table is empty, so that there is one.
        """
        yield REMOVED.empty_table()
        if self.left_out:
            yield from removed(self.folder("left_out"), open_pool(self.folder("candidates")))

    def embed_target(self) -> None:
        """Embed the target for explanations, if the method embeds nothing; `select` does so, too.

        Raises:
            ValueError: If the encoder can read no row of the target.
        """
        if "target_embeddings" not in self.steps:
            self._embed_pool("target")

    def select(self, budget: int, *, explain: bool = False) -> SelectedRows:
        """Take the first ``budget`` rows.

        Args:
            budget: Rows to take, ``limit`` at most.
            explain: Attribute each row to a target.

        Raises:
            ValueError: If the budget is not in ``[1, limit]``.
        """
        if budget > self.ranked.limit and self.request.bounds:
            raise ValueError(
                f"the budget {budget:,} is larger than the {self.ranked.limit:,} candidates that "
                f"{self.request.bounds.named} leaves; lower the budget or change it"
            )
        if not explain:
            return SelectedRows(self.ranked, budget)
        self.embed_target()
        folders = self.folder("target"), self.folder("target_embeddings")
        target = as_one(open_pool(*folders, only_readable=True))
        explainer = self.ranked.explainer(self.request.method, target)
        return SelectedRows(self.ranked, budget, explainer, self.embed)

    def _leave_out(self) -> None:
        """List the candidates that are left out; without any, no step depends on the list."""
        rules, pool = self.request.leave_out, self.steps["candidates"]
        if rules.parameters:
            step = left_out.left_out(pool, rules, self.request.candidates, self.engine)
            self.run_step("left_out", step)
            self.left_out = reasons(self.folder("left_out"))

    def _keep(self) -> Step:
        """Copy the candidates that are left; return the step."""
        inputs = {"pool": self.steps["candidates"], "left_out": self.steps["left_out"]}
        if "candidates_embeddings" in self.steps:
            inputs["embeddings"] = self.steps["candidates_embeddings"]
        self.run_step("kept", left_out.kept(inputs, self.engine))
        return self.steps["kept"]

    def _pool(self, side: str) -> Step:
        """Return the step that reads the rows of a side."""
        # What a model will take follows from the rows, once they are counted.
        count = partial(self._count, side) if self.request.reads_model else None
        return pool_step(self.request, side, count, self.engine)

    def _count(self, side: str) -> int:
        return sum(pool_facts(self.folder(side))["rows"])

    def _find_model(self) -> None:
        """Copy the model into the store; one that does not exist is an error at once."""
        from gotd.pipeline.steps.base_model_reads import named_model

        assert self.request.model is not None
        self.run_step("base", named_model(self.request.model))

    def _read_model(self, announce: Announce) -> dict[str, Step]:
        """Run the model over the pool, as the method requires it.

        Returns:
            The steps of losses, by requirement.
        """
        from gotd.pipeline.steps.base_model_reads import default_tuning, files_of

        request, base = self.request, self.steps["base"]
        tuning = default_tuning(self.folder("base"))
        seeds = derive_seeds(request.seed)
        files = files_of(request.method, base, self.steps, tuning, seeds)
        planned = list(files.values())
        if request.embeds:
            planned += [self._embedding(side) for side in SIDES]
        steps = {step.key: step for last in planned for step in last.ancestors()}
        read = {self.steps[name].key for name in ("base", *SIDES)}
        announce([step for key, step in steps.items() if key not in read])
        for name, step in files.items():
            self.run_step(name, step)
        return files

    def _embedding(self, side: str) -> Step:
        """Return the step that embeds the rows of a side."""
        # A target is small: a cluster would take longer to start than to answer.
        engine = self.engine if side == "candidates" else LocalEngine()
        request, model = self.request, self._fitted()
        if model is None and request.reads_model:
            from gotd.pipeline.steps.base_model_reads import model_of

            model = model_of(request.encoder, self.steps["base"], self.steps["candidates"])
        return pools.embeddings(
            self.steps[side], request.encoder, engine, request.length_chars, model
        )

    def _embed_pool(self, side: str) -> Step:
        """Embed the rows of a side; return the step."""
        step = self._embedding(side)
        if not self.store.is_done(step):
            self._warn_of_scripts(side)
        self.run_step(f"{side}_embeddings", step)
        return step

    def _warn_of_scripts(self, side: str) -> None:
        """Warn if the encoder does not cover the scripts of a side, by a sample of its rows."""
        encoder, length = self.request.encoder, self.request.length_chars
        if not isinstance(encoder, TransformerEncoder) or encoder.model_from_step is not None:
            return  # the user trains that model, whatever it covers
        texts = spaced_texts(open_pool(self.folder(side)), length)
        warning = coverage_warning(encoder.lost_shares(texts), side, encoder.name)
        if warning is not None:
            log.warning("%s", warning)

    def _fitted(self) -> Step | None:
        """Fit the encoder if it is one that is fitted; return the step."""
        encoder = self.request.encoder
        if not isinstance(encoder, FittedEncoder):
            return None
        if "encoder" not in self.steps:
            sides = {side: self.steps[side] for side in SIDES}
            fitted = pools.fitted_encoder(encoder, sides, self.request.length_chars)
            self.run_step("encoder", fitted)
        return self.steps["encoder"]

    def run_step(self, name: str, step: Step) -> None:
        """Build a step if it is not there, and note what it took."""
        began = time.perf_counter()
        found = self.store.is_done(step)
        self.store.get(step)
        self.steps[name] = step
        cost = self.store.manifest(step)["cost"]
        elapsed_s = time.perf_counter() - began
        self.times.append(
            StepTime(name, found, elapsed_s, cost["elapsed_s"], cost["peak_memory_gib"])
        )

    @property
    def competing(self) -> int:
        """Return the number of candidates that can be selected."""
        if "kept" in self.steps:
            return sum(pool_facts(self.folder("kept"))["rows"])
        rows = sum(pool_facts(self.folder("candidates"))["rows"]) - sum(self.left_out.values())
        if not self.left_out and "candidates_embeddings" in self.steps:
            rows -= sum(unreadable_rows(self.folder("candidates_embeddings")) or [])
        return rows

    def _check_limit(self) -> int:
        """Return the largest budget, after a check that the pool has so many rows."""
        rows = self.competing
        limit = self._limit if isinstance(self._limit, int) else self._limit(self, rows)
        which = " that the encoder can read" if "candidates_embeddings" in self.steps else ""
        if self.left_out:
            which += f", after {sum(self.left_out.values()):,} left out: {', '.join(self.left_out)}"
        if rows == 0:
            raise ValueError(f"there is no candidate{which}; see --where, --exclude and --dedup")
        if limit < 1:
            raise ValueError(f"the budget must be at least 1, not {limit}")
        if limit > rows:
            raise ValueError(
                f"the budget {limit:,} is larger than the pool of {rows:,} candidates{which}; "
                "lower the budget or add candidates"
            )
        return limit

    @cached_property
    def _embedder(self) -> Embedder:
        encoder = self.request.encoder
        model = self._embedding("target").inputs.get("model")
        return encoder.load(None if model is None else self.store.folder(model))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embed as much of each text as the encoder reads of the pool."""
        return self._embedder.embed([text[: self.request.length_chars] for text in texts])
