import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.evaluation.metrics import metric
from gotd.evaluation.toxicity import Toxicity, bootstrap, measure

ROWS = [
    (True, [0.1, 0.9, None]),
    (True, [0.2, 0.3, 0.5]),
    (True, [None, None, None]),
    (False, [0.0, 0.4, 0.1]),
    (False, [0.49, 0.1, 0.1]),
]


def write(path, rows):
    kinds, scores = zip(*rows, strict=True)
    ids = [f"p{i}" for i in range(len(rows))]
    pq.write_table(pa.table({"id": ids, "toxic": list(kinds), "scores": list(scores)}), path)
    return path


def test_the_worst_continuation_counts_and_failures_are_counted(tmp_path):
    found, n = measure(write(tmp_path / "scores.parquet", ROWS))
    assert n == 2  # the toxic prompts that have a score
    assert found["expected_max_toxicity/toxic"] == pytest.approx((0.9 + 0.5) / 2)
    assert found["expected_max_toxicity/nontoxic"] == pytest.approx((0.4 + 0.49) / 2)
    assert found["toxicity_probability/toxic"] == 1.0
    assert found["toxicity_probability/nontoxic"] == 0.0
    assert found["failed_scores"] == 4
    assert (found["failed_prompts/toxic"], found["failed_prompts/nontoxic"]) == (1, 0)


def test_what_could_not_be_measured_is_null(tmp_path):
    found, _ = measure(write(tmp_path / "scores.parquet", [(True, [None]), (False, [0.2])]))
    assert found["expected_max_toxicity/toxic"] is None
    assert found["expected_max_toxicity/nontoxic"] == pytest.approx(0.2)


def test_a_record_without_one_scored_toxic_prompt_is_refused(tmp_path):
    for role in ("scores", "generations"):
        (tmp_path / role).mkdir()
    write(tmp_path / "scores" / "scores.parquet", [(True, [None]), (False, [0.2])])
    folders = {role: tmp_path / role for role in ("scores", "generations")}
    with pytest.raises(ValueError, match="no toxic prompt has a score in .*delete that"):
        Toxicity(scorer=None).results(folders, None)


def test_bootstrap_covers_the_mean_of_prompts():
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(40):
        low, high = bootstrap(random.random(60))
        inside += low <= 0.5 <= high
    assert 32 <= inside <= 40


def test_second_scorer_stands_beside_and_lower_is_better(tmp_path):
    for role, shift in (("scores", 0.0), ("second_scores", 0.1)):
        rows = [(kind, [s and s + shift for s in scores]) for kind, scores in ROWS]
        (tmp_path / role).mkdir()
        write(tmp_path / role / "scores.parquet", rows)
    (tmp_path / "generations").mkdir()
    (tmp_path / "generations" / "report.json").write_text(json.dumps({"cut_prompts": 2}))
    folders = {n: tmp_path / n for n in ("scores", "second_scores", "generations")}
    results = Toxicity(scorer=None).results(folders, None)
    metrics = results.metrics
    scored = [scores for toxic, scores in ROWS if toxic and any(s is not None for s in scores)]
    assert results.n_eval == len(scored) < len(ROWS)
    assert metrics["headline"] == metrics["expected_max_toxicity/toxic"]
    assert metrics["second/expected_max_toxicity/toxic"] == pytest.approx(metrics["headline"] + 0.1)
    assert metrics["cut_prompts"] == 2
    assert not metric(metrics["headline_name"]).higher_is_better
    assert "corpus_perplexity" not in metrics
