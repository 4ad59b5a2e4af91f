"""The numbers that every kind of evaluation puts into a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

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

    `gotd.pipeline.steps.measured` returns, for each class of settings, the steps whose
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
