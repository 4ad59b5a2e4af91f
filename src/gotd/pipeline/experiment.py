"""The two-stage protocol on one screen.

    candidates, target -> pools -> embeddings -> scores -> selection
    base model -> pre-fine-tuned on the selection -> fine-tuned on the labels
    predictions of every example -> record

Every line of `plan_cell` is a step. A cell is one task x selector x model x budget x seed;
its record is the last step, so a finished cell returns at once and an interrupted one
continues where it stopped.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gotd.config.build import build, typed
from gotd.config.schemas import PROTOCOLS
from gotd.data.base import Source
from gotd.pipeline.arm import plan_selection
from gotd.pipeline.permille import in_rows
from gotd.pipeline.published import as_published, starts_from_mnli
from gotd.pipeline.record import (
    failed_record,
    has_cost,
    read_record,
    record_step,
    recorded_config,
    write_cost,
)
from gotd.selectors.base import FULL_POOL, FULL_TARGET
from gotd.storage.artifacts import Step, Store, write_json
from gotd.storage.checks import check_at_least, check_choice
from gotd.storage.environment import use_threads
from gotd.storage.errors import StoreError, explained
from gotd.storage.files import check_name
from gotd.storage.hub_models import use_hub_folder
from gotd.storage.printing import printable
from gotd.storage.seeds import derive_seeds
from gotd.training.causal_models import CausalSpec
from gotd.training.tracking import tracking

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    """One cell of an experiment.

    Args:
        axes: Task, arm, model, budget, seed and the other axes of tables.
        record: Step whose artifact is the record.
        rows: Step of the task's rows.
        store: The store of artifacts.
        tracker: Receives the loss curve and the record.
        pre_fine_tune: Settings of pre-fine-tuning; ``None`` for the arm without it.
    """

    axes: Mapping[str, Any]
    record: Step
    rows: Step
    store: Store
    tracker: Any
    pre_fine_tune: Any = None

    @property
    def is_done(self) -> bool:
        """Return whether the record exists."""
        return self.store.is_done(self.record)

    @property
    def is_complete(self) -> bool:
        """Return whether the record exists, with its cost."""
        return self.is_done and has_cost(self.store, self.record)

    @property
    def failure_path(self) -> Path:
        """Return the path of the record of a failed run."""
        return self.store.root / "failed" / f"{self.record.name}-{self.record.key[:12]}.json"

    def outcome(self) -> dict[str, Any] | None:
        """Read the record, done or failed; ``None`` for a cell that has not run."""
        if self.is_done:
            return read_record(self.store, self.record)
        if self.failure_path.exists():
            return json.loads(self.failure_path.read_text(encoding="utf-8"))
        return None


def plan_cell(config: DictConfig, variant: str = "") -> Cell:
    """Plan the protocol for one cell; nothing runs, but everything is validated.

    Args:
        config: A composed configuration.
        variant: Overrides that are no axis of their own, to tell cells apart.

    Raises:
        ValueError: If a value is refused; the message names the field.
    """
    # Not above: a command line that does not compose is refused before training code loads.
    from gotd.pipeline.steps import instructions, measures, models
    from gotd.pipeline.steps.rows import task_rows

    config = as_published(config)
    _check(config)
    source, task, selector = build(config.source), build(config.task), build(config.selector.method)
    use_hub_folder(hub_folder(config, source))
    spec, pretraining = build(config.model.spec), build(config.model.pretraining)
    warm_up, tuning = build(config.pre_fine_tune), build(config.fine_tune)
    evaluation, limits = build(config.evaluation), typed(config.limits)
    seeds, model_config = derive_seeds(config.seed), typed(config.model)

    _check_candidates(source, config.candidates)
    amount, config = config.budget, in_rows(config, source)
    rows = task_rows(source, task, limits, config.protocol_name, seeds["data"])
    if selector is not None and starts_from_mnli(config, task.name):
        start, revision = config.model.mnli_start, config.model.mnli_start_revision
        spec = replace(spec, pretrained=start, revision=revision)
    model = base = models.base_model(source, model_config, spec, pretraining, model_config.seed)
    selection = None
    if selector is not None:
        selection, selected = plan_selection(
            config, source, task, selector, rows, base, evaluation, warm_up, tuning
        )
        pairs, examples = None, rows if selector.reads_target else None
        if warm_up.reads_pairs:
            pairs = instructions.pairs(source, task, examples)
        model = models.pre_fine_tuned(base, selected, warm_up, config.selector.arm, seeds, pairs)
    measured = measures.measured(evaluation, model, rows, task, tuning, source, seeds)
    losses = _target_losses(build(config.target_loss), model, base, rows, task, spec)
    takes_all = selector is not None and selector.requires & {FULL_TARGET, FULL_POOL}
    axes = {
        "task": task.name,
        "arm": config.selector.arm,
        "model": config.model.name,
        "budget": None if selector is None or takes_all else amount,
        "seed": config.seed,
        "tuning": warm_up.tuning,
        "source": source.name,
        "protocol": config.protocol_name,
        "variant": variant or None,
    }
    if config.budget_unit != "rows" and axes["budget"] is not None:
        axes["budget_unit"] = config.budget_unit
    record = record_step(
        config, axes, task, source, rows, evaluation, measured, losses, selection, model
    )
    tracker, used = build(config.tracker), None if selector is None else warm_up
    return Cell(axes, record, rows, _open_store(config.store), tracker, used)


def hub_folder(config: DictConfig, source: Source) -> Path:
    """Return the folder of what is fetched from the Hub: the source's own, or the store's."""
    return Path(source.path if source.name == "hub" else f"{config.store}/hub")


def _target_losses(
    settings: Any, model: Step, base: Step, rows: Step, task: Any, spec: Any
) -> dict[str, Step]:
    """Plan the losses on the target's held-out texts: of the model, and of its base."""
    from gotd.pipeline.steps.losses import target_loss

    if settings is None:
        return {}
    return {
        name: target_loss(of, rows, task, isinstance(spec, CausalSpec), settings)
        for name, of in (("target_loss", model), ("target_loss_base", base))
    }


def _check(config: DictConfig) -> None:
    """Validate values that no schema of a single field can check."""
    if config.protocol_name not in PROTOCOLS:
        raise ValueError(
            f"protocol must be one of {', '.join(PROTOCOLS)}, not {config.protocol_name!r}"
        )
    names = {
        "experiment_name": config.experiment_name,
        "scale_name": config.scale_name,
        "selector.arm": config.selector.arm,
        "model.name": config.model.name,
    }
    for field, name in names.items():
        check_name(str(name), field)
    check_at_least(config, 1, "budget", "workers", "threads")
    check_choice(config, "budget_unit", ("rows", "tokens", "permille"))
    if config.budget_unit != "tokens" and config.rank_rows < config.budget:
        raise ValueError(
            f"rank_rows {config.rank_rows} is less than the budget {config.budget}; raise it"
        )


def _check_candidates(source: Source, candidates: Any) -> None:
    """Raise if an option of the pool is set that the source does not have."""
    for option in ("files", "limit"):
        if candidates[option] and option not in source.candidate_options:
            usable = ", ".join(sorted(source.candidate_options)) or "none"
            raise ValueError(
                f"candidates.{option} has no effect with source={source.name}, which reads of "
                f"candidates: {usable}; leave it out"
            )


def run_cell(config: DictConfig, variant: str = "") -> dict[str, Any]:
    """Run one cell, or return at once if its record is there.

    A cell that fails is recorded with its error, so that a sweep goes on with the
    others; the next run tries it again. A store that cannot be written fails every cell
    alike, so that error is raised.

    Args:
        config: A composed configuration.
        variant: Overrides that are no axis of their own.

    Returns:
        The record, done or failed.

    Raises:
        StoreError: If the disk is full, or the store cannot be written.
    """
    cell = plan_cell(config, variant)
    began = time.perf_counter()
    try:
        if not cell.is_complete:
            use_threads(config.threads)
            run = cell.record.key, config.experiment_name, cell.axes, recorded_config(config)
            with explained(cell.store.root), tracking(cell.tracker, *run) as tracked:
                elapsed_s = None  # of a run that was killed after its record
                if not cell.is_done:
                    if any(not cell.store.is_done(base) for base in _bases(cell)):
                        # Labels that cannot be read must not cost a base model.
                        cell.store.get(cell.rows)
                    cell.store.get(cell.record)
                    elapsed_s = time.perf_counter() - began
                cell.failure_path.unlink(missing_ok=True)
                # Another process may have built it meanwhile; its cost is the true one.
                if write_cost(cell.store, cell.record, elapsed_s):
                    tracked.finish(read_record(cell.store, cell.record))
        return read_record(cell.store, cell.record)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - one cell must not take the sweep with it
        log.error("%s failed: %s", cell.record.name, printable(str(error)))
        log.debug("", exc_info=error)
        elapsed_s = time.perf_counter() - began
        record = failed_record(config, cell.axes, cell.record, error, elapsed_s)
        with explained(cell.store.root):
            write_json(cell.failure_path, record)
        return record


def _bases(cell: Cell) -> list[Step]:
    return [step for step in cell.record.ancestors() if step.kind == "base_model"]


@cache
def _open_store(root: str) -> Store:
    """Open a store once per process, so that a finished artifact is verified once."""
    return Store(root)
