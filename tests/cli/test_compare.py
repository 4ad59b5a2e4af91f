"""`gotd compare`: the two-stage protocol on files of one's own, with and without labels."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import gotd
from gotd.cli import compare
from gotd.cli.main import main

TINY = [
    *("model.spec.layers=1", "model.spec.hidden_size=16", "model.spec.heads=2"),
    *("model.spec.feed_forward_size=32", "model.spec.vocabulary_size=200"),
    *("model.pretraining.epochs=0.2", "pre_fine_tune.epochs=0.5", "target_loss.texts=20"),
]
FINE_TUNE = ["fine_tune.epochs=1"]


class Own:
    """Files of one's own task.

    Args:
        folder: That holds them.
        pool: The candidates.
    """

    def __init__(self, folder: Path, pool: Path) -> None:
        self.folder, self.pool = folder, pool

    def write(self, name: str, rows: Sequence[tuple[str, object]]) -> Path:
        """Write texts and labels as CSV, or lines of chat for a name that ends so."""
        path = self.folder / name
        with path.open("w", encoding="utf-8", newline="") as file:
            if name.endswith(".jsonl"):
                for text, _ in rows:
                    turns = [{"role": "user", "content": "Tell."}, {"role": "assistant"}]
                    turns[1]["content"] = text
                    file.write(json.dumps({"messages": turns}) + "\n")
            else:
                lines = csv.writer(file)
                lines.writerow(["passage", "kind"])
                lines.writerows(rows)
        return path

    def command(
        self, *more: str, settings: Sequence[str] = (), base: Sequence[str] = TINY, **given: Path
    ) -> list[str]:
        """Give a command of two methods; ``given`` are files by role."""
        files = [part for role, path in given.items() for part in (f"--{role}", str(path))]
        sets = [part for setting in (*base, *settings) for part in ("--set", setting)]
        store = ["--store", str(self.folder / "store")]
        pool = ["--candidates", str(self.pool), "--budget", "20", "--seeds", "1"]
        return ["compare", *files, *pool, "--methods", "random,got_d", *store, *sets, *more]


LABELLED = ["--target-text-column", "passage", "--label-column", "kind"]


@pytest.fixture
def own(tmp_path, given) -> Own:
    return Own(tmp_path, given.pool)


@pytest.fixture(scope="session")
def labelled(given) -> list[tuple[str, object]]:
    """Give 60 texts of two topics with their names as labels; none is in the pool as it is."""
    texts = [(key.partition("/")[0], text) for key, text in given.rows.items()]
    cells = [(f"aside {text}", "life") for topic, text in texts if topic == "cells"][:30]
    trade = [(f"aside {text}", "money") for topic, text in texts if topic == "trade"][:30]
    return [row for pair in zip(cells, trade, strict=True) for row in pair]


def records(own: Own) -> list[dict]:
    (path,) = own.folder.glob("store/reports/compare-*/records.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_labels_end_to_end_and_a_second_call_does_nothing_new(own, labelled, capsys):
    train, test = own.write("train.csv", labelled[:40]), own.write("test.csv", labelled[40:])
    command = own.command(*LABELLED, "--keep-overlap", settings=FINE_TUNE, train=train, test=test)
    assert main(command) == 0
    said = capsys.readouterr().out
    for part in ("steps that unfinished cells need", "hours one after another", "Holm p"):
        assert part in said
    made = records(own)
    assert {record["axes"]["arm"] for record in made} == {"random", "got_d"}
    for record in made:
        assert record["data"]["labels"] == {"life": 0, "money": 1}
        assert record["n_eval"] == 20
        assert record["metrics"]["headline_name"] == "macro_f1"
        assert record["selection"]["rows"] == 20
        assert str(own.folder) not in json.dumps(record)
    (page,) = own.folder.glob("store/reports/compare-*/report.html")
    assert str(page) in said
    assert "got_d" in page.read_text("utf-8")

    before = sorted((own.folder / "store").rglob("manifest.json"))
    stamps = [path.stat().st_mtime_ns for path in before]
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "steps that unfinished cells need" not in again
    assert "2 cells done" in again
    assert sorted((own.folder / "store").rglob("manifest.json")) == before
    assert [path.stat().st_mtime_ns for path in before] == stamps


def test_loss_end_to_end(own, given, labelled, caplog):
    """Chat rows and a pool of other shapes; held-out rows are of the target, and not in it."""
    target = own.write("chat.jsonl", labelled)
    command = own.command("--outcome", "loss", "--role", "assistant", target=target)
    assert main(command) == 0
    made = records(own)
    assert len(made) == 2
    for record in made:
        assert record["metrics"]["headline_name"] == "target_loss/mean"
        assert record["metrics"]["target_loss"] == pytest.approx(record["metrics"]["headline"])
        assert record["metrics"]["target_loss"] != record["metrics"]["target_loss_base"]
    (folder,) = own.folder.glob("store/held_out_target/*")
    texts = pq.read_table(folder / "train.parquet")["text"].to_pylist()
    held_out = pq.read_table(folder / "held_out.parquet")["text"].to_pylist()
    assert len(texts) + len(held_out) == 60
    assert {*texts, *held_out} == {text for text, _ in labelled}
    # Their passages are in the pool, which must not train the model that they measure.
    assert re.search(r"\d+ of \d+ rows share 13 words in a row with the rows of held", caplog.text)
    pooled = {text for path in own.folder.glob("store/pool/*/*.arrow") for text in _texts(path)}
    assert pooled
    assert not {text.removeprefix("aside ") for text in held_out} & pooled
    assert {text.removeprefix("aside ") for text in texts} & pooled


def _texts(path: Path) -> list[str]:
    import pyarrow as pa

    return pa.ipc.open_file(path).read_all()["text"].to_pylist()


def test_mistakes_are_one_line_before_anything_is_built(own, labelled, capsys):
    train, test = own.write("train.csv", labelled[:40]), own.write("test.csv", labelled[40:])
    one = own.write("one.csv", [(text, "life") for text, _ in labelled])
    few = own.write("few.csv", labelled[:6])
    other = own.write("other.csv", [(text, f"{kind}!") for text, kind in labelled])
    many = own.write("many.csv", [(text, f"{n}") for n, (text, _) in enumerate(labelled)])
    hole = own.write("hole.csv", [*labelled[:30], ("a text", "")])
    decimals = own.write("decimals.csv", [(text, "x") for text, _ in labelled])
    decimals.with_suffix(".jsonl").write_text(
        "\n".join(json.dumps({"passage": text, "kind": 0.5}) for text, _ in labelled)
    )
    causal = own.folder / "gpt"
    causal.mkdir()
    (causal / "config.json").write_text('{"architectures": ["GPT2LMHeadModel"]}')
    vision = own.folder / "vit"
    vision.mkdir()
    (vision / "config.json").write_text('{"architectures": ["ViTModel"], "model_type": "vit"}')
    both = {"train": train, "test": test}
    cases = [
        (["--methods", "got"], both, "unknown method 'got'; did you mean"),
        (["--methods", "least_toxic"], both, "least_toxic needs scores"),
        (["--budget", "0"], both, "--budget must be at least 1"),
        (["--budget", "9000"], both, "the budget 9,000 is larger than the pool of"),
        (["--seeds", "0"], both, "seeds must be at least 1"),
        (["--set", "seed=1,2"], both, "--set seed=1,2: give one value"),
        (["--set", "fine_tune.epoch=1"], both, "fine_tune.epoch"),
        (["--outcome", "loss"], both, "--train is not read by --outcome loss"),
        ([], {"train": train}, "--outcome labels needs --train and --test"),
        ([], {"train": train, "test": own.folder / "absent.csv"}, "absent.csv"),
        ([], {"train": train, "test": few}, "--test has 6 rows"),
        ([], {"train": few, "test": test}, "--train has 6 rows"),
        ([], {"train": one, "test": test}, "--train: all rows have the label 'life'"),
        ([], {"train": train, "test": one}, "--test: all rows have the label 'life'"),
        ([], {"train": train, "test": other}, "--test has labels that --train lacks: 'life!'"),
        ([], {"train": many, "test": test}, "holds 60 different values in 60 rows"),
        ([], {"train": hole, "test": test}, "hole.csv row 31: the column 'kind' is empty"),
        (
            [],
            {"train": decimals.with_suffix(".jsonl"), "test": test},
            "holds numbers with decimals",
        ),
        (["--label-column", "nope"], both, "has no column 'nope'; it has passage, kind"),
        (["--model", str(causal)], both, "gpt is a causal language model"),
        (["--model", str(vision)], both, "vit is a ViTModel"),
        (["--model", str(own.folder)], both, "has no config.json"),
        (
            ["--outcome", "loss"],
            {"target": few},
            "4 rows to select for and 2 to measure",
        ),
    ]
    for more, files, message in cases:
        assert main(own.command(*LABELLED, *more, **files)) == 2, message
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("gotd compare: "), message
        assert message in error, f"{message!r} is not in {error!r}"
    built = {path.name for path in (own.folder / "store").iterdir()} - {"hub-revisions.json"}
    assert built <= {".locks", "pool", "reports"}


def test_a_plan_knows_the_pool_that_trains_a_base_alone(own, labelled, monkeypatch, caplog):
    class PlannedError(Exception):
        pass

    def stop(cells):
        raise PlannedError

    counted = []
    monkeypatch.setattr(compare, "with_counts", lambda _, rows, tokens: counted.append(rows))
    monkeypatch.setattr(compare, "print_plan", stop)
    train, test = own.write("train.csv", labelled[:40]), own.write("test.csv", labelled[30:])
    with pytest.raises(PlannedError):
        main(own.command(*LABELLED, "--methods", "none", train=train, test=test))
    (rows,) = counted
    assert 250 < rows < 360  # without the part that trains the base
    warned = "--test: 10 of 30 rows have the text of a row of --train"
    assert caplog.text.count(warned) == 1  # the rows are read once


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_stopped(own, labelled):
    """Kill it after its first cell: that cell is not run again, and the others follow."""
    train, test = own.write("train.csv", labelled[:40]), own.write("test.csv", labelled[40:])
    command = own.command(*LABELLED, "--seeds", "2", settings=FINE_TUNE, train=train, test=test)
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-m", "gotd.cli.main", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as running:
        found: list[Path] = []
        while not found and running.poll() is None:
            found = sorted((own.folder / "store").glob("record/*/cost.json"))
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGKILL)
    assert len(found) == 1
    stamp = found[0].stat().st_mtime_ns
    assert main(command) == 0
    assert found[0].stat().st_mtime_ns == stamp
    assert [record["status"] for record in records(own)] == ["done"] * 4


@pytest.mark.slow
def test_a_folder_is_a_model_of_each_kind(own, labelled, capsys):
    """A masked and a causal model, and an encoder whose head is trained first."""
    from transformers import BertModel

    from gotd.training.causal_models import CausalSpec
    from gotd.training.models import ModelSpec, build_model

    size = {"hidden_size": 16, "heads": 2, "feed_forward_size": 32, "vocabulary_size": 300}
    texts = [text for text, _ in labelled]
    masked, causal, encoder = (own.folder / name for name in ("bert", "gpt", "encoder"))
    build_model(ModelSpec(tokenizer="wordpiece", layers=1, **size), texts, 0, masked)
    build_model(CausalSpec(layers=1, max_length_tokens=64, **size), texts, 0, causal)
    build_model(ModelSpec(tokenizer="wordpiece", layers=1, **size), texts, 0, encoder)
    BertModel.from_pretrained(masked).save_pretrained(encoder)
    train, test = own.write("train.csv", labelled[:40]), own.write("test.csv", labelled[40:])
    target = own.write("chat.jsonl", labelled)
    short = ["pre_fine_tune.epochs=0.5", "target_loss.texts=20"]
    for model in (masked, encoder):
        files = {"train": train, "test": test}
        named = own.command(*LABELLED, "--model", str(model), base=[*short, *FINE_TUNE], **files)
        assert main(named) == 0
    for model in (masked, causal):
        assert main(own.command("--model", str(model), base=short, target=target)) == 0
    said = capsys.readouterr().out
    for model in ("bert", "encoder", "gpt"):
        assert f"model {model}" in said
