"""The loss on the parts of a target as the headline: no fine-tuning, no labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq

from gotd.evaluation.results import Results
from gotd.evaluation.target_loss import METRIC, OF_BASE, mean_losses
from gotd.storage.keys import key_fields

LOSSES = "losses.parquet"
MEAN = "/mean"
"""End of the name of a mean over parts."""


@dataclass(frozen=True)
class LossOfParts:
    """Loss on held-out texts, a mean of the parts of the target in which each weighs the same.

    It reads what the step ``target_loss`` computed. A mean over all tokens would weigh the part
    with longer texts more.

    Args:
        name: Name in the record.
    """

    key_name: ClassVar[str] = "LossOfParts"

    seeded: ClassVar[str] = "data"

    name: str = "target_loss"

    def key_fields(self) -> dict[str, Any]:
        """Return what determines the numbers in addition to the losses."""
        return key_fields(self)

    def steps(self, *_: Any) -> dict[str, Any]:
        """Return no steps: every cell has those of the target loss, and `results` reads them."""
        return {}

    def results(self, folders: Mapping[str, Path], task: Any) -> Results:
        """Average the losses of the parts, of the model and of its base.

        Raises:
            ValueError: If the losses are not measured, the model has none, or the task's
                texts have no parts.
        """
        metrics: dict[str, Any] = {}
        for name in (METRIC, OF_BASE):
            if name not in folders:
                raise ValueError(
                    f"evaluation={self.name} reads the loss on held-out texts, which is off; "
                    "set target_loss=held_out"
                )
            losses = pq.read_table(folders[name] / LOSSES)
            means = mean_losses(losses, name)
            parts = [value for part, value in means.items() if part != name and value is not None]
            if len(parts) < max(1, len(means) - 1):
                raise ValueError(
                    f"evaluation={self.name} needs a language model and texts with parts; "
                    f"task {task.name} measured {', '.join(means)}"
                )
            metrics[f"{name}{MEAN}"] = float(np.mean(parts))
        headline = f"{METRIC}{MEAN}"
        metrics |= {"headline_name": headline, "headline": metrics[headline]}
        return Results(metrics | {"headline_higher_is_better": False}, losses.num_rows)
