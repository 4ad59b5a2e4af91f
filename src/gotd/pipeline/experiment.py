"""The two-stage protocol, whole, on one screen.

    candidates -> chunks -> embeddings -> ranking -> selection      what to read
    base model -> pre-fine-tuned on the selection -> fine-tuned     how to read it
    what it does on every example -> record                         what it brought

Every line of `plan_cell` is a step; every other module hangs off one of them. A cell
is one task x arm x model x budget x seed; its record is the last step, so a finished
cell returns at once and an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gotd.config.schemas import PROTOCOLS, build, typed
from gotd.data.tasks.toxicity import ToxicityTask
from gotd.pipeline import steps
from gotd.pipeline.record import failed_record, read_record, record_step, recorded_config, seal
from gotd.selectors.target_itself import WHOLE_TARGET
from gotd.storage.artifacts import ArtifactError, Step, Store, write_json
from gotd.training.tracking import tracking

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One cell of an experiment: what it is called, and the step that is its record.

    Args:
        axes: Task, arm, model, budget, seed and what else tables are made by.
        record: Step whose artifact is the record.
        store: Where artifacts stand.
        tracker: Mirrors the record.
    """

    axes: Mapping[str, Any]
    record: Step
    store: Store
    tracker: Any

    @property
    def is_done(self) -> bool:
        """Tell whether the record is there."""
        return self.store.is_done(self.record)

    @property
    def failure_path(self) -> Path:
        """Where the record of a failed try stands."""
        return self.store.root / "failed" / f"{self.record.name}-{self.record.key[:12]}.json"

    def outcome(self) -> dict[str, Any] | None:
        """Read the record, done or failed; ``None`` for a cell that has not run."""
        if self.is_done:
            return read_record(self.store, self.record)
        if self.failure_path.exists():
            return json.loads(self.failure_path.read_text(encoding="utf-8"))
        return None


def plan_cell(config: DictConfig, variant: str = "") -> Cell:
    """Lay out the protocol for one cell; nothing runs, but all is checked.

    Args:
        config: A composed configuration.
        variant: Overrides that are no axis of their own, to tell cells apart.

    Raises:
        ValueError: If a value is refused; the message names the field.
    """
    config = _as_published(config)
    _check(config)
    source, task, method = build(config.source), build(config.task), build(config.selector.method)
    pool = typed(config.candidates)
    if source.name == "microworld" and (pool.files or pool.limit):
        raise ValueError("candidates.files and candidates.limit choose files; a world has none")
    if source.name == "hub" and pool.limit:
        raise ValueError(
            "candidates.limit is for a folder; a pool from the Hub is bounded by "
            "source.chars_per_domain"
        )
    spec, pretraining = build(config.model.spec), build(config.model.pretraining)
    warm_up, tuning = build(config.pre_fine_tune), build(config.fine_tune)
    evaluation = build(config.evaluation)
    limits, model_config = typed(config.limits), typed(config.model)
    seed, protocol = config.seed, config.protocol_name

    rows = steps.task_rows(source, task, limits, protocol, seed)
    base = steps.base_model(source, model_config, spec, pretraining, model_config.seed)
    if method is not None and _starts_from_mnli(config, task.name):
        spec = dataclasses.replace(
            spec,
            pretrained=config.model.mnli_start,
            revision=config.model.mnli_start_revision,
        )
        base = steps.base_model(source, model_config, spec, pretraining, model_config.seed)
    model, chosen = base, None
    if method is not None:
        encoder = _encoder(config, base, rows, task, tuning)
        chosen = _chosen(config, source, task, method, rows, encoder, evaluation)
        model = steps.pre_fine_tuned(base, chosen, warm_up, config.selector.arm, seed)
    measured = steps.measured(evaluation, model, rows, task, tuning, source, seed)
    axes = {
        "task": task.name,
        "arm": config.selector.arm,
        "model": config.model.name,
        "budget": None if method is None or WHOLE_TARGET in method.requires else config.budget,
        "seed": seed,
        "tuning": warm_up.tuning,
        "source": source.name,
        "protocol": config.protocol_name,
        "variant": variant or None,
    }
    record = record_step(config, axes, task, source, rows, evaluation, measured, chosen, model)
    return Cell(axes, record, _open_store(config.store), build(config.tracker))


def _chosen(
    config: DictConfig,
    source: Any,
    task: Any,
    method: Any,
    rows: Step,
    encoder: Step | None,
    evaluation: Any,
) -> Step:
    """Lay out how an arm selects: chunks, their embeddings, a ranking, its first rows."""
    whole = WHOLE_TARGET in method.requires
    budget, limit = (None, None) if whole else (config.budget, config.rank_rows)
    seed, workers, pool = config.seed, config.workers, typed(config.candidates)
    space = typed(config.embedder)
    side = _target_side(method, task)
    chunks = {
        "target": steps.target(
            rows, typed(config.target_chunks), typed(config.limits), config.protocol_name, side
        ),
        "candidates": steps.candidates(source, typed(config.candidate_chunks)),
    }
    if whole:
        chunks["candidates"] = chunks["target"]
    scores = None
    if "scores" in method.requires:
        scores = steps.pool_scores(evaluation.scorer, source, chunks["candidates"])
    spaces = {
        side: steps.embeddings(step, space, encoder, workers) for side, step in chunks.items()
    }
    read = spaces if "embeddings" in method.requires else {}
    near = None
    # Deviation D20: the paper screens for GOT-D alone; here all arms that measure are equal.
    if pool.screen is not None and method.requires == {"embeddings"}:
        near = steps.screened(chunks, spaces, pool.screen, seed, workers)
    ranked = steps.ranking(
        method, config.selector.arm, chunks, read, limit, seed, workers, near, scores
    )
    return steps.selection(ranked, chunks, spaces, budget, source.under_covered)


def _target_side(method: Any, task: Any) -> str:
    """Say which texts of a task an arm reads: those to move away from, where there are any."""
    away = getattr(method, "direction", "towards") == "away"
    return "negative" if away and isinstance(task, ToxicityTask) else "train"


def _as_published(config: DictConfig) -> DictConfig:
    """Put back what the published code does with texts and models, where asked for."""
    if config.protocol_name != "published":
        return config
    config = config.copy()
    # Deviation D2. Of a space that no layer makes (token_mean) nothing was published.
    if config.embedder.pooling == "mean_masked":
        config.embedder.pooling = "mean_all_positions"
    # Deviation D9 is GLUE's: with a split to choose on, the published code chooses (D19).
    kept = {"choose"} if config.task.get("choice_split") is not None else set()
    for group in ("pre_fine_tune", "fine_tune", "evaluation"):
        for name, value in getattr(build(config[group]), "published", {}).items():
            if name not in kept:
                config[group][name] = value
    return config


def _check(config: DictConfig) -> None:
    """Refuse values that no single field's schema can judge."""
    if config.protocol_name not in PROTOCOLS:
        raise ValueError(
            f"protocol must be one of {', '.join(PROTOCOLS)}, not {config.protocol_name!r}"
        )
    for name, value in (("budget", config.budget), ("workers", config.workers)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if config.threads is not None and config.threads < 1:
        raise ValueError(f"threads must be at least 1 or null, not {config.threads}")
    if config.rank_rows < config.budget:
        raise ValueError(
            f"rank_rows {config.rank_rows} is less than the budget {config.budget}; raise it"
        )


def run_cell(config: DictConfig, variant: str = "") -> dict[str, Any]:
    """Run one cell, or return at once if its record is there.

    A cell that fails is recorded with its error, so that a sweep goes on with the
    others; the next run tries it again.

    Args:
        config: A composed configuration.
        variant: Overrides that are no axis of their own.

    Returns:
        The record, done or failed.
    """
    cell = plan_cell(config, variant)
    began = time.perf_counter()
    try:
        if not cell.is_done:
            key, experiment = cell.record.key, config.experiment_name
            with tracking(
                cell.tracker, key, experiment, cell.axes, recorded_config(config)
            ) as tracked:
                cell.store.get(cell.record)
                cell.failure_path.unlink(missing_ok=True)
                # Another process may have built it meanwhile; its cost is the true one.
                if seal(cell.store, cell.record, time.perf_counter() - began):
                    tracked.finish(read_record(cell.store, cell.record))
        return read_record(cell.store, cell.record)
    except Exception as error:  # noqa: BLE001 - one cell must not take the sweep with it
        log.error("%s failed: %s", cell.record.name, error)
        log.debug("", exc_info=error)
        elapsed_s = time.perf_counter() - began
        record = failed_record(config, cell.axes, cell.record, error, elapsed_s)
        _keep_failure(cell.failure_path, record)
        return record


@cache
def _open_store(root: str) -> Store:
    """Open a store once per process, so that a finished artifact is verified once."""
    return Store(Path(root))


def _keep_failure(path: Path, record: dict[str, Any]) -> None:
    """Write down why a cell failed, unless the disk that failed it is full."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    except (OSError, ArtifactError) as error:
        log.error("the failure of %s could not be written down: %s", path.stem, error)


def _encoder(config: DictConfig, base: Step, rows: Step, task: Any, settings: Any) -> Step | None:
    """Give the step whose model embeds: the arm's base, or one tuned on the target."""
    if config.embedder.model == "base":
        return base
    if not config.embedder.fine_tuned_on_target:
        return None
    return steps.tuned_encoder(config.embedder.model, rows, task, settings, config.seed)


def _starts_from_mnli(config: DictConfig, task: str) -> bool:
    """Tell whether the published code would swap the base model for one tuned on MNLI."""
    # Deviation D3: `if data_size == 50000 and task in (rte, mrpc)`; the vanilla arm keeps BERT.
    return (
        config.protocol_name == "published"
        and config.model.mnli_start is not None
        and task in ("rte", "mrpc")
        and config.budget == 50_000
    )
