"""From Python as from the command line: the same rows, whatever was handed in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gotd
from gotd import GOTD, Selection
from gotd.cli.main import main


@pytest.fixture(scope="module")
def by_command(given, tmp_path_factory) -> pa.Table:
    out = tmp_path_factory.mktemp("out") / "chosen"
    assert main(given.arguments("--out", str(out), "--budget", "40", "--explain")) == 0
    return pq.read_table(out / "selected.parquet")


def test_paths_give_what_the_command_gives(given, by_command, tmp_path):
    gotd = GOTD(epsilon=0.05, store=given.folder / "store")
    chosen = gotd.fit(given.target, given.pool).select(budget=40, explain=True)
    assert isinstance(chosen, Selection)
    assert chosen.table.equals(by_command)
    assert chosen.ids == by_command["id"].to_pylist()
    assert chosen.texts == [given.rows[name] for name in chosen.ids]
    assert chosen.rank.tolist() == list(range(1, 41))
    assert (np.diff(chosen.scores) >= 0).all()
    assert len(chosen) == 40
    assert chosen.report.startswith("# Selection by `got_d`")
    assert chosen.to_pandas().shape == (40, 7)
    chosen.to_parquet(tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").equals(by_command)


def test_rows_go_to_other_libraries(given, tmp_path):
    chosen = GOTD(method="random").fit(given.target, given.pool).select(9)
    assert repr(chosen) == "Selection(9 of 360 rows by random)"
    rows = chosen.table.to_pylist()
    assert list(chosen.to_dataset()) == rows
    chosen.to_jsonl(tmp_path / "rows.jsonl")
    lines = (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()
    assert list(map(json.loads, lines)) == rows


def test_one_fit_serves_many_budgets_and_a_temporary_store_goes(given):
    texts = list(given.rows.values())
    target = [line.split('"')[3] for line in given.target.read_text().splitlines()]
    fitted = GOTD().fit(target, texts)
    large, small = fitted.select(30), fitted.select(7)
    assert small.ids == large.ids[:7]
    assert large.ids[0].startswith("candidates#")
    assert set(large.texts) <= set(texts)
    folder = fitted._store.root
    assert folder.exists()
    del fitted
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["arrow", "pandas", "datasets"])
def test_tables_are_rows_with_their_ids(given, by_command, kind):
    rows = pa.table({"key": list(given.rows), "body": list(given.rows.values())})
    pool = {
        "arrow": lambda: rows,
        "pandas": rows.to_pandas,
        "datasets": lambda: datasets.Dataset.from_dict(rows.to_pydict()),
    }[kind]()
    found = (
        GOTD()
        .fit(given.target, pool, text_column="body", target_text_column="text", id_column="key")
        .select(40)
    )
    assert found.ids == by_command["id"].to_pylist()


@pytest.mark.parametrize("method", ["round_robin", "dsir", "got_d_clusters"])
def test_other_methods_too(given, method):
    chosen = GOTD(method=method, seed=1).fit(given.target, given.pool).select(25)
    assert len(chosen) == len(set(chosen.ids)) == 25


def test_what_cannot_be_done_is_said(given):
    with pytest.raises(RuntimeError, match="call fit"):
        GOTD().select(3)
    with pytest.raises(ValueError, match="did you mean 'got_d'"):
        GOTD(method="gotd")
    with pytest.raises(TypeError, match="target: give texts"):
        GOTD().fit(7, given.pool)
    with pytest.raises(ValueError, match="budget 361 is larger than the pool"):
        GOTD().fit(given.target, given.pool).select(361)
    with pytest.raises(AttributeError, match="no attribute 'GOTE'"):
        _ = gotd.GOTE


@pytest.mark.parametrize("kind", [pd.Series, np.array, pa.array, tuple])
def test_texts_come_in_many_kinds(given, kind):
    texts = list(given.rows.values())
    plain = GOTD(method="dsir").fit(["protein cell"], texts).select(9)
    found = GOTD(method="dsir").fit(kind(["protein cell"]), kind(texts)).select(np.int64(9))
    assert found.table.equals(plain.table)


@pytest.mark.parametrize("kind", [list, pd.Series, tuple])
def test_names_of_files_in_a_list_are_not_ranked_as_texts(given, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pool").mkdir()
    for name in ("a.jsonl", "pool/b.jsonl"):
        (tmp_path / name).write_text('{"text": "protein"}\n')
    fitted = GOTD(method="dsir").fit(["protein"], ["protein", "a.jsonl", "pool"])
    for names in (["a.jsonl"], ["pool/b.jsonl", "pool/"], ["pool/*.jsonl"], ["hub:some/rows"]):
        says = r"a list of strings is texts, .*; give pathlib.Path\('.*'\) in the list, or a single"
        with pytest.raises(ValueError, match=f"candidates: {says}"):
            GOTD(method="dsir").fit(["protein"], kind(names))
        with pytest.raises(ValueError, match=f"target: {says}"):
            GOTD(method="dsir").fit(kind(names), given.pool)
        with pytest.raises(ValueError, match=f"exclude: {says}"):
            GOTD(method="dsir").fit(["protein"], given.pool, exclude=kind(names))
        with pytest.raises(ValueError, match=f"replay: {says}"):
            fitted.select(1, replay=kind(names), replay_share=0.2)
    texts = ["pool", "x" * 5000, "a\0b", "*", "hub: of a wheel", "**so** it is", "a.jsonl"]
    assert len(GOTD(method="dsir").fit(["pool"], kind(texts)).select(7)) == 7


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        (["a", None], TypeError, "candidates row 2 is NoneType, not a string"),
        (pd.Series(["a", float("nan")]), TypeError, "candidates row 2 is float, not a string"),
        ([Path("a"), "b"], TypeError, "candidates row 1 is PosixPath, not a string; give texts"),
        (["a", "b\ud800"], ValueError, "candidates row 2 holds half a character"),
        (pd.DataFrame({"text": ["a", 1]}), ValueError, "candidates: the data frame cannot be"),
        (pd.DataFrame({"text": ["\ud800"]}, dtype=object), ValueError, "the data frame cannot be"),
        ([], ValueError, "candidates has no rows"),
        (b"a", TypeError, "candidates: give texts, paths"),
        ({"a"}, TypeError, "candidates: give texts, paths"),
    ],
)
def test_rows_that_are_no_texts_are_named(rows, error, says):
    with pytest.raises(error, match=says):
        GOTD(method="dsir").fit(["a"], rows)


@pytest.mark.parametrize("budget", ["3", 2.5, True, None])
def test_a_budget_is_a_whole_number(budget):
    fitted = GOTD(method="random").fit(["a"], ["b", "c", "d"])
    with pytest.raises(TypeError, match="budget must be a whole number"):
        fitted.select(budget)


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"epsilon": "0.05"}, TypeError, "epsilon must be a number"),
        ({"epsilon": float("inf")}, ValueError, "epsilon must be a finite number"),
        ({"epsilon": 0}, ValueError, "epsilon must be positive"),
        ({"epsilon": 0.1, "settings": {"epsilon": 0.2}}, ValueError, "epsilon is given twice"),
        ({"method": 3}, TypeError, "method must be a string, not 3"),
        ({"encoder": None}, TypeError, "encoder must be a string, not None"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number"),
        ({"length_chars": "9"}, TypeError, "length_chars must be a whole number"),
        ({"min_chars": 9.5}, TypeError, "min_chars must be a whole number"),
        ({"device": "foo"}, ValueError, "device must be auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_setting_of_another_kind_is_named(fields, error, says):
    with pytest.raises(error, match=says):
        GOTD(**fields)


@pytest.mark.parametrize(
    "name", ["text_column", "target_text_column", "id_column", "domain_column"]
)
def test_a_column_is_named_by_a_string(name):
    with pytest.raises(TypeError, match=rf"{name} must be a string, not \['a'\]"):
        GOTD().fit(["a"], ["b"], **{name: ["a"]})


def test_importing_gotd_is_light():
    code = "import sys, gotd; sys.exit(bool({'numpy', 'torch', 'pyarrow'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
