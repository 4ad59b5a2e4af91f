"""Score predictions of a model that was fine-tuned on labels: the paper's second step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gotd.evaluation.metrics import bootstrap_error
from gotd.evaluation.results import ROW_NOISE, Results, score_splits
from gotd.storage.keys import added_later, key_fields


@dataclass(frozen=True)
class FineTuned:
    """Scores of the predictions on the target's reported splits after fine-tuning on its labels.

    Args:
        name: Name in the record.
        per_domain: Score each true domain apart, where the source knows it.
        row_noise: Record the standard error that the headline has because just these rows
            are reported; a test set of 65 rows has more of it than of signal.
    """

    key_name: ClassVar[str] = "FineTuned"

    seeded: ClassVar[str] = "fine_tune"

    name: str = "glue"
    per_domain: bool = True
    row_noise: bool = added_later(False)

    def key_fields(self) -> dict[str, Any]:
        """Return what determines the numbers apart from the predictions."""
        return key_fields(self)

    def results(self, folders: Mapping[str, Path], task: Any) -> Results:
        """Compute the scores of every reported split; the first one is the headline."""
        folder = folders["predictions"]
        tuned = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        curves = {"fine_tune_loss": tuned["loss_curve"], "validation": tuned["validation"]}
        metrics, table = score_splits(
            folder, task, lambda table: table["prediction"].to_numpy(), self.per_domain
        )
        if self.row_noise:
            predicted, labels = table["prediction"].to_numpy(), table["label"].to_numpy()
            metrics[ROW_NOISE] = bootstrap_error(task.headline, predicted, labels)
        return Results(metrics, table.num_rows, curves)
