"""Metrics by name: which direction is better, the unit, and how a score is computed.

Everything that shows or compares a score asks `metric` for its direction and unit. A package
outside this repository adds its own through the entry point group ``gotd.metrics``; each
entry point is a `Metric`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal

import numpy as np

from gotd.evaluation.classification import (
    accuracy,
    f1,
    macro_f1,
    matthews_correlation,
    micro_f1,
    pearson,
    pearson_spearman_mean,
    spearman,
)

if TYPE_CHECKING:
    import evaluate

Unit = Literal["share", "correlation", "probability", "nats", "perplexity", "count"]
ENTRY_POINTS = "gotd.metrics"
_FORMAT: Mapping[Unit, tuple[float, int]] = {
    "share": (100.0, 2),
    "correlation": (100.0, 2),
    "probability": (1.0, 3),
    "nats": (1.0, 3),
    "perplexity": (1.0, 2),
    "count": (1.0, 1),
}
"""Factor and decimals with which a unit is shown: shares and correlations times 100."""


@dataclass(frozen=True)
class Metric:
    """A kind of score.

    Args:
        name: Name in records.
        higher_is_better: Direction.
        unit: What a value is, and so how it is shown.
        compute: From ``[n]`` predictions and ``[n]`` labels to the score; ``None`` for a
            metric of something else, such as generated text.
    """

    name: str
    higher_is_better: bool = True
    unit: Unit = "share"
    compute: Callable[[np.ndarray, np.ndarray], float] | None = None

    @property
    def factor(self) -> float:
        """Return what a value is multiplied by when it is shown."""
        return _FORMAT[self.unit][0]

    @property
    def digits(self) -> int:
        """Return the decimals with which a value is shown."""
        return _FORMAT[self.unit][1]

    @property
    def scale(self) -> tuple[bool, str]:
        """Return direction and unit; scores may be averaged only where these are equal.

        Shares and correlations count as one unit: both are points of 100, as in GLUE's average.
        """
        return self.higher_is_better, "points" if self.factor > 1 else self.unit


_SHARES = (accuracy, f1, macro_f1, micro_f1)
_CORRELATIONS = (matthews_correlation, pearson, spearman, pearson_spearman_mean)
BUILT_IN = (
    *(Metric(compute.__name__, compute=compute) for compute in _SHARES),
    *(Metric(c.__name__, unit="correlation", compute=c) for c in _CORRELATIONS),
    Metric("utility_accuracy", unit="probability"),
    *(
        Metric(f"{name}{end}", higher_is_better=False, unit="probability")
        for name in ("expected_max_toxicity", "toxicity_probability")
        for end in ("", "_low", "_high")
    ),
    *(
        Metric(name, higher_is_better=False, unit="perplexity")
        for name in ("perplexity", "corpus_perplexity", "mean_text_perplexity")
    ),
    *(
        Metric(name, higher_is_better=False, unit="nats")
        for name in ("loss", "target_loss", "target_loss_base", "response_loss")
    ),
    *(
        Metric(name, higher_is_better=False, unit="count")
        for name in ("failed_scores", "failed_prompts", "cut_prompts")
    ),
)


@functools.cache
def registered() -> dict[str, Metric]:
    """Return every metric by name: the built-in ones and those of installed packages.

    Raises:
        TypeError: If an entry point is no `Metric`.
        ValueError: If two metrics have one name.
    """
    metrics = {metric.name: metric for metric in BUILT_IN}
    for entry_point in entry_points(group=ENTRY_POINTS):
        added = entry_point.load()
        if not isinstance(added, Metric):
            raise TypeError(f"entry point {entry_point.value} of {ENTRY_POINTS} must be a Metric")
        if added.name in metrics:
            raise ValueError(f"entry point {entry_point.value}: metric {added.name} already exists")
        metrics[added.name] = added
    return metrics


def metric(name: str) -> Metric:
    """Return the metric of a name in a record.

    A name may have parts before and after the metric, such as the ``toxic`` of
    ``expected_max_toxicity/toxic``. An unknown name is a share of which more is better.
    """
    known = registered()
    match = next((known[part] for part in name.split("/") if part in known), Metric(name))
    return replace(match, name=name)


def score(name: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute a score by name.

    Args:
        name: Name of a metric of predictions against labels.
        predictions: ``[n]`` class indices, or scores for regression.
        labels: ``[n]`` true class indices or scores.

    Returns:
        The score, never NaN for a built-in metric.

    Raises:
        ValueError: If the name is unknown, or the arrays are empty, of different length
            or hold values that are not finite.
    """
    compute = metric(name).compute
    if compute is None:
        known = ", ".join(m.name for m in registered().values() if m.compute)
        raise ValueError(f"unknown metric {name!r}; use one of {known}")
    return compute(*_pair(predictions, labels))


def gain(name: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute a score with the sign that makes more better, to choose an epoch by."""
    value = score(name, predictions, labels)
    return value if metric(name).higher_is_better else -value


def evaluate_metric(names: Sequence[str]) -> evaluate.Metric:
    """Build a metric of the `evaluate` package that computes the scores of these names.

    The package ships no metric: ``evaluate.load`` fetches each as code. This one is defined
    here, computes in memory and works offline.

    Raises:
        ValueError: In ``compute``, as `score`.
    """
    # Imported and defined here, because the import takes seconds.
    import datasets
    import evaluate

    class Scores(evaluate.Metric):
        """Scores of predictions against references."""

        def _build_data_dir(self) -> str:
            return ""  # the default makes a folder in the user's cache, which nothing here needs

        def _info(self) -> evaluate.MetricInfo:
            number = datasets.Value("float64")
            return evaluate.MetricInfo(
                description=", ".join(names),
                citation="",
                inputs_description="predictions and references: class indices or scores",
                features=datasets.Features({"predictions": number, "references": number}),
            )

        def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, *, predictions: Sequence[float], references: Sequence[float]
        ) -> dict[str, float]:
            given, truth = np.asarray(predictions), np.asarray(references)
            return {name: score(name, given, truth) for name in names}

    return Scores(config_name="-".join(names), keep_in_memory=True)


def bootstrap_error(
    name: str, predictions: np.ndarray, labels: np.ndarray, resamples: int = 200
) -> float:
    """Estimate a score's standard error over the choice of the rows it is measured on.

    Rows are resampled with replacement, always by the same random numbers; with 200
    resamples the error is itself known to about 5 %.

    Args:
        name: Name of the metric.
        predictions: ``[n]`` class indices, or scores for regression.
        labels: ``[n]`` true class indices or scores.
        resamples: How often rows are resampled.

    Returns:
        Standard deviation of the score over the resamples, in the score's unit.
    """
    rng = np.random.default_rng(0)
    rows = (rng.integers(len(labels), size=len(labels)) for _ in range(resamples))
    return float(np.std([score(name, predictions[r], labels[r]) for r in rows], ddof=1))


def by_domain(
    predictions: np.ndarray, labels: np.ndarray, domains: Sequence[str | None], name: str
) -> dict[str, float]:
    """Score each domain's rows apart.

    Args:
        predictions: ``[n]`` class indices or scores.
        labels: ``[n]`` true class indices or scores.
        domains: ``[n]`` domain of each row; rows without one count in no domain.
        name: Name of the metric.

    Returns:
        Score by domain, in the order of their names; empty if no domain is known.

    Raises:
        ValueError: As `score`.
    """
    predictions, labels = _pair(predictions, labels)
    if len(domains) != len(labels):
        raise ValueError(f"{len(domains)} domains for {len(labels)} labels")
    scores = {}
    for domain in sorted({domain for domain in domains if domain is not None}):
        rows = np.array([of == domain for of in domains])
        scores[domain] = score(name, predictions[rows], labels[rows])
    return scores


def _pair(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Validate two vectors of one length that hold finite values only."""
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 1 or predictions.shape != labels.shape or len(labels) == 0:
        raise ValueError(
            f"predictions {predictions.shape} and labels {labels.shape} must be two vectors of "
            "the same length, at least 1; take the argmax of class scores first"
        )
    for side, values in (("prediction", predictions), ("label", labels)):
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(
                f"{side} {int(np.argmax(bad))} is not finite ({int(bad.sum())} such values); "
                "the run has diverged or a label is missing"
            )
    return predictions, labels
