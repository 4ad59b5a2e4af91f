"""Scores agree with scikit-learn and SciPy, also where nothing varies."""

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from gotd.evaluation import metrics as ours
from gotd.evaluation.metrics import Metric, evaluate_metric, metric

PATH = os.pathsep.join(sys.path)
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
    assert set(ORACLES) == {m.name for m in ours.BUILT_IN if m.compute}


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
def test_a_correlation_with_a_constant_is_zero(name, constant):
    varied, flat = np.array([1.0, 2.0, 4.0]), np.full(3, constant)
    assert ours.score(name, flat, varied) == ours.score(name, varied, flat) == 0


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
    assert ours.score("matthews_correlation", labels, labels) == pytest.approx(1.0)


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


def test_values_are_shown_in_their_unit():
    shown = {
        name: f"{0.12345 * (one := ours.metric(name)).factor:.{one.digits}f}"
        for name in ("accuracy", "pearson", "utility_accuracy", "loss", "perplexity", "cut_prompts")
    }
    assert shown == {
        "accuracy": "12.35",
        "pearson": "12.35",
        "utility_accuracy": "0.123",
        "loss": "0.123",
        "perplexity": "0.12",
        "cut_prompts": "0.1",
    }


def test_a_metric_that_is_shared_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ours.metric("accuracy").unit = "count"


def test_domains_are_scored_apart():
    predictions, labels = np.array([1, 1, 0, 1, 0]), np.array([1, 0, 0, 1, 1])
    domains = ["b", "a", "a", None, "b"]
    assert ours.by_domain(predictions, labels, domains, "accuracy") == {"a": 0.5, "b": 0.5}
    assert ours.by_domain(predictions, labels, ["b"] * 5, "accuracy") == {"b": 0.6}
    assert ours.by_domain(predictions, labels, [None] * 5, "accuracy") == {}
    with pytest.raises(ValueError, match="2 domains for 5 labels"):
        ours.by_domain(predictions, labels, ["a", "b"], "accuracy")


@pytest.mark.parametrize(
    "names",
    [("accuracy",), ("accuracy", "f1"), ("pearson_spearman_mean", "pearson", "spearman")],
)
def test_evaluate_metrics_compute_the_same_scores(names):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    predictions = np.where(rng.random(40) < 0.7, labels, 1 - labels)
    module = evaluate_metric(names)
    module.add_batch(predictions=predictions[:25], references=labels[:25])
    module.add_batch(predictions=predictions[25:], references=labels[25:])
    expected = {name: ours.score(name, predictions, labels) for name in names}
    assert module.compute() == pytest.approx(expected)


def test_evaluate_metrics_are_metrics_and_combine():
    import evaluate

    metrics = [evaluate_metric([name]) for name in ("accuracy", "matthews_correlation")]
    assert all(isinstance(each, evaluate.Metric) for each in metrics)
    result = evaluate.combine(metrics).compute(predictions=[1, 0, 1, 1], references=[1, 0, 0, 1])
    assert result == pytest.approx({"accuracy": 0.75, "matthews_correlation": 1 / np.sqrt(3)})


def test_evaluate_metrics_write_no_file(tmp_path):
    """Neither the home folder nor the working folder of a process is touched."""
    code = (
        "from gotd.evaluation.metrics import evaluate_metric as m;"
        "print(m(['accuracy']).compute(predictions=[1, 0], references=[1, 1]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "HF_HOME": str(tmp_path), "PYTHONPATH": PATH},
    )
    assert out.stdout.strip() == "{'accuracy': 0.5}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "higher", "factor"),
    [
        ("accuracy", True, 100),
        ("mismatched/accuracy", True, 100),
        ("glossary_f1", True, 100),  # holds the letters of "loss"
        ("terror_recall", True, 100),
        ("matthews_correlation", True, 100),
        ("loss", False, 1),
        ("corpus_perplexity", False, 1),
        ("expected_max_toxicity", False, 1),
        ("second/expected_max_toxicity_low/toxic", False, 1),
        ("failed_prompts/nontoxic", False, 1),
        ("utility_accuracy", True, 1),
        ("something_new", True, 100),
    ],
)
def test_a_metric_has_a_direction_and_a_unit(name, higher, factor):
    assert metric(name).name == name
    assert metric(name).higher_is_better is higher
    assert metric(name).factor == factor


def test_only_scores_of_one_direction_and_unit_may_be_averaged():
    assert metric("accuracy").scale == metric("matthews_correlation").scale
    assert metric("perplexity").scale != metric("loss").scale
    assert metric("perplexity").scale != metric("accuracy").scale


class Installed:
    """An entry point of another package."""

    def __init__(self, added):
        self.added, self.value = added, "other.package:thing"

    def load(self):
        return self.added


@pytest.fixture
def install(monkeypatch):
    def add(added):
        ours.registered.cache_clear()
        monkeypatch.setattr(ours, "entry_points", lambda group: [Installed(added)])

    yield add
    ours.registered.cache_clear()


def test_another_package_adds_a_metric(install):
    brier = Metric("brier", False, "probability", lambda p, y: float(np.mean((p - y) ** 2)))
    install(brier)
    assert metric("brier") == brier
    predictions, labels = np.array([0.5, 0.5]), np.array([0, 1])
    assert ours.score("brier", predictions, labels) == 0.25
    assert ours.gain("brier", predictions, labels) == -0.25
    assert ours.gain("accuracy", labels, labels) == 1


@pytest.mark.parametrize(
    ("added", "error", "message"),
    [
        ("a string", TypeError, "other.package:thing of gotd.metrics must be a Metric"),
        (Metric("accuracy"), ValueError, "metric accuracy already exists"),
    ],
)
def test_a_bad_entry_point_is_named(install, added, error, message):
    install(added)
    with pytest.raises(error, match=message):
        metric("accuracy")


def test_importing_the_metrics_imports_nothing_slow():
    code = "import sys, gotd.evaluation.metrics; print([m for m in sys.modules if m in %r])"
    slow = ("evaluate", "datasets", "torch", "scipy", "sklearn")
    out = subprocess.run(
        [sys.executable, "-c", code % (slow,)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
