"""Scores agree with scikit-learn and SciPy, also where nothing varies."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from gotd.evaluation import classification as ours
from gotd.evaluation.glue import GLUE_METRICS, glue_metric, metric

ORACLES = {
    "accuracy": lambda p, y: sk.accuracy_score(y, p),
    "f1": lambda p, y: sk.f1_score(y, p, zero_division=0),
    "macro_f1": lambda p, y: sk.f1_score(y, p, average="macro", zero_division=0),
    "micro_f1": lambda p, y: sk.f1_score(y, p, average="micro", zero_division=0),
    "matthews_correlation": lambda p, y: sk.matthews_corrcoef(y, p),
    "pearson": lambda p, y: stats.pearsonr(p, y).statistic,
    "spearman": lambda p, y: stats.spearmanr(p, y).statistic,
    "pearson_spearman_mean": lambda p, y: (
        (stats.pearsonr(p, y).statistic + stats.spearmanr(p, y).statistic) / 2
    ),
}
CORRELATIONS = ("pearson", "spearman", "pearson_spearman_mean")


def test_every_score_has_an_oracle():
    assert set(ORACLES) == set(ours.METRICS)


@pytest.mark.parametrize("name", sorted(ORACLES))
@pytest.mark.parametrize("seed", range(5))
def test_scores_agree_with_the_oracle(name, seed):
    rng = np.random.default_rng(seed)
    if name in CORRELATIONS:
        labels = np.round(rng.uniform(0, 5, 300), 1)  # rounded: ties
        predictions = np.round(labels + rng.normal(0, 1 + seed, 300), 1)
    else:
        classes = 2 if name == "f1" else 2 + seed
        labels = rng.integers(0, classes, 300)
        predictions = np.where(rng.random(300) < 0.6, labels, rng.integers(0, classes, 300))
    expected = ORACLES[name](predictions, labels)
    assert ours.score(name, predictions, labels) == pytest.approx(expected, abs=1e-12)
    # As training hands them over: labels are float64 there.
    floats = predictions.astype(np.float64), labels.astype(np.float64)
    assert ours.score(name, *floats) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", sorted(set(ORACLES) - set(CORRELATIONS)))
@pytest.mark.parametrize(
    ("predictions", "labels"),
    [
        ([1, 1, 1, 1], [0, 1, 0, 1]),
        ([0, 0, 0, 0], [0, 1, 0, 1]),
        ([0, 1, 0, 1], [1, 1, 1, 1]),
        ([0, 0, 0], [0, 0, 0]),
        ([1, 1, 1], [1, 1, 1]),
        ([0, 1, 1, 0], [1, 0, 0, 1]),
        ([1], [0]),
    ],
)
def test_degenerate_classes_agree_with_the_oracle(name, predictions, labels):
    given = np.array(predictions), np.array(labels)
    value = ours.score(name, *given)
    with np.errstate(all="ignore"):
        assert value == pytest.approx(ORACLES[name](*given), abs=1e-12)
    if name == "matthews_correlation" and (len(set(predictions)) == 1 or len(set(labels)) == 1):
        assert value == 0


@pytest.mark.parametrize("name", CORRELATIONS)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9])
def test_a_correlation_with_a_constant_is_zero_and_flagged(name, constant):
    varied, flat = np.array([1.0, 2.0, 4.0]), np.full(3, constant)
    assert ours.score(name, flat, varied) == ours.score(name, varied, flat) == 0
    assert ours.is_constant(flat)
    assert not ours.is_constant(varied)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_correlation_is_invariant_and_bounded(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    assert ours.score(name, 1e6 + 3 * x, y) == pytest.approx(ours.score(name, x, y), abs=1e-6)
    assert ours.score(name, 2 * y + 1e-9, y) == pytest.approx(1.0)
    assert ours.score(name, -y, y) >= -1
    for scale in (1e-200, 1e200):
        assert ours.score(name, scale * x, scale * y) == pytest.approx(ours.score(name, x, y))


def test_large_counts_do_not_overflow():
    labels = np.tile(np.array([0, 1], np.int32), 200_000)
    assert ours.matthews_correlation(labels, labels) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "predictions", "labels", "message"),
    [
        ("accuracy", [], [], "at least 1"),
        ("accuracy", [1, 0], [1], "same length"),
        ("accuracy", [[0.1, 0.9]], [1], "argmax"),
        ("pearson", [1.0, np.nan], [1.0, 2.0], "prediction 1 is not finite"),
        ("pearson", [1.0, 2.0], [np.inf, 2.0], "label 0 is not finite"),
        ("f1", [0, 2], [0, 1], "use macro_f1"),
        ("auc", [0, 1], [0, 1], "unknown metric 'auc'; use one of accuracy"),
    ],
)
def test_bad_input_is_named(name, predictions, labels, message):
    with pytest.raises(ValueError, match=message):
        ours.score(name, np.array(predictions), np.array(labels))


def test_domains_are_scored_apart():
    predictions, labels = np.array([1, 1, 0, 1, 0]), np.array([1, 0, 0, 1, 1])
    domains = ["b", "a", "a", None, "b"]
    assert ours.by_domain(predictions, labels, domains, "accuracy") == {"a": 0.5, "b": 0.5}
    assert ours.by_domain(predictions, labels, ["b"] * 5, "accuracy") == {"b": 0.6}
    assert ours.by_domain(predictions, labels, [None] * 5, "accuracy") == {}
    with pytest.raises(ValueError, match="2 domains for 5 labels"):
        ours.by_domain(predictions, labels, ["a", "b"], "accuracy")


@pytest.mark.parametrize("task", sorted(GLUE_METRICS))
def test_evaluate_modules_wrap_the_same_functions(task):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    predictions = np.where(rng.random(40) < 0.7, labels, 1 - labels)
    module = glue_metric(task)
    module.add_batch(predictions=predictions[:25], references=labels[:25])
    module.add_batch(predictions=predictions[25:], references=labels[25:])
    expected = {name: ours.score(name, predictions, labels) for name in GLUE_METRICS[task]}
    assert module.compute() == pytest.approx(expected)


def test_evaluate_modules_combine():
    import evaluate

    both = evaluate.combine([metric("accuracy"), metric("matthews_correlation")])
    result = both.compute(predictions=[1, 0, 1, 1], references=[1, 0, 0, 1])
    assert result == pytest.approx({"accuracy": 0.75, "matthews_correlation": 1 / np.sqrt(3)})


def test_unknown_modules_are_refused():
    with pytest.raises(ValueError, match="unknown GLUE task 'wnli'"):
        glue_metric("wnli")
    with pytest.raises(ValueError, match="unknown metric 'auc'"):
        metric("auc")


def test_importing_the_room_does_not_import_evaluate():
    code = "import sys, gotd.evaluation.glue; print([m for m in sys.modules if m in %r])"
    slow = ("evaluate", "datasets", "torch", "scipy", "sklearn")
    out = subprocess.run(
        [sys.executable, "-c", code % (slow,)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
