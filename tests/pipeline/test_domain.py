"""Domain tasks: their own validation split, screening, and folders that lack some of them."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gotd.cli.main import main
from gotd.pipeline.experiment import plan_cell, run_cell
from gotd.runs.expand import expand
from gotd.runs.sweep import run

WORLD = [
    "experiment=domain/micro",
    "task=rct",
    "seed=1001",
    "tracker=none",
    "budget=20",
    "source.pretraining_documents=150",
    "source.candidate_documents=900",
    "source.rare_share=0.1",
    "source.labels=40",
    "source.evaluation_rows=60",
    "model.pretraining.epochs=0.5",
    "pre_fine_tune.epochs=1",
    "fine_tune.epochs=1",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


def cell_of(store, *overrides):
    ((config, _),) = expand([*WORLD, f"store={store}", *overrides])
    return config, plan_cell(config)


def ids(store, cell, name):
    (rows,) = [step for step in cell.record.ancestors() if step.kind == "task"]
    return pq.read_table(cell.store.get(rows) / f"{name}.parquet")["id"].to_pylist()


def test_the_epoch_is_chosen_on_the_tasks_own_validation_split(store):
    _, clean = cell_of(store, "selector=none")
    assert len(ids(store, clean, "train")) == 40  # nothing is held out
    assert {name.split("/")[1] for name in ids(store, clean, "validation")} == {"validation"}
    reported = ids(store, clean, "reported-test")
    assert {name.split("/")[1] for name in reported} == {"test"}
    _, few = cell_of(store, "selector=none", "limits.validation_rows=7", "limits.reported_rows=9")
    assert len(ids(store, few, "validation")) == 7
    assert set(ids(store, few, "reported-test")) < set(reported)
    assert len(ids(store, few, "reported-test")) == 9


def test_the_published_code_chooses_it_on_the_rows_it_reports(store):
    _, published = cell_of(store, "selector=none", "protocol=published")
    assert ids(store, published, "validation") == ids(store, published, "reported-test")
    assert settings_of(published)["choose"] == "best_epoch"
    glue = ("task=cola", "selector=none", "protocol=published", "limits.validation_rows=4")
    assert settings_of(cell_of(store, *glue)[1])["choose"] == "last_epoch"  # D9


@pytest.mark.parametrize(
    ("embedder", "pooling"),
    [("distilbert_plain", "mean_all_positions"), ("token_mean", "token_mean")],
)
def test_the_published_mean_is_over_padding_and_leaves_other_spaces_alone(store, embedder, pooling):
    _, cell = cell_of(store, "selector=got_d", f"embedder={embedder}", "protocol=published")
    spaces = [s for s in cell.record.ancestors() if s.kind == "embeddings"]
    assert {space.parameters["encoder"]["pooling"] for space in spaces} == {pooling}


def settings_of(cell):
    return cell.record.inputs["predictions"].parameters["settings"]


def test_a_task_without_such_a_split_must_say_how_many_rows_to_hold_out(store):
    with pytest.raises(ValueError, match="validation_rows must be a number: task cola has no"):
        cell_of(store, "task=cola", "selector=none")


def test_measuring_arms_see_the_nearest_domains_only(store):
    for arm in ("none", "got_d", "dsir"):
        config, cell = cell_of(store, f"selector={arm}")
        kinds = [step.kind for step in cell.record.ancestors()]
        assert ("screened" in kinds) is (arm == "got_d")
        record = run_cell(config)
        assert record["status"] == "done", record["error"]
        assert 0 < record["metrics"]["headline_standard_error"] < 0.2
        if arm != "got_d":
            continue
        screened = record["selection"]["diagnostics"]["screened"]
        assert len(screened["kept"]) == 2
        assert set(record["selection"]["domains"]) <= set(screened["kept"])
        assert screened["kept"] == sorted(screened["distances"], key=screened["distances"].get)[:2]


def test_without_screening_no_key_knows_of_it(store):
    _, whole = cell_of(store, "selector=got_d", "candidates.screen=null")
    assert "screened" not in [step.kind for step in whole.record.ancestors()]
    _, one = cell_of(store, "selector=got_d", "candidates.screen=1")
    assert one.record.inputs["selection"].key != whole.record.inputs["selection"].key


# A folder that lacks some tasks --------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two domain tasks of twenty rows, two domains of passages."""
    rows = {
        split: [{"text": f"text {i} of {split}", "label": i % 2} for i in range(20)]
        for split in ("train", "validation", "test")
    }
    files = {
        f"domain/{task}/{split}": r for task in ("imdb", "helpfulness") for split, r in rows.items()
    }
    files |= {
        f"candidates/{d}": [{"text": f"{d} {i}"} for i in range(40)] for d in ("news", "films")
    }
    for name, content in files.items():
        file = tmp_path / "data" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in content))
    labels = {"label_names": ["no", "yes"]}
    (tmp_path / "data" / "domain" / "imdb" / "labels.json").write_text(json.dumps(labels))
    return tmp_path / "data"


def small(folder: Path, store: Path) -> list[str]:
    """The folder scale with the micro model, which needs no package."""
    return [
        "scale=folder",
        "model=micro",
        "pre_fine_tune=micro",
        "fine_tune=micro",
        "embedder=tfidf_svd",
        "hydra/launcher=basic",
        f"source.path={folder}",
        f"store={store}",
        "tracker=none",
        "seed=1",
        "budget=4",
        "model.spec.tokenizer=wordpiece",
        "model.spec.vocabulary_size=80",
        "model.pretraining.epochs=0",
        "pre_fine_tune.epochs=0",
        "fine_tune.epochs=1",
    ]


def test_a_missing_task_is_named_and_skipped_in_run_and_plan_and_table(folder, tmp_path, capsys):
    given = [*small(folder, tmp_path / "store"), "task=rct,imdb,helpfulness", "selector=none"]
    assert main(["plan", "experiment=domain", *given]) == 0
    planned = capsys.readouterr().out
    assert "2 cells: 0 done, 0 failed, 2 pending" in planned
    assert "skipped, not in the source: rct" in planned
    assert run("domain", given) == 0
    printed = capsys.readouterr().out
    assert "2 cells, 2 to run; skipped, not in the source: rct" in printed
    assert "2 cells done, 0 failed, 0 missing; skipped, not in the source: rct" in printed
    (table,) = (tmp_path / "store" / "reports").glob("*/tables/domain.md")
    text = table.read_text()
    assert "agnews (not in the data)" in text
    assert "rct, chemprot" in text
    assert ", 20 rows |" in text  # the size of the test sets' own noise


def test_a_folder_without_any_of_the_tasks_is_one_line(folder, tmp_path, capsys):
    given = [*small(folder, tmp_path / "store"), "task=rct,scierc", "selector=none"]
    assert run("domain", given) == 2
    error = capsys.readouterr().err
    assert "holds none of the tasks rct, scierc; it holds helpfulness, imdb" in error
    assert error.count("\n") == 1
