"""Duplicates, overlap with test sets and filters: their effect on what `gotd select` chooses."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd import GOTD
from gotd.cli.main import main
from gotd.data.left_out.where import Where


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def pool(given, tmp_path):
    """The texts of the pool, of which some come twice, two languages, and a test set of four."""
    texts = list(given.rows.values())
    rows = [{"text": text, "lang": "en"} for text in texts]
    rows += [{"text": text.upper(), "lang": "en"} for text in texts[:7]]
    rows += [{"text": f"{text} indeed", "lang": "de"} for text in texts[100:105]]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    test = [{"text": text} for text in texts[200:204]]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, test)), "utf-8")
    return tmp_path / "pool.jsonl", tmp_path / "test.jsonl", texts


def run(given, pool, out, *more):
    arguments = given.arguments("--out", str(out), "--budget", "100%", *more, pool=str(pool))
    assert main(arguments) == 0
    manifest = json.loads((out.with_suffix(".gotd") / "manifest.json").read_text("utf-8"))
    return [row["text"] for row in lines(out)], manifest


@pytest.mark.parametrize("method", ["got_d", "random", "round_robin"])
def test_what_is_left_out_is_not_chosen(given, pool, tmp_path, method):
    path, test, texts = pool
    out, listed = tmp_path / "chosen.jsonl", tmp_path / "removed.jsonl"
    more = ("--method", method, "--exclude", str(test), "--where", "lang == 'en'")
    chosen, manifest = run(given, path, out, *more, "--removed", str(listed))
    assert sorted(chosen) == sorted(set(texts) - set(texts[200:204]))
    assert manifest["left_out_rows"] == {"filtered": 5, "overlap": 4, "duplicate": 7}
    assert manifest["request"]["leave_out"]["where"] == "lang == 'en'"
    removed = lines(listed)
    assert len(removed) == 16
    assert {row["text"] for row in removed if row["reason"] == "overlap"} == set(texts[200:204])
    assert {r["because"] for r in removed if r["reason"] == "duplicate"} == {
        f"repeats pool#{number}" for number in range(1, 8)
    }
    report = (tmp_path / "chosen.gotd" / "report.md").read_text("utf-8")
    assert "7 candidates were left out as duplicate." in report


def test_a_smaller_pool_of_the_same_rows_gives_the_same_ranking(given, pool, tmp_path):
    """What is left out has no influence: as if it had never been among the candidates."""
    path, _, texts = pool
    clean = tmp_path / "clean.jsonl"
    rows = [{"text": text, "id": f"pool#{n}"} for n, text in enumerate(texts, start=1)]
    clean.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    more = ("--encoder", "minilm", "--length-chars", "60")
    more = ("--method", "dsir")  # an encoder would be fitted on all candidates
    one, _ = run(given, path, tmp_path / "one.jsonl", "--where", "lang == 'en'", *more)
    other, manifest = run(given, clean, tmp_path / "other.jsonl", *more)
    assert one == other
    assert manifest["left_out_rows"] == {}


def test_near_copies_are_left_out(given, pool, tmp_path):
    path, _, texts = pool
    chosen, manifest = run(
        given, path, tmp_path / "a.jsonl", "--dedup", "near", "--method", "random"
    )
    assert manifest["left_out_rows"]["duplicate"] == 7
    assert manifest["left_out_rows"]["near duplicate"] == 5
    assert sorted(chosen) == sorted(texts)
    chosen, manifest = run(
        given, path, tmp_path / "b.jsonl", "--dedup", "off", "--method", "random"
    )
    assert manifest["left_out_rows"] == {}
    assert len(chosen) == 372


def test_embeddings_serve_every_choice_and_nothing_else_changes_without_duplicates(given, tmp_path):
    keys = []
    for dedup in ("off", "exact"):
        more = ("--budget", "9", "--dedup", dedup)
        assert main(given.arguments("--out", str(tmp_path / dedup), *more)) == 0
        keys.append(json.loads((tmp_path / dedup / "manifest.json").read_text())["keys"])
    assert keys[1].pop("left_out")
    assert keys[0] == keys[1]


def test_python_leaves_out_the_same(given, pool):
    path, test, texts = pool
    fitted = GOTD(method="random").fit(given.target, path, where="lang == 'en'", exclude=test)
    chosen = fitted.select("100%")
    assert set(chosen.texts) == set(texts) - set(texts[200:204])
    assert chosen.removed["reason"].to_pylist().count("duplicate") == 7
    every = GOTD(method="random").fit(given.target, path, dedup="off").select(372)
    assert every.removed.num_rows == 0
    with pytest.raises(ValueError, match="dedup"):
        GOTD(method="random").fit(given.target, path, dedup="some")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_list_has_a_format_too_and_may_be_empty(given, tmp_path, suffix, capsys):
    listed = tmp_path / f"removed{suffix}"
    more = ("--budget", "9", "--method", "random", "--removed", str(listed))
    assert main(given.arguments("--out", str(tmp_path / "a"), *more)) == 0
    if suffix == ".csv":
        assert listed.read_text() == "id,reason,because,text\n"
    else:
        assert pq.read_table(listed).num_rows == 0
    written = listed.read_bytes()
    stated = json.loads((tmp_path / "a" / "manifest.json").read_text("utf-8"))["removed"]
    assert stated == {
        "rows": 0,
        "file": listed.name,
        "sha256": hashlib.sha256(written).hexdigest(),
    }
    # The same command again finds what it wrote.
    assert main(given.arguments("--out", str(tmp_path / "a"), *more)) == 0
    assert listed.read_bytes() == written
    listed.write_bytes(written + b"mine")
    assert main(given.arguments("--out", str(tmp_path / "a"), *more)) == 2
    assert f"--removed {listed} exists" in capsys.readouterr().err
    assert listed.read_bytes() == written + b"mine"


def test_an_input_is_never_the_list(given, tmp_path, capsys):
    before = given.target.read_bytes()
    more = ("--budget", "9", "--removed", str(given.target), "--overwrite")
    assert main(given.arguments("--out", str(tmp_path / "a.jsonl"), *more)) == 2
    assert "is an input, or in the store" in capsys.readouterr().err
    listed = tmp_path / "a-9.jsonl"  # the rows of a budget would have this name
    more = ("--budget", "8,9", "--removed", str(listed))
    assert main(given.arguments("--out", str(tmp_path / "a.jsonl"), *more)) == 2
    assert "is in the place of --out" in capsys.readouterr().err
    assert given.target.read_bytes() == before
    assert not listed.exists()


@pytest.mark.parametrize("option", ["--tokenizer", "--encoder"])
def test_a_model_is_never_replaced(given, tmp_path, capsys, option):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    more = ("--tokens", "9", option, str(model), "--overwrite")
    assert main(given.arguments("--out", str(model), *more)) == 2
    assert f"holds the input {model / 'config.json'}" in capsys.readouterr().err
    assert (model / "config.json").read_text() == "{}"


def test_a_column_without_values_is_missing():
    rows = pa.table({"lang": pa.nulls(2), "n": pa.nulls(2), "my n": ["3", "x"]})
    for text in ("lang in ('en',)", "lang not in ('en',)", "n in (1, 2)", "n > 1", "lang", "other"):
        assert not Where(text).holds(rows, "rows").any()
    assert Where("lang is None and other is None").holds(rows, "rows").all()
    assert Where("col('my n') > 2").holds(rows, "rows").tolist() == [True, False]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--where", "lang = 3"], "--where 'lang = 3' cannot be read"),
        (["--where", "lang == 'xx'"], "after 372 left out: filtered; see --where"),
        (["--where", "lang == 'en'", "--unit", "fixed"], "--where needs --unit whole"),
        (["--where", "lang in ('en', 3)"], "is not allowed here"),
        (["--where", "lang != 99999999999999999999"], "more than 64 bits"),
        (["--where", " and ".join(["n > 0"] * 900)], "has more than 2,000 parts"),
        (["--removed", "a.txt"], "the name must end in .jsonl"),
        (["--exclude", "absent.jsonl"], "no file absent.jsonl"),
    ],
)
def test_what_cannot_be_done_is_one_line(given, pool, tmp_path, capsys, more, says):
    out = tmp_path / "chosen.jsonl"
    arguments = given.arguments("--out", str(out), "--budget", "9", *more, pool=str(pool[0]))
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()
