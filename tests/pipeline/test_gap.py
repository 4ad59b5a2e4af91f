"""A gap that is known, end to end: rows on disk, losses of both halves, one base for all draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from gotd.config.schemas import TaskLimits
from gotd.data.folder import Folder
from gotd.data.microworld.world import Microworld
from gotd.data.sampling import SPLIT_SEED
from gotd.data.tasks.halves import TargetOfHalves
from gotd.data.tasks.labelled import LabelledTask
from gotd.evaluation.loss_of_parts import LossOfParts
from gotd.evaluation.target_loss import TargetLossSettings, mask_positions
from gotd.pipeline.experiment import plan_cell, run_cell
from gotd.reporting.records import validate
from gotd.runs.expand import expand
from gotd.runs.sweep import run
from gotd.training.models import ModelSpec, build_model

SMALL = [
    "tracker=none",
    "hydra/launcher=basic",
    "seed=1",
    "budget=8",
    "rank_rows=8",
    "model.spec.layers=1",
    "model.spec.hidden_size=16",
    "model.spec.heads=2",
    "model.spec.feed_forward_size=32",
    "model.spec.max_length_tokens=48",
    "model.spec.vocabulary_size=300",
    "model.pretraining.max_length_tokens=48",
    "model.pretraining.epochs=1",
]
MIX = [
    "task=gap_math",
    "task.name=gap_biology",
    "task.missing=biology",
    "task.covered=films",
    "source.general=[films,news]",
    "source.rare=[biology]",
    "source.pretraining_chars=10000",
    "source.pool_chars=30000",
    "source.target_chars=1500",
    "source.evaluation_texts=20",
    "candidate_chunks.length_chars=60",
    "candidate_chunks.min_chars=30",
    "target_chunks.length_chars=60",
    "target_chunks.min_chars=30",
    "pre_fine_tune.epochs=1",
    "pre_fine_tune.max_length_tokens=48",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def configs(mix_folder, store):
    """Return a function that composes cells of the folder scale, small."""

    def compose(*overrides: str):
        where = [f"source.path={mix_folder}", f"store={store}"]
        given = ["experiment=gap/folder", *SMALL, *MIX, *where, *overrides]
        return [config for config, _ in expand(given)]

    return compose


def table(cell, kind: str, name: str):
    (step,) = [step for step in cell.record.ancestors() if step.kind == kind]
    return pq.read_table(cell.store.get(step) / name)


def plain_losses(model: Path, texts, settings: TargetLossSettings) -> dict[str, float]:
    """Compute the loss of each half by the library's own logits, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForMaskedLM.from_pretrained(model).eval()
    losses: dict[str, list[float]] = {}
    for row in texts.to_pylist():
        given = tokenizer(row["text"], truncation=True, max_length=48, return_tensors="pt")
        ids = given["input_ids"]
        free = np.flatnonzero(~np.isin(ids[0].numpy(), tokenizer.all_special_ids))
        (masked,) = mask_positions(row["id"], free, settings, SPLIT_SEED)
        changed = ids.clone()
        changed[0, masked] = tokenizer.mask_token_id
        with torch.no_grad():
            logits = network(input_ids=changed, attention_mask=given["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(
            logits[0, masked], ids[0, masked], reduction="none"
        )
        losses.setdefault(row["part"], []).extend(loss.tolist())
    return {part: float(np.mean(values)) for part, values in losses.items()}


def test_a_cell_leaves_the_halves_and_their_losses_on_disk(configs, mix_folder):
    (config,) = configs("selector=got_d")
    record, cell = run_cell(config), plan_cell(config)
    assert record["status"] == "done", record["error"]
    validate(record, "got_d")
    target, held_out = (table(cell, "halves", f"{name}.parquet") for name in ("train", "held_out"))
    assert held_out["part"].to_pylist() == ["covered"] * 20 + ["missing"] * 20
    of_half = {"covered": "films", "missing": "biology"}
    assert held_out["domain"].to_pylist() == [of_half[p] for p in held_out["part"].to_pylist()]
    assert target["domain"].to_pylist() == sorted(target["domain"].to_pylist(), reverse=True)
    written = {
        row["id"]: row["text"]
        for file in (mix_folder / "candidates").iterdir()
        for row in pq.read_table(file).to_pylist()
    }
    for rows in (target, held_out):
        for row in rows.to_pylist():
            assert written[row["id"]] == row["text"]
    for half in of_half.values():
        lengths = [len(row["text"]) for row in target.to_pylist() if row["domain"] == half]
        assert 1500 <= sum(lengths) < 1700
    chosen = table(cell, "selection", "selection.parquet")
    assert chosen.num_rows == 8
    documents = {name.rpartition("#")[0] for name in chosen["id"].to_pylist()}
    assert documents <= set(written)
    assert not documents & {*target["id"].to_pylist(), *held_out["id"].to_pylist()}

    folder = cell.store.get(cell.record.inputs["model"])
    losses = plain_losses(folder, held_out, TargetLossSettings())
    metrics = record["metrics"]
    assert set(losses) == {"covered", "missing"}
    for half, loss in losses.items():
        assert metrics[f"target_loss/{half}"] == pytest.approx(loss, abs=1e-5)
    assert metrics["headline"] == pytest.approx(np.mean([*losses.values()]), abs=1e-5)
    assert metrics["headline"] == metrics["target_loss/mean"]
    assert metrics["headline_higher_is_better"] is False
    assert metrics["target_loss_base/mean"] != metrics["target_loss/mean"]
    assert record["n_eval"] == 40
    assert record["data"]["overlap"]["target"]["biology"] < 1
    text = json.dumps(record)
    assert str(mix_folder) not in text
    assert "excerpt" not in text


def test_without_pre_fine_tuning_the_loss_is_that_of_the_base(configs):
    (config,) = configs("selector=none")
    metrics = run_cell(config)["metrics"]
    assert metrics["headline"] == metrics["target_loss_base/mean"]
    assert metrics["target_loss/missing"] == metrics["target_loss_base/missing"]


def base_keys(cells) -> set[str]:
    return {s.key for cell in cells for s in cell.record.ancestors() if s.kind == "base_model"}


def test_one_base_serves_all_draws_tasks_and_spaces(configs):
    cells = [
        plan_cell(config)
        for overrides in (
            ["selector=got_d,random", "seed=1,2,3", "task.missing=biology,news"],
            ["selector=got_d", "embedder=base_states,tfidf_svd"],
        )
        for config in configs(*overrides)
    ]
    assert len(base_keys(cells)) == 1
    assert len({cell.record.key for cell in cells}) == len(cells) - 1  # one is in both lists
    (other,) = configs("selector=got_d", "source.base_seed=1")
    (again,) = configs("selector=got_d", "model.seed=1")
    assert len(base_keys([plan_cell(other), plan_cell(again), *cells])) == 3


@pytest.mark.parametrize(
    ("arm", "share"),
    [
        ("quarter_oracle", 0.25),
        ("half_oracle", 0.5),
        ("three_quarters_oracle", 0.75),
        ("oracle", 1.0),
    ],
)
def test_true_mixes_follow_the_task(configs, arm, share):
    (config,) = configs(f"selector={arm}")
    record = run_cell(config)
    assert record["status"] == "done", record["error"]
    domains = record["selection"]["domains"]
    assert domains["biology"] == 8 * share
    assert domains.get("films", 0) == 8 * (1 - share)


def test_in_other_experiments_the_oracles_are_as_before():
    for arm, fill in (("oracle", []), ("half_oracle", ["common_0"])):
        ((config, _),) = expand(["experiment=glue", "task=cola", "seed=1", f"selector={arm}"])
        assert list(config.selector.method.domains) == ["rare_0"]
        assert list(config.selector.method.fill) == fill


def test_a_budget_beyond_a_domain_names_it_and_the_remedy(configs):
    (config,) = configs("selector=oracle", "budget=40", "rank_rows=40")
    record = run_cell(config)
    assert record["status"] == "failed"
    message = record["error"]["message"]
    assert "biology has" in message
    assert "lower the budget, name other domains or enlarge the pool" in message


def test_a_domain_that_the_folder_lacks_stops_the_sweep_in_one_line(configs, mix_folder, capsys):
    where = [f"source.path={mix_folder}", "store=unused"]
    given = ["scale=folder", *SMALL, *MIX, *where, "selector=none", "source.rare=[geology]"]
    assert run("gap", given) == 2
    error = capsys.readouterr().err
    assert "has no passages of the domain 'geology'; it has biology, films, news" in error
    assert error.count("\n") == 1
    (config,) = configs("selector=none", "task.missing=geology")
    record = run_cell(config)
    assert (
        "the mix has no domain 'geology'; it has films, news, biology" in record["error"]["message"]
    )


def test_the_loss_must_be_measured(configs):
    (config,) = configs("selector=none")
    config.target_loss = None
    assert "set target_loss=held_out" in run_cell(config)["error"]["message"]


def test_a_labelled_task_has_no_halves(tmp_path):
    """Its texts have no parts, so a mean of parts is refused instead of being another number."""
    task = LabelledTask("t", ("text",), "class", 2, ("accuracy",), "accuracy", {"test": "test"})
    losses = pa.table({"id": ["a"], "loss": [1.0], "tokens": [1], "part": pa.nulls(1, pa.string())})
    pq.write_table(losses, tmp_path / "losses.parquet")
    folders = dict.fromkeys(("target_loss", "target_loss_base"), tmp_path)
    with pytest.raises(ValueError, match="texts with parts; task t measured target_loss"):
        LossOfParts().results(folders, task)


def test_halves_must_differ_and_come_from_a_known_mix(tmp_path):
    with pytest.raises(ValueError, match="covered and missing are both 'films'"):
        TargetOfHalves("gap", missing="films", covered="films")
    task = TargetOfHalves("gap", missing="films")
    with pytest.raises(ValueError, match="task gap needs a source of a known mix, not folder"):
        task.key_fields(Folder(str(tmp_path)), TaskLimits(), "clean", 0)
    with pytest.raises(
        FileNotFoundError, match="no domain 'movie_reviews' in this world; choose from"
    ):
        task.tables(Microworld(), TaskLimits(), "clean", 0)


# The other scales -----------------------------------------------------------------------


def test_the_generated_benchmark_runs_small(tmp_path):
    world = [
        "experiment=gap/micro",
        f"store={tmp_path}",
        *(part for part in SMALL if "vocabulary" not in part),
        "task=gap_micro",
        "selector=none,got_d,half_oracle",
        "source.pretraining_documents=100",
        "source.candidate_documents=800",
        "source.rare_share=0.05",
        "source.labels=40",
        "source.evaluation_rows=30",
        "pre_fine_tune.epochs=1",
        "pre_fine_tune.max_length_tokens=48",
    ]
    for config, variant in expand(world):
        record = run_cell(config, variant)
        assert record["status"] == "done", record["error"]
        assert record["n_eval"] == 30
        assert {"target_loss/covered", "target_loss/missing"} <= record["metrics"].keys()
    cell = plan_cell(config)
    held_out = table(cell, "halves", "held_out.parquet")
    assert set(held_out["domain"].to_pylist()) == {"common_0", "rare_0"}
    assert not set(held_out["text"].to_pylist()) & set(
        table(cell, "halves", "train.parquet")["text"].to_pylist()
    )


def test_the_setting_of_bert_base_runs_small(mix_folder, tmp_path):
    spec = ModelSpec(
        tokenizer="wordpiece", vocabulary_size=300, hidden_size=16, heads=2, feed_forward_size=32
    )
    texts = [
        row["text"] for row in pq.read_table(mix_folder / "candidates/common.parquet").to_pylist()
    ]
    build_model(spec, texts, 0, tmp_path / "bert")
    small = [
        "experiment=gap/paper",
        f"source.path={mix_folder}",
        f"store={tmp_path}",
        *SMALL[:5],
        *MIX,
        f"model.spec.pretrained={tmp_path / 'bert'}",
        "selector=got_d",
    ]
    ((config, _),) = expand(small)
    record = run_cell(config)
    assert record["status"] == "done", record["error"]
    assert record["metrics"]["headline"] != record["metrics"]["target_loss_base/mean"]
