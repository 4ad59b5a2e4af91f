"""The numbers that every kind of evaluation puts into a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gotd.evaluation.metrics import by_domain, evaluate_metric, metric

ROW_NOISE = "headline_standard_error"
"""Metric: the standard error of the headline over the draw of the rows it is measured on."""
DOMAIN_PREFIX = "domain/"
"""Start of the name of a headline metric that is measured within one domain."""


@dataclass(frozen=True)
class Results:
    """Numbers of one evaluation.

    Args:
        metrics: Numbers by name, ``headline`` and ``headline_name`` among them; a number
            is null where it could not be measured. `gotd.evaluation.metrics` has the
            direction in which a metric is better.
        n_eval: Examples behind the headline.
        curves: ``[[step, value], …]`` by name.
    """

    metrics: dict[str, Any]
    n_eval: int
    curves: dict[str, list[Any]] = field(default_factory=dict)


class Evaluation(Protocol):
    """Settings of one way to measure a model; built by conf/evaluation.

    `gotd.pipeline.steps.measures.measured` returns, for each class of settings, the steps whose
    artifacts hold what the model did on every example; `results` turns those into numbers.
    """

    name: str
    """Short name for records."""
    seeded: ClassVar[str]
    """What chance in the measurement is for; a role in the record's seeds."""

    def key_fields(self) -> dict[str, Any]:
        """Return what determines the numbers in addition to the artifacts."""
        ...

    def results(self, folders: Mapping[str, Path], task: Any) -> Results:
        """Compute the numbers from the artifacts, by the role of their step."""
        ...


def score_splits(
    folder: Path,
    task: Any,
    predict: Callable[[pa.Table], np.ndarray],
    per_domain: bool = True,
) -> tuple[dict[str, Any], pa.Table]:
    """Compute the task's metrics on every reported split; the first one is the headline.

    Args:
        folder: Folder with ``<split>.parquet``: ``label``, ``domain`` and what was predicted.
        task: Has ``reported_splits``, ``metrics`` and ``headline``.
        predict: Returns the ``[n]`` predictions of a table.
        per_domain: Whether to score each true domain apart, where the source knows it.

    Returns:
        Metrics by name, which begins with the split for all but the first, and the table of
        the first split.
    """
    tables = [pq.read_table(folder / f"{split}.parquet") for split in task.reported_splits]
    predictions = [predict(table) for table in tables]
    labels = [table["label"].to_numpy() for table in tables]
    scores = evaluate_metric(task.metrics)
    metrics: dict[str, Any] = {}
    for split, predicted, truth in zip(task.reported_splits, predictions, labels, strict=True):
        prefix = f"{split}/" if metrics else ""
        computed = scores.compute(predictions=predicted, references=truth) or {}
        metrics |= {f"{prefix}{name}": value for name, value in computed.items()}
    metrics |= {"headline_name": task.headline, "headline": metrics[task.headline]}
    if not metric(task.headline).higher_is_better:
        metrics["headline_higher_is_better"] = False
    if per_domain and tables[0]["domain"].null_count == 0:
        domains = tables[0]["domain"].to_pylist()
        by_name = by_domain(predictions[0], labels[0], domains, task.headline)
        metrics |= {f"{DOMAIN_PREFIX}{name}": value for name, value in by_name.items()}
    return metrics, tables[0]
