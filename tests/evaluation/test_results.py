from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.evaluation.results import score_splits

TASK = SimpleNamespace(
    reported_splits=("matched", "mismatched"), metrics=("accuracy", "f1"), headline="accuracy"
)


def write(folder, split, labels, predicted, domains):
    columns = {"label": labels, "predicted": predicted, "domain": pa.array(domains, pa.string())}
    pq.write_table(pa.table(columns), folder / f"{split}.parquet")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "matched", [1, 0, 1, 1], [1, 1, 1, 0], ["a", "a", "b", "b"])
    write(tmp_path, "mismatched", [0, 0, 0, 1], [0, 0, 0, 1], ["a", "a", "b", "b"])
    return tmp_path


def predict(table):
    return table["predicted"].to_numpy()


def test_the_headline_and_the_domains_are_those_of_the_first_split(folder):
    metrics, table = score_splits(folder, TASK, predict)
    assert metrics == {
        "accuracy": 0.5,
        "f1": pytest.approx(2 * 2 / (2 * 2 + 1 + 1)),
        "mismatched/accuracy": 1.0,
        "mismatched/f1": 1.0,
        "headline_name": "accuracy",
        "headline": 0.5,
        "domain/a": 0.5,
        "domain/b": 0.5,
    }
    assert table["label"].to_pylist() == [1, 0, 1, 1]


def test_domains_that_are_unwanted_or_unknown_are_left_out(folder):
    metrics, _ = score_splits(folder, TASK, predict, per_domain=False)
    assert not [name for name in metrics if name.startswith("domain/")]
    write(folder, "matched", [1, 0], [1, 1], ["a", None])
    metrics, _ = score_splits(folder, TASK, predict)
    assert not [name for name in metrics if name.startswith("domain/")]
