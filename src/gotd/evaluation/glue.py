"""GLUE's scores as `evaluate` modules of our own.

The `evaluate` package ships no metric: it would fetch them as code at run time. These
wrap the functions of `gotd.evaluation.classification`, work offline and run nothing
that was downloaded. `evaluate` takes seconds to import, so that happens on first use.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gotd.evaluation.classification import METRICS, by_domain, score

if TYPE_CHECKING:
    import evaluate

__all__ = ["GLUE_METRICS", "by_domain", "glue_metric", "metric", "score"]

GLUE_METRICS: Mapping[str, tuple[str, ...]] = {
    "cola": ("matthews_correlation", "accuracy"),
    "sst2": ("accuracy",),
    # The paper's MRPC and QQP columns are accuracies (BERT: 81.4 and 90.7; its F1 on MRPC
    # is several points higher), so accuracy leads and F1 stands beside it.
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson_spearman_mean", "pearson", "spearman"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
}
"""Scores of each GLUE task of the paper, the headline first (WNLI is left out there)."""


def glue_metric(task: str) -> evaluate.Metric:
    """Make the `evaluate` module with all scores of a GLUE task.

    Raises:
        ValueError: If the task is not one of the eight.
    """
    if task not in GLUE_METRICS:
        raise ValueError(f"unknown GLUE task {task!r}; use one of {', '.join(GLUE_METRICS)}")
    return _module(f"glue_{task}", GLUE_METRICS[task])


def metric(name: str) -> evaluate.Metric:
    """Make the `evaluate` module of one score, so that modules can be combined.

    Raises:
        ValueError: If the name is not in `gotd.evaluation.classification.METRICS`.
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; use one of {', '.join(METRICS)}")
    return _module(name, (name,))


def _module(name: str, metrics: Sequence[str]) -> evaluate.Metric:
    # In memory: the default writes predictions to files in the user's cache folder.
    return _metric_class()(name, tuple(metrics))


@functools.cache
def _metric_class() -> type[Any]:
    """Define the class once `evaluate` is needed: its base class lives there."""
    import datasets
    import evaluate

    class ArrayMetric(evaluate.Metric):
        """Scores of predictions against references, all by the functions of this package."""

        def __init__(self, module: str, metrics: tuple[str, ...]) -> None:
            self._metrics = metrics
            self._module_name = module
            super().__init__(config_name=module, keep_in_memory=True)

        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=f"{self._module_name}: {', '.join(self._metrics)}",
                citation="",
                inputs_description="predictions and references: class indices or scores",
                features=datasets.Features(
                    {
                        "predictions": datasets.Value("float64"),
                        "references": datasets.Value("float64"),
                    }
                ),
            )

        def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, *, predictions: Sequence[float], references: Sequence[float]
        ) -> dict[str, float]:
            given, truth = np.asarray(predictions), np.asarray(references)
            return {name: METRICS[name](given, truth) for name in self._metrics}

    return ArrayMetric
