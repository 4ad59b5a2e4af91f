"""Score predictions of a model that was fine-tuned on labels: the paper's second step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq

from gotd.evaluation.classification import bootstrap_error
from gotd.evaluation.glue import by_domain, score
from gotd.evaluation.results import Results

ROW_NOISE = "headline_standard_error"
"""Name of the metric that `FineTuned.row_noise` asks for."""


@dataclass(frozen=True)
class FineTuned:
    """Fine-tune on the target's labels, predict its reported splits, score them.

    Args:
        name: Name in the record.
        per_domain: Score each true domain apart, where the source knows it.
        row_noise: Record the standard error that the headline has because just these rows
            were drawn to be reported; a test set of 65 rows has more of it than of signal.
    """

    key_name: ClassVar[str] = "FineTuned"

    seeded: ClassVar[str] = "fine_tune"

    name: str = "glue"
    per_domain: bool = True
    row_noise: bool = field(default=False, metadata={"keyed": "if set"})

    def key_fields(self) -> dict[str, Any]:
        """Return what determines the numbers in addition to the predictions."""
        fields = asdict(self)
        if not self.row_noise:
            del fields["row_noise"]  # it came later, and old records keep their keys
        return fields

    def results(self, folders: Mapping[str, Path], task: Any) -> Results:
        """Score every reported split; the first one is the headline."""
        folder = folders["predictions"]
        tuned = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        curves = {"fine_tune_loss": tuned["loss_curve"], "validation": tuned["validation"]}
        metrics: dict[str, Any] = {}
        n_eval = 0
        for place, split in enumerate(task.reported_splits):
            table = pq.read_table(folder / f"{split}.parquet")
            predicted, labels = table["prediction"].to_numpy(), table["label"].to_numpy()
            prefix = "" if place == 0 else f"{split}/"
            for metric in task.metrics:
                metrics[f"{prefix}{metric}"] = score(metric, predicted, labels)
            if place > 0:
                continue
            n_eval = table.num_rows
            metrics["headline_name"] = task.headline
            metrics["headline"] = metrics[task.headline]
            if self.row_noise:
                metrics[ROW_NOISE] = bootstrap_error(task.headline, predicted, labels)
            if self.per_domain and table["domain"].null_count == 0:
                domains = table["domain"].to_pylist()
                for domain, value in by_domain(predicted, labels, domains, task.headline).items():
                    metrics[f"domain/{domain}"] = value
        return Results(metrics, n_eval, curves)
