"""Pre-fine-tune a language model on the selected texts: the paper's first stage.

Masked and causal models share this run; each defines an `Objective`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gotd.storage.checks import check_at_least
from gotd.storage.seeds import derive_seed
from gotd.training.data import Collator, TokenRows
from gotd.training.devices import on_devices, process_rank
from gotd.training.lora import merge_adapters, prepare_tuning
from gotd.training.models import check_length, resolve_folder, save_model
from gotd.training.randomness import TrainingSeeds, isolated_randomness, seed_generators
from gotd.training.settings import TrainingSettings
from gotd.training.trainer import StepModule, forget_checkpoint, train


@dataclass(frozen=True, kw_only=True)
class LanguageModelSettings(TrainingSettings):
    """Settings that masked and causal language modelling share.

    Args:
        max_steps: Ends the stage early; the schedule ends with it.
    """

    several_devices: ClassVar[bool] = True

    max_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "max_steps")

    def count_steps(self, n_rows: int) -> int:
        """Return the optimiser steps of all passes, at most ``max_steps``."""
        steps = super().count_steps(n_rows)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def objective(self, folder: Path, seeds: TrainingSeeds) -> Objective:
        """Return the objective that these settings are for.

        Args:
            folder: Model folder of the base.
            seeds: Seeds of the run.
        """
        raise NotImplementedError


class Objective(ABC):
    """What one kind of language model adds to the shared run.

    Args:
        folder: Model folder of the base.
        settings: Settings of this objective.
        seeds: Seeds of the run.
    """

    module: ClassVar[type[StepModule]]
    """Defines the loss."""
    tokenizer: PreTrainedTokenizerBase

    def __init__(self, folder: Path, settings: Any, seeds: TrainingSeeds) -> None:
        self.folder, self.settings, self.seeds = folder, settings, seeds

    @abstractmethod
    def read(self, texts: Sequence[str]) -> TokenRows:
        """Tokenise the selection into the rows to train on."""

    @abstractmethod
    def load(self) -> PreTrainedModel:
        """Load the base; weights it lacks come from the global generator."""

    @abstractmethod
    def collator(self, rows: TokenRows) -> Collator:
        """Return what makes the batches."""

    def pooler(self) -> Mapping[str, Tensor]:
        """Return the pooler to save with the network; by default none."""
        return {}

    def schedule(self, steps: int) -> Sequence[int]:
        """Return per optimiser step the step of the epochs' order to take."""
        return range(steps)

    def trained_beside_adapters(self, network: PreTrainedModel) -> Iterable[nn.Parameter]:
        """Return weights that LoRA would freeze but that are trained in full."""
        return ()

    def report(self, rows: TokenRows) -> dict[str, Any]:
        """Return what the report contains in addition, JSON-able."""
        return {}


def pre_fine_tune(
    model: Path | str,
    texts: Sequence[str],
    settings: LanguageModelSettings,
    seeds: TrainingSeeds,
    work: Path,
    out: Path,
) -> dict[str, Any]:
    """Train a language model on ``texts`` and write the model folder ``out``.

    Called again with the same arguments after a kill, it resumes from the checkpoint in
    ``work`` and writes the same bytes.

    Args:
        model: Folder or Hub name of the base.
        texts: The selection, one row each; repeated rows count repeatedly.
        settings: Settings of masked or of causal language modelling; they set the objective.
        seeds: Seeds of order, masks and dropout, and of missing weights.
        work: Folder for the checkpoint of a long run.
        out: Folder for the model; with ``tuning="lora"`` the merged model, and the
            adapter in ``out/adapter``.

    Returns:
        JSON-able ``loss_curve`` ([[step, mean nats per predicted token]]), ``steps``,
        ``tokens``, ``seeds``, what the objective adds and, not reproducible, ``cost``.

    Raises:
        ValueError: If there are no texts, or weights other than a head are missing.
        FileNotFoundError: If ``model`` is no model folder.
        FloatingPointError: If the loss is not finite.
    """
    rank, processes = process_rank()
    if settings.devices > 1 and processes == 1:
        arguments = (model, list(texts), settings, seeds, work, out)
        return on_devices(settings.devices, work, pre_fine_tune, *arguments)
    objective = settings.objective(resolve_folder(model), seeds)
    rows = objective.read(texts)
    steps = settings.count_steps(len(rows))
    with isolated_randomness():
        network, adapted = _initialise(objective)
        module = objective.module(network, settings, seeds, rows.digest())
        report = train(module, rows, objective.schedule(steps), objective.collator(rows), work)
        if module.gathered:  # the shards that were trained are no model by themselves
            network, adapted = _initialise(objective)
            network.load_state_dict(module.gathered)
    if rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        if adapted is not None:
            merge_adapters(adapted, out)
        save_model(network, objective.tokenizer, out, objective.pooler())
        forget_checkpoint(work)
    return {**report, "steps": steps, **objective.report(rows)}


def _initialise(objective: Objective) -> tuple[PreTrainedModel, PeftModel | None]:
    """Return the network as it is before the first step, and its adapters' handle if any."""
    settings = objective.settings
    seed_generators(derive_seed(objective.seeds.initialisation, "fresh weights"))
    network = objective.load()
    check_length(network, settings.max_length_tokens)
    adapted = prepare_tuning(network, settings)
    if adapted is not None:
        for parameter in objective.trained_beside_adapters(network):
            parameter.requires_grad_(True)
    return network, adapted
