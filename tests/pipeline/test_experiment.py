"""The whole protocol on a tiny generated world: runs, resumes, and refuses bad input."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.plugins import Plugins
from tokenizers.models import WordPiece
from transformers import AutoTokenizer

from gotd.config.build import build
from gotd.data.base import read_all
from gotd.data.pool import shard_files
from gotd.pipeline.experiment import plan_cell, run_cell
from gotd.pipeline.ranked_pool import SELECTED, scores_file
from gotd.pipeline.record import write_cost
from gotd.pipeline.steps import models as model_steps
from gotd.reporting.records import validate
from gotd.runs.expand import expand
from gotd.runs.sweep import run
from gotd.storage.errors import StoreError
from gotd.storage.memmap import open_array

TINY = [
    "experiment=glue",
    "scale=micro",
    "task=cola",
    "seed=1",
    "tracker=none",
    "budget=20",
    "source.pretraining_documents=150",
    "source.candidate_documents=800",
    "source.rare_share=0.1",
    "source.labels=40",
    "source.evaluation_rows=32",
    "limits.validation_rows=8",
    "model.pretraining.epochs=0.5",
    "pre_fine_tune.epochs=1",
    "fine_tune.epochs=1",
]
ARMS = (
    "none",
    "random",
    "random_in_domain",
    "nearest",
    "dsir",
    "curated_tapt",
    "curated_tapt_duplicates",
    "got_d",
    "got_d_contrast",
    "tsds",
    "half_oracle",
    "oracle",
)


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


def test_every_arm_ends_in_a_valid_record(records):
    assert set(records) == set(ARMS)
    for arm, record in records.items():
        assert record["status"] == "done", (arm, record["error"])
        validate(record, arm)


def test_selections_have_the_budget_and_know_their_domains(records):
    for arm, record in records.items():
        chosen = record["selection"]
        if arm == "none":
            assert chosen is None
            continue
        assert chosen["rows"] == 20
        assert sum(chosen["domains"].values()) == 20
        assert chosen["pool_rows"]["candidates"] == 800
    assert set(records["oracle"]["selection"]["flags"]) == {"one domain"}
    assert records["random"]["selection"]["flags"] == {}
    assert records["oracle"]["selection"]["under_covered_share"] == 1.0
    assert records["half_oracle"]["selection"]["under_covered_share"] == 0.5
    assert records["curated_tapt"]["selection"]["distinct_rows"] == 20


def rows_of(pool: Path) -> dict[str, tuple[str, str]]:
    """Return text and domain of each row of a pool by id."""
    tables = [pa.ipc.open_file(path).read_all() for path, _ in shard_files(pool)]
    rows = [row for table in tables for row in table.to_pylist()]
    return {row["id"]: (row["text"], row["domain"]) for row in rows}


@pytest.mark.parametrize("arm", ["got_d", "nearest", "random", "dsir"])
def test_the_files_of_a_cell_hold_the_rows_of_the_source(records, store, arm):
    """Selected rows are the best of the scores, with their own text; targets are train rows."""
    (config,) = cells(store, f"selector={arm}")
    cell = plan_cell(config)
    assert records[arm]["status"] == "done"
    selection = cell.record.inputs["selection"]
    given = {role: cell.store.get(step) for role, step in selection.inputs.items()}
    candidates, source = rows_of(given["candidates"]), build(config.source)
    chosen = pq.read_table(cell.store.get(selection) / "selection.parquet").to_pylist()
    assert len(chosen) == 20
    for row in chosen:
        assert candidates[row["id"]] == (row["text"], row["domain"])
    documents = {row["id"]: row for row in read_all(source.candidates()).to_pylist()}
    for name, (text, domain) in candidates.items():
        document = documents.get(name) or documents[name.rpartition("#")[0]]
        assert text in document["text"]
        assert domain == document["domain"]
    if selection.inputs["scored"].kind == "pool_scores":
        ids, scores = [*candidates], []
        for number, _ in enumerate(shard_files(given["candidates"])):
            scores += open_array(given["scored"] / scores_file(number)).tolist()
        best = sorted(range(len(ids)), key=lambda row: (scores[row], ids[row]))[:20]
        assert [row["id"] for row in chosen] == [ids[row] for row in best]
    else:
        ranking = pq.read_table(given["scored"] / "ranking.parquet")["id"].to_pylist()
        assert [row["id"] for row in chosen] == ranking[:20]


def test_the_files_of_a_task_keep_its_splits_apart(records, store):
    """The target is made of train rows; what is reported is in no other split."""
    (config,) = cells(store, "selector=got_d")
    cell = plan_cell(config)
    (rows,) = [step for step in cell.record.ancestors() if step.kind == "task"]
    tables = {
        path.stem: pq.read_table(path)["id"].to_pylist()
        for path in cell.store.get(rows).glob("*.parquet")
    }
    assert {"train", "validation"} < set(tables)
    every = [one for ids in tables.values() for one in ids]
    assert len(every) == len(set(every))
    target = rows_of(cell.store.get(cell.record.inputs["selection"].inputs["target"]))
    assert target
    assert {name.partition("#")[0] for name in target} <= {*tables["train"]}


def test_the_warm_up_reads_every_selected_text_in_order(records, store, tmp_path, monkeypatch):
    (config,) = cells(store, "selector=got_d")
    cell = plan_cell(config)
    model = cell.record.inputs["model"]
    given = {role: cell.store.get(step) for role, step in model.inputs.items()}
    read = []
    monkeypatch.setattr(model_steps, "_train", lambda _, texts, *__: read.append(texts) or {})
    model.build(tmp_path, given)
    wanted = pq.read_table(given["selection"] / "selection.parquet")["text"].to_pylist()
    assert read == [wanted]
    assert len(wanted) == 20


def test_a_causal_base_reads_no_text_that_is_held_out(tmp_path, monkeypatch):
    overrides = ["experiment=toxicity", "scale=micro", "selector=none", "seed=1", "tracker=none"]
    overrides += [f"store={tmp_path / 'store'}", "source.pretraining_documents=60"]
    config, _ = expand(overrides)[0]
    source = build(config.source)
    steps = plan_cell(config).record.ancestors()
    (base,) = [one for one in steps if one.kind == "base_model"]
    every = read_all(source.pretraining())
    # This source holds other texts out; let them be a part of what is read.
    part = SimpleNamespace(pieces=lambda: iter([every.slice(0, 20)]))
    monkeypatch.setattr(type(source), "held_out", lambda _: [part])
    read = []
    monkeypatch.setattr(model_steps, "_train", lambda _, texts, *__: read.append(texts) or {})
    base.build(tmp_path, {})
    assert every.num_rows == 60
    assert read == [every["text"].to_pylist()[20:]]


def test_every_record_has_the_loss_on_held_out_texts(records, store):
    """The arm without pre-fine-tuning has the base's loss; all masks are the same."""
    for arm, record in records.items():
        metrics = record["metrics"]
        assert (metrics["target_loss"] == metrics["target_loss_base"]) == (arm == "none")
        parts = {name for name in metrics if name.startswith("target_loss/")}
        assert parts == {"target_loss/common_0", "target_loss/rare_0"}
    assert len({record["metrics"]["target_loss_base"] for record in records.values()}) == 1
    counts = [
        pq.read_table(path)["tokens"].to_pylist()
        for path in store.glob("target_loss/*/losses.parquet")
    ]
    assert len(counts) == len(ARMS)
    assert all(count == counts[0] for count in counts)


def test_without_the_target_loss_nothing_else_changes(records, store):
    """Its steps hang on the record alone, so what was built is found."""
    (config,) = cells(store, "selector=got_d", "target_loss=none")
    cell = plan_cell(config)
    missing = [step.kind for step in cell.record.ancestors() if not cell.store.is_done(step)]
    assert missing in ([], ["record"])
    assert cell.record.key != records["got_d"]["key"]


def test_arms_share_one_base_model_and_one_pool(records, store):
    assert len(list((store / "base_model").glob("micro-*"))) == 1
    assert len(list((store / "pool").glob("candidates-*"))) == 1


def test_a_finished_cell_is_not_run_again(records, store):
    manifests = sorted(store.rglob("manifest.json"))
    before = {path: path.stat().st_mtime_ns for path in manifests}
    (config,) = cells(store, "selector=got_d")
    again = run_cell(config)
    assert without_cost(again) == without_cost(records["got_d"])
    assert {
        path: path.stat().st_mtime_ns for path in sorted(store.rglob("manifest.json"))
    } == before


def test_a_sweep_launches_missing_cells_only_and_composes_none_of_them_twice(
    records, store, monkeypatch
):
    given = [*TINY[1:], f"store={store}", "hydra/launcher=basic"]
    for config, name in expand(["experiment=glue", *given, "selector=none,random"]):
        run_cell(config, name)
    launched, composed = [], []

    def launch(jobs, initial_job_idx):
        launched.extend(jobs)
        return []

    monkeypatch.setattr(
        Plugins, "instantiate_launcher", lambda *_, **__: SimpleNamespace(launch=launch)
    )
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_sweep_config", lambda *given: composed.append(given)
    )
    assert run("glue", [*given, "selector=none,random,bm25", "budget=20,21"]) == 1  # some missing
    named = [{word for word in job if word.startswith(("selector", "budget"))} for job in launched]
    assert named == [
        {"selector=random", "budget=21"},
        {"selector=bm25", "budget=20"},
        {"selector=bm25", "budget=21"},
    ]
    assert not any(word.startswith("hydra") for job in launched for word in job)
    assert composed == []


def test_another_store_gives_the_same_record(records, tmp_path):
    (config,) = cells(tmp_path, "selector=got_d")
    assert without_cost(run_cell(config)) == without_cost(records["got_d"])


def test_budgets_are_prefixes_of_one_ranking(records, store):
    import pyarrow.parquet as pq

    small, large = (
        plan_cell(config).record.inputs["selection"]
        for config in cells(store, "selector=got_d", "budget=10,30", "rank_rows=30")
    )
    assert small.inputs["scored"].key == large.inputs["scored"].key
    place = plan_cell(cells(store, "selector=got_d")[0]).store
    ids = [
        pq.read_table(place.get(step) / "selection.parquet")["id"].to_pylist()
        for step in (small, large)
    ]
    assert ids[0] == ids[1][:10]


TOKENS = ("budget_unit=tokens", "rank_rows=60")


def selection_of(config):
    """Return the ids, the texts and the report of a cell's selection."""
    import pyarrow.parquet as pq

    cell = plan_cell(config)
    folder = cell.store.get(cell.record.inputs["selection"])
    rows = pq.read_table(folder / "selection.parquet")
    report = json.loads((folder / "report.json").read_text("utf-8"))
    return rows["id"].to_pylist(), rows["text"].to_pylist(), report


def tokens_of(texts):
    """Count words and punctuation, as the tokenizer of the generated language does."""
    return [len(re.findall(r"\w+|[^\w\s]+", text)) for text in texts]


@pytest.mark.parametrize("arm", ["got_d", "tsds", "random"])
def test_a_budget_in_tokens_takes_rows_until_it_is_reached_and_is_a_prefix(store, arm):
    large, small = cells(store, f"selector={arm}", "budget=2000,700", *TOKENS)
    found = {config.budget: selection_of(config) for config in (large, small)}
    for budget, (ids, texts, report) in found.items():
        counts = tokens_of(texts)
        assert sum(counts[:-1]) < budget <= sum(counts) == report["tokens"]
        assert report["rows"] == len(ids)
    assert found[700][0] == found[2000][0][: len(found[700][0])]
    (in_rows,) = cells(store, f"selector={arm}", "budget=60")
    assert found[2000][0] == selection_of(in_rows)[0][: len(found[2000][0])]
    scored = {plan_cell(c).record.inputs["selection"].inputs["scored"].key for c in (large, small)}
    assert len(scored) == 1  # one ranking for all budgets


@pytest.mark.parametrize("more", [[], TOKENS])
@pytest.mark.parametrize("arm", ["random", "full_pool", "oracle", "got_d"])
def test_targets_share_the_training_of_a_selection_that_reads_no_target(store, arm, more):
    budget = "budget=700" if more else "budget=20"
    found = [plan_cell(c) for c in cells(store, f"selector={arm}", "task=cola,sst2", budget, *more)]
    models = {cell.record.inputs["model"].key for cell in found}
    selections = [cell.record.inputs["selection"] for cell in found]
    assert len({step.key for step in selections}) == 2
    assert len(models) == (2 if arm == "got_d" else 1)
    assert len({step.inputs["scored"].key for step in selections}) == len(models)
    cell = found[0]
    trained = cell.record.inputs["model"].inputs["selection"]
    reported, used = (
        pq.read_table(cell.store.get(step) / SELECTED) for step in (selections[0], trained)
    )
    assert used.select(["id", "text"]).equals(reported.select(["id", "text"]))


def test_a_budget_in_tokens_can_be_counted_by_another_tokenizer(store, tmp_path):
    (own,) = cells(store, "selector=random", "budget=700", *TOKENS)
    base = plan_cell(own).store.get(plan_cell(own).record.inputs["model"].inputs["base"])
    other = tmp_path / "letters"
    tokenizer = AutoTokenizer.from_pretrained(base)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer.backend_tokenizer.model = WordPiece(vocabulary, unk_token="[UNK]")
    tokenizer.save_pretrained(other)
    named = cells(store, "selector=random", "budget=700", *TOKENS, f"budget_tokenizer={other}")[0]
    same = cells(store, "selector=random", "budget=700", *TOKENS, f"budget_tokenizer={base}")[0]
    assert selection_of(same)[0] == selection_of(own)[0]
    assert 0 < len(selection_of(named)[0]) < len(selection_of(own)[0])
    keys = {plan_cell(c).record.inputs["selection"].key for c in (own, named, same)}
    assert len(keys) == 3
    assert str(other) not in json.dumps(plan_cell(named).record.inputs["selection"].parameters)
    (absent,) = cells(store, "selector=random", "budget=700", *TOKENS, f"budget_tokenizer={store}")
    with pytest.raises(FileNotFoundError, match="neither a folder with a tokenizer"):
        selection_of(absent)


def test_the_unit_of_the_budget_is_in_the_key_and_the_axes_only_when_it_is_tokens(store):
    (rows,) = cells(store, "selector=random", "budget=700")
    (tokens,) = cells(store, "selector=random", "budget=700", *TOKENS)
    (none,) = cells(store, "selector=none", "budget=700", *TOKENS)
    assert "budget_unit" not in plan_cell(rows).axes
    assert "budget_unit" not in plan_cell(none).axes
    assert plan_cell(tokens).axes["budget_unit"] == "tokens"
    of_rows, of_tokens = (plan_cell(c).record.inputs["selection"] for c in (rows, tokens))
    assert set(of_tokens.parameters) - set(of_rows.parameters) == {"budget_unit", "tokenizer"}
    assert set(of_tokens.inputs) - set(of_rows.inputs) == {"tokenizer"}
    (more,) = cells(store, "selector=random", "budget=700", "budget_unit=tokens", "rank_rows=70")
    assert plan_cell(more).record.inputs["selection"].key == of_tokens.key


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("selector=got_d", "budget=9000", "rank_rows=40"), "raise rank_rows"),
        (("selector=tsds", "budget=9000", "rank_rows=40"), "raise rank_rows"),
        (("selector=random", "budget=900000", "rank_rows=800"), "add candidates"),
    ],
)
def test_a_ranking_with_too_few_tokens_says_what_to_raise(store, more, says):
    (config,) = cells(store, "budget_unit=tokens", *more)
    with pytest.raises(ValueError, match=f"fewer than the budget of 9(00)?,000; .*{says}"):
        selection_of(config)


@pytest.mark.parametrize("rank_rows", [0, 700])
def test_a_budget_in_tokens_needs_rows_to_rank(store, rank_rows):
    more = ("selector=random", "budget=700", "budget_unit=tokens", f"rank_rows={rank_rows}")
    with pytest.raises(ValueError, match="set rank_rows, the rows to rank"):
        plan_cell(cells(store, *more)[0])


def test_records_count_the_tokens_and_updates_of_the_first_stage(records, store):
    for config in cells(store, "selector=random,got_d"):
        chosen = records[config.selector.arm]["selection"]
        _, texts, _ = selection_of(config)
        assert chosen["updates"] == -(-20 // config.pre_fine_tune.global_batch_size)
        assert chosen["trained_tokens"] == sum(count + 2 for count in tokens_of(texts))


def test_short_documents_are_left_out_and_the_record_counts_them(store):
    import pyarrow.parquet as pq

    chosen = ("selector=random", "candidate_chunks.min_chars=270")
    (config,) = cells(store, *chosen)
    cell = plan_cell(config)
    record = run_cell(config)
    texts = pq.read_table(cell.store.get(cell.record.inputs["selection"]) / "selection.parquet")[
        "text"
    ].to_pylist()
    assert min(map(len, texts)) >= 270
    left_out, rows = (record["selection"][name] for name in ("short_rows", "pool_rows"))
    assert left_out["target"] == 0
    assert 0 < left_out["candidates"] == 800 - rows["candidates"]
    (published,) = cells(store, *chosen, "protocol=published")
    (pool,) = [s for s in plan_cell(published).record.ancestors() if s.kind == "pool"]
    assert "min_chars" not in pool.parameters  # Deviation D29


def test_a_budget_larger_than_the_pool_fails_that_cell_only(tmp_path):
    (config,) = cells(tmp_path, "selector=random", "budget=900")
    record = run_cell(config)
    assert record["status"] == "failed"
    assert "900" in record["error"]["message"]
    assert "800" in record["error"]["message"]
    validate(record)
    assert not list(tmp_path.glob("pool_scores/*[!t]/manifest.json"))


def test_a_cell_uses_the_threads_of_its_configuration(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    (config,) = cells(tmp_path, "selector=random", "budget=900", "threads=3")
    run_cell(config)
    assert used[:1] == [3]


def broken(*_, **__):
    raise RuntimeError("no luck")


def test_a_failed_cell_is_tried_again(tmp_path, monkeypatch):
    (config,) = cells(tmp_path, "selector=none")
    from gotd.pipeline.steps import models

    with monkeypatch.context() as patched:
        patched.setattr(models, "fine_tune", broken)
        failed = run_cell(config)
    assert failed["status"] == "failed"
    assert failed["cost"]["elapsed_s"] > 0
    assert plan_cell(config).outcome()["status"] == "failed"
    assert run_cell(config)["status"] == "done"
    assert plan_cell(config).outcome()["status"] == "done"
    assert not plan_cell(config).failure_path.exists()


def test_a_full_store_is_no_failure_of_the_cell(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (config,) = cells(tmp_path, "selector=none")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        run_cell(config)
    assert not plan_cell(config).failure_path.exists()


def test_what_stops_a_prediction_costs_no_training(tmp_path, monkeypatch):
    (config,) = cells(tmp_path, "selector=none")
    from gotd.pipeline.steps import models

    with monkeypatch.context() as patched:
        patched.setattr(models, "predict", broken)
        assert run_cell(config)["status"] == "failed"
    monkeypatch.setattr(models, "fine_tune", broken)
    assert run_cell(config)["status"] == "done"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("budget=0", "budget"),
        ("fine_tune.head=tail", "head"),
        ("source.rare_share=2", "rare_share"),
    ],
)
def test_a_refused_value_is_named(tmp_path, override, named):
    with pytest.raises(ValueError, match=named):
        plan_cell(cells(tmp_path, "selector=got_d", override)[0])


def test_a_limit_that_the_hub_would_not_keep_is_refused():
    overrides = ["experiment=glue/paper", "task=rte", "selector=none", "seed=1"]
    ((config, _),) = expand([*overrides, "candidates.limit=1000"])
    with pytest.raises(ValueError, match=r"candidates\.limit has no effect with source=hub"):
        plan_cell(config)


KILLED = """
import os, signal, sys
from dataclasses import replace
from gotd.storage import artifacts
from gotd.pipeline.experiment import run_cell
from gotd.runs.expand import expand

kind, overrides = sys.argv[1], sys.argv[2:]
build = artifacts.Store._build

def killed(self, step, folder, inputs):
    def run(part, places):
        step.build(part, places)
        os.kill(os.getpid(), signal.SIGKILL)
    build(self, replace(step, build=run) if step.kind == kind else step, folder, inputs)

artifacts.Store._build = killed
((config, _),) = expand(overrides)
print(run_cell(config)["status"])
"""


@pytest.mark.slow
def test_killed_in_every_stage_and_started_again_gives_the_same_record(records, tmp_path):
    overrides = [*TINY, f"store={tmp_path}", "selector=got_d"]
    kinds = [step.kind for step in plan_cell(expand(overrides)[0][0]).record.ancestors()]
    assert set(kinds) >= {
        "base_model",
        "embeddings",
        "pool_scores",
        "pre_fine_tuned",
        "predictions",
    }
    # Rows come before a base model, so that labels are checked first.
    for kind in dict.fromkeys(["task", *kinds]):
        run = subprocess.run(
            [sys.executable, "-c", KILLED, kind, *overrides], capture_output=True, check=False
        )
        assert run.returncode == -signal.SIGKILL, run.stderr.decode()[-2000:]
        unfinished = list(tmp_path.glob(f"{kind}/*.part"))
        assert len(unfinished) == 1, kind
    assert without_cost(run_cell(expand(overrides)[0][0])) == without_cost(records["got_d"])
    assert not list(tmp_path.glob("*/*.part"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["store={file}"], "choose another store"),
        (["--bogus"], "no flag --bogus"),
        (["budgett=3"], "budgett"),
        (["budget=0"], "budget"),
    ],
)
def test_a_command_that_cannot_run_says_so_in_one_line(tmp_path, capsys, arguments, named):
    (tmp_path / "file").touch()
    given = [a.format(file=tmp_path / "file") for a in arguments]
    assert run("glue", [*TINY[1:], "selector=none", *given]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_a_damaged_cost_is_named(tmp_path):
    from gotd.storage.artifacts import ArtifactError

    (config,) = cells(tmp_path, "selector=none")
    run_cell(config)
    cell = plan_cell(config)
    cost = cell.store.folder(cell.record) / "cost.json"
    cost.write_text("{")
    with pytest.raises(ArtifactError, match="cost.json is damaged; delete it"):
        cell.outcome()


def test_a_cell_that_ends_twice_at_once_is_sealed_once(tmp_path):
    (config,) = cells(tmp_path, "selector=none")
    run_cell(config)
    cell = plan_cell(config)
    cost = cell.store.folder(cell.record) / "cost.json"
    together = threading.Barrier(8)

    def end(elapsed_s: float) -> bool:
        together.wait()
        return write_cost(cell.store, cell.record, elapsed_s)

    for _ in range(10):
        cost.unlink()
        with ThreadPoolExecutor(8) as pool:
            sealed = list(pool.map(end, range(8)))
        assert sum(sealed) == 1
        assert json.loads(cost.read_text())["elapsed_s"] == sealed.index(True)
