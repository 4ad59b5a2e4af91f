"""Labels of a cell: named in its record, and validated before a base model is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gotd.pipeline.experiment import run_cell
from gotd.reporting.records import validate
from gotd.runs.expand import expand

SMALL = [
    "experiment=domain",
    "scale=folder",
    "model=micro",
    "pre_fine_tune=micro",
    "fine_tune=micro",
    "embedder=tfidf_svd",
    "tracker=none",
    "seed=1",
    "task=imdb",
    "selector=none",
    "model.spec.tokenizer=wordpiece",
    "model.spec.vocabulary_size=80",
    "model.pretraining.epochs=0",
    "fine_tune.epochs=1",
]


def run(place: Path, labels: list) -> tuple[dict, Path]:
    rows = [{"text": f"row {i}", "label": labels[i % len(labels)]} for i in range(24)]
    files = {f"domain/imdb/{split}": rows for split in ("train", "validation", "test")}
    files["candidates/films"] = [{"text": f"film {i}"} for i in range(60)]
    for name, content in files.items():
        file = place / "data" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in content))
    places = [f"source.path={place / 'data'}", f"store={place / 'store'}"]
    ((config, variant),) = expand([*SMALL, *places])
    return run_cell(config, variant), place / "store"


def test_the_record_has_the_mapping_and_the_numbers_of_classes(tmp_path):
    named, _ = run(tmp_path / "named", ["no", "yes"])
    plain, _ = run(tmp_path / "plain", [0, 1])
    assert named["status"] == "done", named["error"]
    validate(named, "named")
    assert named["data"]["labels"] == {"no": 0, "yes": 1}
    assert "labels" not in plain["data"]
    assert named["metrics"] == plain["metrics"]


@pytest.mark.parametrize("labels", [["no", "yes", "maybe"], [0, 1, 7]])
def test_bad_labels_cost_no_base_model(tmp_path, labels):
    record, store = run(tmp_path, labels)
    assert record["status"] == "failed"
    assert "train.jsonl" in record["error"]["message"]
    assert not (store / "base_model").exists()
