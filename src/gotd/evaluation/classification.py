"""Scores of predictions against labels, as plain functions of arrays.

All scores are better when higher. None is ever NaN: where a score is undefined because
nothing varies (one class predicted throughout), it is 0, the value of a prediction that
carries no information; `is_constant` tells such a run from one that is merely bad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Give the share of predictions that equal their label."""
    predictions, labels = _pair(predictions, labels)
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Give F1 of class 1: ``2 TP / (2 TP + FP + FN)``, 0 if class 1 never occurs.

    Raises:
        ValueError: If a value is neither 0 nor 1; use `macro_f1` for more classes.
    """
    predictions, labels = _pair(predictions, labels)
    if not (np.isin(predictions, (0, 1)).all() and np.isin(labels, (0, 1)).all()):
        raise ValueError("f1 is for the classes 0 and 1; use macro_f1 for more classes")
    return _f1_of(1, predictions, labels)


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Give the mean over classes of each class's F1.

    The classes are those that occur among labels or predictions.
    """
    predictions, labels = _pair(predictions, labels)
    classes = np.union1d(predictions, labels)
    return float(np.mean([_f1_of(c, predictions, labels) for c in classes]))


def micro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Give F1 of the counts summed over classes.

    With one label a row every wrong prediction is one FP and one FN, so this is the
    accuracy; it has its own name because the literature reports it under that name.
    """
    return accuracy(predictions, labels)


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Give Matthews' correlation, for any number of classes.

    With c correct rows of s, t_k rows of class k and p_k predictions of it:
    ``(c s - sum_k p_k t_k) / sqrt((s² - sum_k p_k²)(s² - sum_k t_k²))``; 0 if all rows
    or all predictions are of one class.

    Source: Gorodkin (2004), "Comparing two K-category assignments".
    """
    predictions, labels = _pair(predictions, labels)
    classes = np.union1d(predictions, labels)
    # Float64 counts: the products of integer counts overflow 32 bits soon.
    true = np.array([np.sum(labels == c) for c in classes], dtype=np.float64)
    predicted = np.array([np.sum(predictions == c) for c in classes], dtype=np.float64)
    rows = float(len(labels))
    correct = float(np.sum(predictions == labels))
    spread = (rows**2 - predicted @ predicted) * (rows**2 - true @ true)
    if spread <= 0:
        return 0.0
    return float((correct * rows - predicted @ true) / np.sqrt(spread))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Give Pearson's correlation; 0 if predictions or labels are constant."""
    predictions, labels = _pair(predictions, labels)
    x = predictions.astype(np.float64)
    y = labels.astype(np.float64)
    # The spread, not the variance: rounding can leave a constant a variance above 0.
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x = (x - x.mean()) / np.ptp(x)
    y = (y - y.mean()) / np.ptp(y)
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Give Spearman's correlation: Pearson's of the ranks, ties getting their mean rank."""
    predictions, labels = _pair(predictions, labels)
    return pearson(_ranks(predictions), _ranks(labels))


def pearson_spearman_mean(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Give the mean of Pearson's and Spearman's correlation, GLUE's score for STS-B."""
    return (pearson(predictions, labels) + spearman(predictions, labels)) / 2


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
    "pearson_spearman_mean": pearson_spearman_mean,
}
"""Every score by its name in records: ``(predictions [n], labels [n]) -> float``."""


def score(metric: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    """Compute a score by name.

    Args:
        metric: Name from `METRICS`.
        predictions: ``[n]`` class indices, or scores for regression.
        labels: ``[n]`` true class indices or scores.

    Returns:
        The score, higher is better, never NaN.

    Raises:
        ValueError: If the name is unknown, or the arrays are empty, of different length
            or hold values that are not finite.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; use one of {', '.join(METRICS)}")
    return METRICS[metric](predictions, labels)


def bootstrap_error(
    metric: str, predictions: np.ndarray, labels: np.ndarray, draws: int = 200
) -> float:
    """Give a score's standard error over the draw of the rows it is measured on.

    Rows are drawn again with replacement, always by the same random numbers; with 200
    draws the error is itself known to about 5 %.

    Args:
        metric: Name from `METRICS`.
        predictions: ``[n]`` class indices, or scores for regression.
        labels: ``[n]`` true class indices or scores.
        draws: How often rows are drawn.

    Returns:
        Standard deviation of the score over the draws, in the score's unit.
    """
    rng = np.random.default_rng(0)
    rows = (rng.integers(len(labels), size=len(labels)) for _ in range(draws))
    return float(np.std([score(metric, predictions[r], labels[r]) for r in rows], ddof=1))


def is_constant(predictions: np.ndarray) -> bool:
    """Say whether all predictions are equal: a collapsed run, of score 0 by definition."""
    return bool(np.ptp(predictions) == 0)


def by_domain(
    predictions: np.ndarray,
    labels: np.ndarray,
    domains: Sequence[str | None],
    metric: str,
) -> dict[str, float]:
    """Score each domain's rows apart.

    Args:
        predictions: ``[n]`` class indices or scores.
        labels: ``[n]`` true class indices or scores.
        domains: ``[n]`` domain of each row; rows without one count in no domain.
        metric: Name from `METRICS`.

    Returns:
        Score by domain, in the order of their names; empty if no domain is known.

    Raises:
        ValueError: As `score`.
    """
    predictions, labels = _pair(predictions, labels)
    if len(domains) != len(labels):
        raise ValueError(f"{len(domains)} domains for {len(labels)} labels")
    scores = {}
    for name in sorted({domain for domain in domains if domain is not None}):
        rows = np.array([domain == name for domain in domains])
        scores[name] = score(metric, predictions[rows], labels[rows])
    return scores


def _pair(predictions: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.ndim != 1 or predictions.shape != labels.shape or len(labels) == 0:
        raise ValueError(
            f"predictions {predictions.shape} and labels {labels.shape} must be two vectors of "
            "the same length, at least 1; take the argmax of class scores first"
        )
    for name, values in (("prediction", predictions), ("label", labels)):
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(
                f"{name} {int(np.argmax(bad))} is not finite ({int(bad.sum())} such values); "
                "the run has diverged or a label is missing"
            )
    return predictions, labels


def _f1_of(positive: float, predictions: np.ndarray, labels: np.ndarray) -> float:
    hits = np.sum((predictions == positive) & (labels == positive))
    total = np.sum(predictions == positive) + np.sum(labels == positive)
    return float(2 * hits / total) if total else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]
