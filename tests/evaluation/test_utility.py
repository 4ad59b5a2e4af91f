"""Our zero-shot numbers against lm-evaluation-harness on the same rows."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.build import build
from gotd.config.discovery import conf_folder
from gotd.evaluation.likelihood import Likelihood, load_for_scoring
from gotd.evaluation.utility import (
    OWN,
    TASKS,
    UtilitySettings,
    evaluate_local,
    measure_utility,
    write_task,
)
from gotd.evaluation.zero_shot import Prompt, decide, score_choices
from gotd.runs.expand import expand

ROWS = 12


@pytest.fixture(scope="module")
def questions():
    """Short rows of every kind, made here."""
    random = np.random.default_rng(0)
    words = ["cat", "mat", "answer", "yes", "no", "the", "sat"]

    def say(n):
        return " ".join(random.choice(words, n))

    plain = {"question": [say(4) for _ in range(ROWS)], "label": [i % 2 for i in range(ROWS)]}
    choices = [[say(1), say(3)] for _ in range(ROWS)]
    gaps = [f"{say(3)} _ {say(2)} ." for _ in range(ROWS)]
    return {
        "arc_easy": pa.table({**plain, "choices": [[*c, say(2)] for c in choices]}),
        "openbookqa": pa.table({**plain, "choices": choices}),
        "piqa": pa.table({**plain, "choices": choices}),
        "boolq": pa.table({**plain, "passage": [say(5) for _ in range(ROWS)]}),
        "winogrande": pa.table({**plain, "question": gaps, "choices": choices}),
    }


def prompt_of(name):
    """Give our prompt of a task; the harness asks boolq in other words than the paper."""
    if name == "boolq":
        return Prompt("{text_pair}\nQuestion: {text}?\nAnswer:", choices=("no", "yes"))
    ((config, _),) = expand(["experiment=zeroshot", f"task={name}", *ONE])
    task = build(config.task)
    return Prompt(task.context, task.continuation, task.choices)


ONE = ["selector=none", "seed=1", "budget=50"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gpt_folder", "gpt_neo_folder"])
def test_our_numbers_are_the_harness_s(kind, questions, tmp_path, monkeypatch, request):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    folder = request.getfixturevalue(kind)
    network, tokenizer = load_for_scoring(folder)
    for name, table in questions.items():
        theirs, losses = evaluate_local(folder, name, table, tmp_path, batch_size=4)
        rows = table.rename_columns({"question": "text"})
        if "passage" in rows.column_names:
            rows = rows.rename_columns({"passage": "text_pair"})
        rows = rows.append_column("id", pa.array([str(i) for i in range(ROWS)]))
        scores = score_choices(
            Likelihood(network), tokenizer, rows, prompt_of(name), full_text=False
        )
        for ours, other in zip(scores["losses"].to_pylist(), losses, strict=True):
            np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-4)
        labels = rows["label"].to_numpy()
        acc = (decide(scores, "log_likelihood") == labels).mean()
        assert acc == pytest.approx(theirs["acc"])
        if "acc_norm" in theirs:
            norm = (decide(scores, "log_likelihood_per_character") == labels).mean()
            assert norm == pytest.approx(theirs["acc_norm"])


@pytest.mark.slow
def test_the_harness_s_own_tasks_are_asked_in_its_words(
    gpt_folder, questions, tmp_path, monkeypatch
):
    """With the Hub's rows at hand, that is; here ours stand in for them."""
    tasks = pytest.importorskip("lm_eval.tasks")
    import datasets

    known = set(tasks.TaskManager().all_tasks)
    assert {name for names in OWN.values() for name in names} <= known
    gaps = questions["winogrande"].to_pydict()
    first, second = zip(*gaps["choices"], strict=True)
    answer = [str(1 + label) for label in gaps["label"]]
    rows = {
        "aps/super_glue": questions["boolq"].to_pydict(),
        "allenai/winogrande": {
            "sentence": gaps["question"],
            "option1": first,
            "option2": second,
            "answer": answer,
        },
    }

    def load(path, **_):
        table = datasets.Dataset.from_dict(rows[path])
        return datasets.DatasetDict({"train": table, "validation": table})

    monkeypatch.setattr(datasets, "load_dataset", load)
    names = ("boolq", "winogrande")
    settings = UtilitySettings(names, rows_from="harness", rows=ROWS - 2)
    found = measure_utility(gpt_folder, settings, lambda name: questions[name], tmp_path / "own")
    monkeypatch.undo()
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    settings = UtilitySettings(names, rows=ROWS - 2)
    ours = measure_utility(gpt_folder, settings, lambda name: questions[name], tmp_path / "ours")
    assert found == ours


def test_losses_of_choices_are_in_the_order_of_the_rows(monkeypatch, tmp_path, questions):
    """The harness gives log-likelihoods, and its samples in any order."""
    samples = [
        {"doc_id": 1, "filtered_resps": [(-3.5, False), (-0.25, True)]},
        {"doc_id": 0, "filtered_resps": [(-1.5, True), (-2.75, False)]},
    ]

    def ask(model, names, batch_size, include_path):
        results = {"gotd_piqa": {"acc,none": 0.5, "acc_norm,none": 1.0, "alias": "piqa"}}
        return {"samples": {"gotd_piqa": samples}, "results": results}

    monkeypatch.setattr("gotd.evaluation.utility._ask", ask)
    found, losses = evaluate_local(tmp_path, "piqa", questions["piqa"].slice(0, 2), tmp_path)
    assert found == {"acc": 0.5, "acc_norm": 1.0, "rows": 2}
    assert losses == [[1.5, 2.75], [3.5, 0.25]]


def test_rounds_of_one_task_are_averaged(monkeypatch, tmp_path):
    def ask(model, names, batch_size, limit):
        assert names == ["anli_r1", "anli_r2", "anli_r3"]
        return {
            "results": {name: {"acc,none": i / 4} for i, name in enumerate(names)},
            "n-samples": {name: {"effective": 10} for name in names},
        }

    monkeypatch.setattr("gotd.evaluation.utility._ask", ask)
    settings = UtilitySettings(("anli",), rows_from="harness")
    found = measure_utility(tmp_path, settings, lambda name: pa.table({}), tmp_path / "work")
    assert found == {"anli": {"acc": 0.25, "rows": 30}}


def test_rows_that_cannot_be_fetched_are_named_with_the_remedy(monkeypatch, tmp_path):
    def ask(*_, **__):
        raise ConnectionError("Couldn't reach 'facebook/anli'")

    monkeypatch.setattr("gotd.evaluation.utility._ask", ask)
    settings = UtilitySettings(("anli",), rows_from="harness")
    with pytest.raises(ConnectionError, match="anli needs rows of the Hub .*facebook/anli.*folder"):
        measure_utility(tmp_path, settings, lambda name: pa.table({}), tmp_path / "work")
    assert not (tmp_path / "work" / "anli.json").exists()


def test_task_files_name_local_rows_and_known_columns(questions, tmp_path):
    for name, rows in questions.items():
        write_task(name, rows, tmp_path)
    assert {f.suffix for f in tmp_path.iterdir()} == {".jsonl", ".yaml"}
    assert len(list(tmp_path.glob("gotd_*.yaml"))) == len(TASKS)
    first = json.loads((tmp_path / "winogrande.jsonl").read_text().splitlines()[0])
    assert first["question"].replace("_", first["choices"][1]) == (
        f"{first['contexts'][1]} {first['after']}"
    )
    with pytest.raises(ValueError, match="unknown utility task 'race'"):
        write_task("race", questions["piqa"], tmp_path)


def test_the_folder_has_the_columns_that_are_asked_for(data_folder):
    for name in TASKS:
        (file,) = (data_folder / "zeroshot" / name).glob("*.parquet")
        wanted = {"question", "label", "passage" if name == "boolq" else "choices"}
        assert wanted <= set(pq.read_schema(file).names)
    assert (conf_folder() / "task" / "boolq.yaml").is_file()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tasks": ("hellaswag",)}, "tasks must be some of arc_easy"),
        ({"tasks": ("arc_easy",), "rows_from": "harness"}, "tasks must be some of anli"),
        ({"tasks": ("piqa",), "rows_from": "hub"}, "rows_from"),
        ({"tasks": ("piqa",), "rows": 0}, "at least 1"),
    ],
)
def test_tasks_that_nobody_can_ask_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        UtilitySettings(**fields)
