"""Labels that are no classes: mapped by the train split, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.schemas import TaskLimits
from gotd.data.folder import Folder
from gotd.data.tasks.labelled import LabelledTask
from gotd.data.tasks.labels import find_mapping

FIELDS = {
    "name": "mine",
    "text_columns": ("text",),
    "label_kind": "class",
    "metrics": ("accuracy",),
    "headline": "accuracy",
    "reported_splits": {"test": "test"},
    "choice_split": "validation",
}


def task(classes: int) -> LabelledTask:
    return LabelledTask(**FIELDS, classes=classes)


def folder(place: Path, test: list, train: list, ending: str = ".parquet") -> Folder:
    where = place / "domain" / "mine"
    where.mkdir(parents=True)
    for split, labels in {"train": train, "validation": train, "test": test}.items():
        rows = pa.table({"text": [f"text {i}" for i in range(len(labels))], "label": labels})
        if ending == ".csv":
            lines = [
                f"{text},{label}" for text, label in zip(*rows.to_pydict().values(), strict=True)
            ]
            (where / f"{split}.csv").write_text("text,label\n" + "\n".join(lines))
        else:
            pq.write_table(rows, where / f"{split}.parquet")
    return Folder(str(place))


def classes_of(source: Folder, classes: int) -> dict[str, list[float]]:
    tables = task(classes).tables(source, TaskLimits(validation_rows=None), "clean", 0)
    return {name: table["label"].to_pylist() for name, table in tables.items()}


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
@pytest.mark.parametrize(
    ("train", "test", "mapped"),
    [
        (["spam", "ham", "eggs", "ham"], ["eggs", "spam"], {"eggs": 0, "ham": 1, "spam": 2}),
        (["yes", "no"], ["no"], {"no": 0, "yes": 1}),
        ([1, 2, 3], [3, 1], {1: 0, 2: 1, 3: 2}),
        ([-1, 1], [1], {-1: 0, 1: 1}),
        ([10, 40, 900], [900], {10: 0, 40: 1, 900: 2}),
    ],
)
def test_labels_are_mapped_in_the_order_of_their_values(tmp_path, train, test, mapped, ending):
    source, classes = folder(tmp_path, test, train, ending), len(mapped)
    found = classes_of(source, classes)
    assert task(classes).label_mapping(source) == mapped
    assert found["train"] == found["validation"] == [mapped[label] for label in train]
    assert found["reported-test"] == [mapped[label] for label in test]


def test_booleans_are_classes(tmp_path):
    source = folder(tmp_path, [True], [True, False, True])
    assert classes_of(source, 2) == {
        "train": [1.0, 0.0, 1.0],
        "validation": [1.0, 0.0, 1.0],
        "reported-test": [1.0],
    }


@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 0], [1.0, 0.0], [0.5, 1.5]])
def test_classes_and_scores_stay_as_they_are(labels):
    assert find_mapping(pa.chunked_array([labels]), 2, "rows") is None


def test_a_float_that_is_whole_is_a_label():
    assert find_mapping(pa.chunked_array([[1.0, 2.0, None]]), 2, "rows") == {1: 0, 2: 1}


def test_numbers_with_a_stray_one_are_not_mapped(tmp_path):
    source = folder(tmp_path, [0], [0, 1, 7])
    with pytest.raises(ValueError, match=r"train.parquet row 3: label 7 of task mine is not a"):
        classes_of(source, 2)


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (["a", "b", "c"], ["a"], r"train.parquet: .*holds 3 different labels \('a', 'b', 'c'\).*2"),
        (["a", "b"], ["a", "c"], r"test.parquet row 2: label 'c' is none .* train split, 'a', 'b'"),
        (["a", "b", None], ["a"], r"train.parquet row 3: label None is none"),
    ],
)
def test_labels_that_cannot_be_mapped_are_named(tmp_path, train, test, says):
    source = folder(tmp_path, test, train)
    with pytest.raises(ValueError, match=says):
        classes_of(source, 2)
