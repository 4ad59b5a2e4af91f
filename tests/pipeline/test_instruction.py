"""Instruction tuning end to end: pairs of the selection, measured responses, resumed runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from instruction_rows import CHOICE_ROWS
from transformers import AutoModelForCausalLM, AutoTokenizer

from gotd.pipeline.experiment import plan_cell, run_cell
from gotd.pipeline.steps.instructions import pairs_of
from gotd.reporting.records import validate
from gotd.runs.expand import expand

SMALL = [
    "tracker=none",
    "seed=1",
    "model.spec.layers=1",
    "model.spec.hidden_size=16",
    "model.spec.heads=2",
    "model.spec.feed_forward_size=32",
    "model.pretraining.epochs=1",
    "pre_fine_tune.epochs=1",
    "evaluation.max_new_tokens=4",
]
TINY = [
    "experiment=instruction/micro",
    *SMALL,
    "task=skills",
    "source.pretraining_documents=40",
    "source.pool_rows=400",
    "source.examples=9",
    "source.evaluation_rows=18",
    "budget=20",
    "rank_rows=50",
]
ARMS = ("none", "full_pool", "tsds")
MORE = ("random", "bm25", "rds_plus", "less", "tsds_kde", "got_d", "got_d_path")


def cells(store: Path, *overrides: str):
    return [config for config, _ in expand([*TINY, f"store={store}", *overrides])]


def without_cost(record: dict) -> str:
    return json.dumps({k: v for k, v in record.items() if k != "cost"}, sort_keys=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def records(store) -> dict[str, dict]:
    found = [run_cell(config) for config in cells(store, f"selector={','.join(ARMS)}")]
    return {record["axes"]["arm"]: record for record in found}


def folder_of(cell, kind: str) -> Path:
    (step,) = [step for step in cell.record.ancestors() if step.kind == kind]
    return cell.store.get(step)


def test_every_arm_ends_in_a_valid_record(records):
    for arm, record in records.items():
        assert record["status"] == "done", (arm, record["error"])
        validate(record, arm)
        metrics = record["metrics"]
        assert metrics["headline"] == metrics["response_loss"]
        assert metrics["headline_higher_is_better"] is False
        assert {"exact_match", "token_f1", "rouge_l", "choice_accuracy"} <= set(metrics)
        parts = [name for name in metrics if name.startswith("response_loss/")]
        assert len(parts) == 3
        assert record["n_eval"] == 18
    assert len({record["metrics"]["headline"] for record in records.values()}) == len(ARMS)


@pytest.mark.slow
def test_the_other_arms_end_in_a_valid_record(store):
    for config in cells(store, f"selector={','.join(MORE)}"):
        record = run_cell(config)
        assert record["status"] == "done", (config.selector.arm, record["error"])
        validate(record)


def test_budgets_are_thousandths_of_the_pool(records, store):
    for arm, record in records.items():
        if arm == "tsds":
            assert record["axes"]["budget"] == 20
            assert record["axes"]["budget_unit"] == "permille"
            assert record["selection"]["rows"] == 8
    assert records["full_pool"]["axes"]["budget"] is None
    assert records["full_pool"]["selection"]["rows"] == 400
    (rows,) = cells(store, "selector=tsds", "budget=8", "rank_rows=20", "budget_unit=rows")
    (thousandths,) = cells(store, "selector=tsds")
    selections = [plan_cell(config).record.inputs["selection"] for config in (rows, thousandths)]
    assert selections[0].key == selections[1].key
    with pytest.raises(ValueError, match="1001 thousandths is more than the pool"):
        plan_cell(cells(store, "selector=random", "budget=1001", "rank_rows=1001")[0])


@pytest.mark.slow
def test_a_budget_in_tokens_counts_prompts_and_responses(store):
    (tokens,) = cells(store, "selector=random", "budget=90", "rank_rows=30", "budget_unit=tokens")
    record = run_cell(tokens)
    assert record["status"] == "done", record["error"]
    assert 90 <= record["selection"]["tokens"] < 120


def test_a_model_learns_the_pairs_of_the_selected_rows(records, store):
    (config,) = cells(store, "selector=tsds")
    cell = plan_cell(config)
    chosen = pq.read_table(folder_of(cell, "selection") / "selection.parquet")
    pool = pq.read_table(folder_of(cell, "instructions") / "instructions.parquet")
    pairs = pairs_of(chosen, [pool])
    assert [f"{prompt}\n\n{answer}" for prompt, answer in pairs] == chosen["text"].to_pylist()
    report = json.loads((folder_of(cell, "pre_fine_tuned") / "report.json").read_text("utf-8"))
    # Words of the responses, and the end of each.
    assert report["response_tokens"] == sum(len(answer.split()) + 1 for _, answer in pairs)


def plain_losses(model: Path, rows: list[dict]) -> dict[str, tuple[float, int]]:
    """Sum the losses of responses by part, by the library's own loss, one row at a time."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model).eval()
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        first = [tokenizer.bos_token_id, *tokenizer(row["prompt"])["input_ids"]]
        rest = [*tokenizer(row["response"])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            labels = torch.tensor([[-100] * len(first) + rest])
            loss = float(network(torch.tensor([first + rest]), labels=labels).loss)
        total, count = sums.get(row["part"], (0.0, 0))
        sums[row["part"]] = total + loss * len(rest), count + len(rest)
    return sums


def test_losses_are_those_of_plain_transformers(records, store):
    (config,) = cells(store, "selector=tsds")
    cell = plan_cell(config)
    rows = pq.read_table(folder_of(cell, "instruction_rows") / "reported.parquet").to_pylist()
    sums = plain_losses(cell.store.get(cell.record.inputs["model"]), rows)
    metrics = records["tsds"]["metrics"]
    for part, (total, count) in sums.items():
        assert metrics[f"response_loss/{part}"] == pytest.approx(total / count, abs=1e-5)
    mean = sum(total for total, _ in sums.values()) / sum(count for _, count in sums.values())
    assert metrics["response_loss"] == pytest.approx(mean, abs=1e-5)


def test_a_finished_cell_is_not_run_again(records, store):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")}
    (config,) = cells(store, "selector=tsds")
    assert without_cost(run_cell(config)) == without_cost(records["tsds"])
    assert {path: path.stat().st_mtime_ns for path in store.rglob("manifest.json")} == before


def test_ids_without_a_pair_are_named():
    pool = pa.table({"id": ["a", "b"], "prompt": ["p", "q"], "response": ["r", "s"]})
    assert pairs_of(pa.table({"id": ["b", "a", "b"]}), [pool])[0] == ("q", "s")
    with pytest.raises(ValueError, match=r"row 'b#0' .*chunks\.unit"):
        pairs_of(pa.table({"id": ["b#0"]}), [pool])


def test_other_sources_and_tasks_are_refused(tmp_path):
    (config,) = [
        c for c, _ in expand(["experiment=glue", "task=cola", "seed=1", "selector=random"])
    ]
    ((other, _),) = expand([*TINY, f"store={tmp_path}", "selector=random"])
    config.pre_fine_tune = other.pre_fine_tune
    with pytest.raises(ValueError, match="does not have; use source=instructions"):
        plan_cell(config)
    other.source = config.source
    with pytest.raises(ValueError, match="needs a source of instruction rows, not microworld"):
        plan_cell(other)


RUN = """
import os, signal, sys
from gotd.evaluation import ranges
from gotd.pipeline.experiment import run_cell
from gotd.runs.expand import expand
from gotd.training.trainer import StepModule
one, after = ranges._range, StepModule.after_update
ranges.ROWS_PER_RANGE = 8
kill = sys.argv[1]

def range_or_kill(rows, start, evaluate, work):
    if start == 8 and kill in work.parts:
        os.kill(os.getpid(), signal.SIGKILL)
    return one(rows, start, evaluate, work)

def step_or_kill(self, step):
    after(self, step)
    if step == 2 and kill in self.work.parts:
        os.kill(os.getpid(), signal.SIGKILL)

ranges._range, StepModule.after_update = range_or_kill, step_or_kill
((config, _),) = expand(sys.argv[2:])
sys.exit(run_cell(config)["status"] != "done")
"""


@pytest.mark.slow
def test_killed_in_training_and_measuring_it_ends_in_the_same_record(tmp_path):
    given = [*TINY, "selector=tsds", "budget=100", "rank_rows=100"]
    given += ["pre_fine_tune.checkpoint_every_steps=1"]
    found = []
    for name, kinds in (("whole", []), ("killed", ["pre_fine_tuned", "responses"])):
        overrides = [*given, f"store={tmp_path / name}"]
        for kind in [*kinds, "nothing"]:
            command = [sys.executable, "-c", RUN, kind, *overrides]
            done = subprocess.run(command, env=os.environ, capture_output=True, check=False)
            expected = 0 if kind == "nothing" else -signal.SIGKILL
            assert done.returncode == expected, done.stderr.decode()[-2000:]
        ((config, _),) = expand(overrides)
        found.append(without_cost(plan_cell(config).outcome()))
    assert found[0] == found[1]
    assert not list((tmp_path / "killed").glob("*/*.part"))


# Real rows ------------------------------------------------------------------------------


@pytest.fixture
def rows_folder(tmp_path) -> Path:
    def write(name: str, rows: list[dict]) -> None:
        path = tmp_path / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)

    asked = [f"How many legs have {n} birds?" for n in range(60)]
    pool = [
        {"id": f"p{n}", "prompt": asked[n], "response": f"They have {2 * n}.", "source": "zoo"}
        for n in range(60)
    ]
    write("instruction/pool/train-a", pool[:40])
    write("instruction/pool/train-b", pool[40:])
    texts = [f"A text about {n} birds with legs, wings and a beak." for n in range(300)]
    write("candidates/birds", [{"id": f"c{n}", "text": text} for n, text in enumerate(texts)])
    answered = [
        {"id": f"e{n}", "task": "legs", "prompt": f"Legs of {n} cats?", "response": f"#### {4 * n}"}
        for n in range(12)
    ]
    write("instruction/targets/gsm8k/examples", answered[:6])
    write(
        "instruction/targets/gsm8k/test", [{**r, "answer": r["response"][5:]} for r in answered[6:]]
    )
    write("instruction/targets/mmlu/examples", CHOICE_ROWS[:4])
    write("instruction/targets/mmlu/test", CHOICE_ROWS[4:])
    return tmp_path / "data"


FOLDER = [
    "experiment=instruction/folder",
    *SMALL,
    "selector=none,tsds_kde",
    "source.passages=null",
    "model.spec.vocabulary_size=400",
    "model.spec.max_length_tokens=64",
    "model.pretraining.max_length_tokens=32",
    "model.pretraining.max_steps=2",
    "pre_fine_tune.max_length_tokens=48",
    "pre_fine_tune.max_steps=2",
    "budget=100",
    "rank_rows=100",
]


@pytest.mark.slow
def test_rows_of_a_folder_are_selected_and_answered(rows_folder, tmp_path):
    given = [*FOLDER, f"source.path={rows_folder}", f"store={tmp_path / 'store'}"]
    found = {}
    for config, variant in expand([*given, "task=gsm8k,mmlu"]):
        record = run_cell(config, variant)
        assert record["status"] == "done", record["error"]
        validate(record)
        assert str(rows_folder) not in json.dumps(record)
        found[config.task.name, config.selector.arm] = record
    assert found["gsm8k", "tsds_kde"]["selection"]["rows"] == 6
    assert "choice_accuracy" not in found["gsm8k", "none"]["metrics"]
    assert "choice_accuracy" in found["mmlu", "none"]["metrics"]


@pytest.mark.slow
def test_the_setting_of_hub_models_runs_small(rows_folder, tmp_path):
    from gotd.training.causal_models import CausalSpec
    from gotd.training.models import build_model

    spec = CausalSpec(
        architecture="gpt_neo",
        vocabulary_size=400,
        hidden_size=16,
        heads=2,
        feed_forward_size=32,
        max_length_tokens=64,
    )
    build_model(spec, ["How many legs have birds?"], 0, tmp_path / "model")
    given = [
        "experiment=instruction/paper",
        "tracker=none",
        "seed=11",
        f"source.path={rows_folder}",
        f"store={tmp_path / 'store'}",
        f"model.spec.pretrained={tmp_path / 'model'}",
        "task=mmlu",
        "selector=less",
        "embedder.warm_up_rows=8",
        "pre_fine_tune.max_length_tokens=48",
        "pre_fine_tune.epochs=1",
        "evaluation.max_new_tokens=4",
        "budget=100",
        "rank_rows=100",
    ]
    ((config, _),) = expand(given)
    record = run_cell(config)
    assert record["status"] == "done", record["error"]
    assert record["axes"]["tuning"] == "lora"


def test_a_selected_row_without_a_response_is_named():
    pairs = pa.table({"id": ["a", "b"], "prompt": ["p", "q"], "response": ["r", "s"]})
    chosen = pa.table({"id": ["b", "a", "b"]})
    assert pairs_of(chosen, [pairs.slice(0, 1), pairs.slice(1)]) == [
        ("q", "s"),
        ("p", "r"),
        ("q", "s"),
    ]
    with pytest.raises(ValueError, match="row 'a#1' of the selection has no prompt"):
        pairs_of(pa.table({"id": ["b", "a#1"]}), [pairs])
