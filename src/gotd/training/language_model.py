"""Pre-fine-tune a language model on the selected texts: the paper's first stage.

Masked and causal models share this run; their settings name the module that trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gotd.storage.checks import check_at_least
from gotd.training.devices import on_devices, process_rank
from gotd.training.models import resolve_folder
from gotd.training.randomness import TrainingSeeds
from gotd.training.settings import TrainingSettings
from gotd.training.trainer import train


@dataclass(frozen=True, kw_only=True)
class LanguageModelSettings(TrainingSettings):
    """Settings that masked and causal language modelling share.

    Args:
        max_steps: Ends the stage early; the schedule ends with it.
    """

    several_devices: ClassVar[bool] = True
    reads_pairs: ClassVar[bool] = False
    """Whether a row is a pair of a prompt and its response."""
    module: ClassVar[Any]
    """The `StepModule` that these settings are for, made of (folder, texts, settings, seeds)."""

    max_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "max_steps")

    def count_steps(self, n_rows: int) -> int:
        """Return the optimiser steps of all passes, at most ``max_steps``."""
        steps = super().count_steps(n_rows)
        return steps if self.max_steps is None else min(steps, self.max_steps)


def pre_fine_tune(
    model: Path | str,
    texts: Sequence[Any],
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
        texts: The selection, one row each; repeated rows count repeatedly. For instruction
            tuning each row is a pair of a prompt and its response.
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
    _, processes = process_rank()
    if settings.devices > 1 and processes == 1:
        arguments = (model, list(texts), settings, seeds, work, out)
        return on_devices(settings.devices, work, pre_fine_tune, *arguments)
    module = settings.module(resolve_folder(model), texts, settings, seeds)
    return train(module, work, out)
