"""Score predictions of a model that was fine-tuned on labels: the paper's second step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq

from gotd.evaluation.metrics import bootstrap_error, by_domain, evaluate_metric, metric
from gotd.evaluation.results import DOMAIN_PREFIX, ROW_NOISE, Results
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
        metrics: dict[str, Any] = {}
        scores = evaluate_metric(task.metrics)
        tables = [pq.read_table(folder / f"{split}.parquet") for split in task.reported_splits]
        for split, table in zip(task.reported_splits, tables, strict=True):
            predicted, labels = table["prediction"].to_numpy(), table["label"].to_numpy()
            computed = scores.compute(predictions=predicted, references=labels) or {}
            prefix = "" if table is tables[0] else f"{split}/"
            metrics |= {f"{prefix}{name}": value for name, value in computed.items()}
        metrics["headline_name"] = task.headline
        metrics["headline"] = metrics[task.headline]
        if not metric(task.headline).higher_is_better:
            metrics["headline_higher_is_better"] = False
        table = tables[0]
        predicted, labels = table["prediction"].to_numpy(), table["label"].to_numpy()
        if self.row_noise:
            metrics[ROW_NOISE] = bootstrap_error(task.headline, predicted, labels)
        if self.per_domain and table["domain"].null_count == 0:
            domains = by_domain(predicted, labels, table["domain"].to_pylist(), task.headline)
            metrics |= {f"{DOMAIN_PREFIX}{name}": value for name, value in domains.items()}
        return Results(metrics, table.num_rows, curves)
