"""Scores of predictions against labels, as functions of two arrays.

Every function takes ``[n]`` predictions and ``[n]`` labels that `gotd.evaluation.metrics.score`
has validated. All scores are better when higher. None is ever NaN: a correlation that is
undefined because nothing varies is 0, since such a prediction carries no information.

SciPy and scikit-learn are slow to import, so each function imports what it needs.
"""

from __future__ import annotations

import numpy as np


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of predictions that equal their label."""
    return float(np.mean(predictions == labels))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return F1 of class 1: ``2 TP / (2 TP + FP + FN)``, 0 if class 1 never occurs.

    Raises:
        ValueError: If a value is neither 0 nor 1; use `macro_f1` for more classes.
    """
    if not (np.isin(predictions, (0, 1)).all() and np.isin(labels, (0, 1)).all()):
        raise ValueError("f1 is for the classes 0 and 1; use macro_f1 for more classes")
    return _f1(predictions, labels, "binary")


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur among labels or predictions."""
    return _f1(predictions, labels, "macro")


def micro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return F1 of the counts summed over classes.

    With one label a row every wrong prediction is one FP and one FN, so this equals the
    accuracy; it has its own name because the literature reports it under that name.
    """
    return accuracy(predictions, labels)


def _f1(predictions: np.ndarray, labels: np.ndarray, average: str) -> float:
    from sklearn.metrics import f1_score

    score = f1_score(labels, predictions, average=average, zero_division=0)  # pyright: ignore[reportArgumentType]
    return float(score)


def matthews_correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return Matthews' correlation of any number of classes; 0 if one side is constant.

    Source: Gorodkin (2004), "Comparing two K-category assignments".
    """
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return Pearson's correlation; 0 if predictions or labels are constant."""
    from scipy import stats

    # The range, not the variance: rounding can leave a constant a variance above 0.
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    return float(stats.pearsonr(predictions, labels).statistic)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, ties having their mean rank."""
    from scipy import stats

    return pearson(stats.rankdata(predictions), stats.rankdata(labels))


def pearson_spearman_mean(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of Pearson's and Spearman's correlation, GLUE's score for STS-B."""
    return (pearson(predictions, labels) + spearman(predictions, labels)) / 2
