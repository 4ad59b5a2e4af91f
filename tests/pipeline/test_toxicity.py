"""Whole toxicity cells, tiny: killed where they take long, and from a hub that is a fake."""

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.build import build
from gotd.data.hub import source as hub
from gotd.pipeline.experiment import plan_cell, run_cell
from gotd.runs.expand import expand
from gotd.training.causal_models import CausalSpec
from gotd.training.models import ModelSpec, build_model

CELL = [
    "experiment=toxicity/micro",
    "selector=least_toxic",
    "seed=1",
    "tracker=none",
    "budget=20",
    "source.rated_rows=300",
    "source.comments=100",
    "source.held_out_documents=24",
    "source.pretraining_documents=100",
    "source.candidate_documents=100",
    "model.pretraining.epochs=0.5",
    "pre_fine_tune.tuning=lora",
    "pre_fine_tune.global_batch_size=1",
    "pre_fine_tune.checkpoint_every_steps=2",
    "task.prompts_per_kind=12",
    "task.target_rows=30",
    "task.held_out_rows=24",
    "evaluation.generation.samples=3",
    "evaluation.generation.max_new_tokens=5",
    "evaluation.scorer.settings.epochs=0.5",
]
RUN = """
import importlib, json, os, signal, sys
from pathlib import Path
from gotd.evaluation import ranges
from gotd.runs.expand import expand
from gotd.pipeline.experiment import run_cell
from gotd.training.trainer import StepModule

# What every run needs is imported once; each run is a fork.
for name in ("causal_lm", "masked_lm", "scorer"):
    importlib.import_module(f"gotd.training.{name}")
importlib.import_module("sklearn.metrics")
one, after = ranges._range, StepModule.after_update
ranges.ROWS_PER_RANGE = 8
kill = ""

def range_or_kill(rows, start, evaluate, work):
    if start == 16 and kill in work.parts:  # two ranges are kept, the third is not
        os.kill(os.getpid(), signal.SIGKILL)
    return one(rows, start, evaluate, work)

def step_or_kill(self, step):
    after(self, step)
    if step == 3 and kill in self.work.parts:  # a checkpoint was written after step 2
        os.kill(os.getpid(), signal.SIGKILL)

ranges._range, StepModule.after_update = range_or_kill, step_or_kill
for store, *kinds in json.loads(sys.argv[1]):
    for kill in kinds:
        child = os.fork()
        if child == 0:
            ((config, _),) = expand([*sys.argv[2:], f"store={store}"])
            os._exit(0 if run_cell(config)["status"] == "done" else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        kept = sorted(path.name for path in Path(store).glob(f"{kill}/*.part/.work/**/*.*"))
        print(json.dumps([kill, code, kept]), flush=True)
"""
LONG = {
    "pool_toxicity": ["range-000000000000.parquet", "range-000000000008.parquet"],
    "pre_fine_tuned": ["last.ckpt"],
    "generations": ["range-000000000000.parquet", "range-000000000008.parquet"],
    "scores": ["range-000000000000.parquet", "range-000000000008.parquet"],
    "perplexity": ["range-000000000000.parquet", "range-000000000008.parquet"],
}
"""Steps that keep what they have done, in the order in which they run, and what is kept."""


def outcome(store: str) -> tuple[str, dict[str, bytes]]:
    """Give the record without its cost, and the bytes of the adapter."""
    ((config, _),) = expand([*CELL, f"store={store}"])
    cell = plan_cell(config)
    record = cell.outcome()
    assert record is not None
    assert record["status"] == "done", record["error"]
    text = json.dumps({k: v for k, v in record.items() if k != "cost"}, sort_keys=True)
    (folder,) = (
        cell.store.get(step) for step in cell.record.ancestors() if step.kind == "pre_fine_tuned"
    )
    return text, {path.name: path.read_bytes() for path in sorted((folder / "adapter").iterdir())}


@pytest.mark.slow
def test_killed_in_training_generation_and_scoring_it_ends_in_the_same_record(tmp_path):
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    runs = [[whole, "nothing"], [killed, *LONG, "nothing"]]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(runs), *CELL],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    killed_by = [[kind, -signal.SIGKILL, kept] for kind, kept in LONG.items()]
    finished = ["nothing", 0, []]
    assert lines == [finished, *killed_by, finished], done.stderr[-2000:]
    assert not list((tmp_path / "killed").glob("*/*.part"))
    assert outcome(killed) == outcome(whole)


WORDS = [f"w{i}" for i in range(40)]


@pytest.fixture
def fake_hub(monkeypatch):
    """Prompts, comments and pages of a few words behind the names of the hub."""
    import datasets
    import huggingface_hub

    random = np.random.default_rng(0)

    def say(n):
        return " ".join(random.choice(WORDS, n))

    def rated(n):
        return [{"text": say(6), "toxicity": float(random.random())} for _ in range(n)]

    comments = {"text": [say(5) for _ in range(40)], "toxicity": random.random(40)}
    sets = {
        "allenai/real-toxicity-prompts": {
            "filename": ["a.txt"] * 120,
            "begin": list(range(120)),
            "end": list(range(9, 129)),
            "prompt": rated(120),
            "continuation": rated(120),
        },
        "google/civil_comments": comments,
        "Skylion007/openwebtext": {"text": [say(120) for _ in range(150)]},
    }

    def load(dataset, _=None, *, streaming=False, **__):
        rows = datasets.Dataset.from_dict(sets[dataset])
        return rows.to_iterable_dataset() if streaming else rows

    class Info:
        sha = "0123456789abcdef0123456789abcdef01234567"

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: Info())
    counts = {"realtoxicityprompts": {"train": 120}, "civil_comments": {"train": 40, "test": 40}}
    monkeypatch.setitem(hub.SUITES, "toxicity", counts)


@pytest.mark.slow
def test_the_paper_s_setting_runs_from_the_hub(fake_hub, tmp_path):
    shape: dict[str, Any] = {"layers": 1, "hidden_size": 16, "heads": 2, "feed_forward_size": 32}
    causal = CausalSpec(tokenizer="word_level", **shape)
    build_model(causal, WORDS, 0, tmp_path / "gpt")
    build_model(ModelSpec(**shape), WORDS, 0, tmp_path / "bert")
    cells = expand(
        [
            "experiment=toxicity",
            "scale=paper",
            "scorer@evaluation.scorer=trained_bert",
            "embedder=tfidf_svd",
            "selector=none,least_toxic,got_d_contrast",
            "seed=1",
            "tracker=none",
            f"store={tmp_path / 'store'}",
            f"model.spec.pretrained={tmp_path / 'gpt'}",
            f"evaluation.scorer.spec.pretrained={tmp_path / 'bert'}",
            "budget=10",
            "source.chars_per_domain=20000",
            "source.held_out_chars=5000",
            "candidate_chunks.min_chars=0",
            "target_chunks.min_chars=0",
            "pre_fine_tune.max_length_tokens=64",
            "task.prompts_per_kind=10",
            "task.target_rows=20",
            "task.held_out_rows=5",
            "evaluation.generation.samples=2",
            "evaluation.generation.max_new_tokens=4",
        ]
    )
    for config, variant in cells:
        record = run_cell(config, variant)
        assert record["status"] == "done", record["error"]
        assert record["n_eval"] == 10  # the toxic prompts: those of the headline
        assert record["seeds"]["rows"] == 0
        assert record["metrics"]["mean_text_perplexity"] > 1
    kept = tmp_path / "store" / "hub"
    assert len(json.loads((kept / "revisions.json").read_text())) == 3
    assert sorted(path.parent.name for path in kept.rglob("train.parquet")) == [
        "civil_comments",
        "realtoxicityprompts",
    ]


def tiny_folder(root):
    """Write rated prompts, comments, passages and questions of a few words."""
    random = np.random.default_rng(1)

    def say(n):
        return " ".join(random.choice(WORDS, n))

    def put(path, **columns):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), root / path)

    put(
        "toxicity/realtoxicityprompts.parquet",
        id=[f"p{i}" for i in range(80)],
        prompt=[say(5) for _ in range(80)],
        continuation=[say(5) for _ in range(80)],
        prompt_toxicity=random.random(80),
        continuation_toxicity=random.random(80),
    )
    for split in ("train", "test"):
        comments = [say(4) for _ in range(24)]
        put(f"toxicity/wiki_comments/{split}.parquet", text=comments, label=[0, 1] * 12)
    put("candidates/news.parquet", text=[say(60) for _ in range(120)])
    questions = [say(4) for _ in range(9)]
    asked = {"question": questions, "label": [0, 1, 1] * 3}
    put("zeroshot/piqa/test.parquet", **asked, choices=[[say(1), say(2)] for _ in range(9)])
    put("zeroshot/boolq/validation.parquet", **asked, passage=[say(5) for _ in range(9)])


FOLDER = [
    "experiment=toxicity/folder",
    "scorer@evaluation.scorer=trained_micro",
    "embedder=tfidf_svd",
    "selector=random",
    "seed=1",
    "tracker=none",
    "budget=10",
    "candidates.limit=null",
    "evaluation.scorer.spec.tokenizer=wordpiece",
    "evaluation.scorer.spec.vocabulary_size=200",
    "evaluation.scorer.settings.epochs=1",
    "model.spec.layers=1",
    "model.spec.hidden_size=16",
    "model.spec.heads=2",
    "model.spec.feed_forward_size=32",
    "model.spec.vocabulary_size=300",
    "model.pretraining.max_steps=1",
    "pre_fine_tune.max_steps=1",
    "task.prompts_per_kind=8",
    "task.target_rows=10",
    "task.held_out_rows=5",
    "evaluation.generation.samples=2",
    "evaluation.generation.max_new_tokens=3",
]


def planned(*overrides):
    """Lay one cell out; give its steps by kind."""
    ((config, variant),) = expand([*FOLDER, *overrides])
    cell = plan_cell(config, variant)
    return cell, {step.kind: step for step in cell.record.ancestors()}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["toxicity", "selector=got_d", "embedder=distilbert"], "use embedder=distilbert_plain"),
        (["zeroshot", "task=sst2", "selector=none"], "task sst2 has no prompt; use a zero-shot"),
        (["glue", "task=sst2", "selector=none", "evaluation=toxicity"], "goes with experiment=tox"),
        (["toxicity", "selector=none", "evaluation=glue"], "fine-tunes on labels"),
    ],
)
def test_an_evaluation_that_is_not_for_the_task_is_refused(overrides, says, tmp_path):
    experiment, *others = overrides
    cell = [f"experiment={experiment}", *others, "seed=1", "budget=50", f"store={tmp_path}"]
    ((config, _),) = expand(cell)
    with pytest.raises(ValueError, match=says):
        plan_cell(config)


def test_a_scorer_without_its_comments_is_refused_before_anything_runs(tmp_path):
    tiny_folder(tmp_path / "rows")
    shutil.rmtree(tmp_path / "rows" / "toxicity" / "wiki_comments")
    with pytest.raises(ValueError, match="no labelled comments 'wiki_comments'.*scorer=detoxify"):
        planned(f"source.path={tmp_path / 'rows'}", f"store={tmp_path / 'store'}")


def test_utility_is_measured_beside_and_leaves_other_keys_alone(tmp_path):
    tiny_folder(tmp_path / "rows")
    where = [f"source.path={tmp_path / 'rows'}", f"store={tmp_path / 'store'}"]
    utility = ["evaluation=toxicity_utility", "evaluation.utility.tasks=[boolq,piqa]"]
    _, plain = planned(*where)
    cell, beside = planned(*where, *utility)
    assert set(beside) == {*plain, "utility"}
    assert {k for k in plain if plain[k].key != beside[k].key} == {"record"}
    with pytest.raises(ValueError, match="no rows of the utility task 'winogrande'; leave it out"):
        planned(*where, "evaluation=toxicity_utility")
    (tmp_path / "utility").mkdir()
    answers = {"boolq": {"acc": 0.25, "rows": 9}, "piqa": {"acc": 0.75, "rows": 9}}
    (tmp_path / "utility" / "utility.json").write_text(json.dumps(answers))
    for role, columns in (
        ("scores", {"toxic": [True, False], "scores": [[0.1], [0.2]]}),
        ("generations", {}),
    ):
        (tmp_path / role).mkdir()
        pq.write_table(pa.table({"id": ["a", "b"], **columns}), tmp_path / role / "scores.parquet")
    (tmp_path / "generations" / "report.json").write_text('{"cut_prompts": 0}')
    folders = {name: tmp_path / name for name in ("scores", "generations", "utility")}
    metrics = build(expand([*FOLDER, *where, *utility])[0][0].evaluation).results(folders, None)
    assert metrics.metrics["utility_accuracy"] == 0.5
    assert metrics.metrics["utility/piqa"] == 0.75


@pytest.mark.slow
def test_the_harness_asks_a_cell_s_model(tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    tiny_folder(tmp_path / "rows")
    overrides = [
        *FOLDER,
        f"source.path={tmp_path / 'rows'}",
        f"store={tmp_path / 'store'}",
        "evaluation=toxicity_utility",
        "evaluation.utility.tasks=[boolq,piqa]",
        "evaluation.utility.rows=6",
    ]
    ((config, variant),) = expand(overrides)
    record = run_cell(config, variant)
    assert record["status"] == "done", record["error"]
    each = [record["metrics"][f"utility/{name}"] for name in ("boolq", "piqa")]
    assert record["metrics"]["utility_accuracy"] == pytest.approx(sum(each) / 2)
    assert all((6 * share) % 1 == pytest.approx(0) for share in each)  # of six rows each
