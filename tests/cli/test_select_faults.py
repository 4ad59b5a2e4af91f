"""Faults that users found by trying to break ``gotd select``, one test for each kind."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import os
import signal
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.cli.main import main
from gotd.data.left_out.where import Where


def select(given, out, *more, pool=None):
    arguments = ("--out", str(out), "--method", "random", *more)
    return main(given.arguments(*arguments, pool=None if pool is None else str(pool)))


def fails(capsys, *says):
    error = capsys.readouterr().err
    for words in says:
        assert words in error, error


TIMES = [dt.datetime(2024, 1, 1, 5), dt.datetime(2025, 1, 1)]


@pytest.mark.parametrize(
    ("column", "condition", "holds"),
    [
        (pa.array(TIMES, pa.timestamp("us", "UTC")), "c >= '2024-06'", [False, True]),
        (pa.array(TIMES, pa.timestamp("ns")), "c == '2025-01-01T00:00:00'", [False, True]),
        (pa.array([t.date() for t in TIMES]), "c < '2025-01-01'", [True, False]),
        (pa.array([decimal.Decimal("1.5"), decimal.Decimal("2.5")]), "c > 2", [False, True]),
        (pa.array(["a", "b"], pa.string_view()), "c in ('b',)", [False, True]),
        (pa.array([True, False]), "c == True", [True, False]),
        (pa.array(["true", "False"]), "c == False", [False, True]),
        (pa.array(["x", "3"]), "c > 2", [False, True]),
        (pa.array([{"a": 1}, {"a": 2}]), "c.b == 1 or c.a == 2", [False, True]),
        (pa.array([{"a": 1}, None]), "c.b is None", [True, True]),
    ],
)
def test_columns_of_every_type_are_compared(column, condition, holds):
    assert Where(condition).holds(pa.table({"c": column}), "rows").tolist() == holds


def test_a_field_that_some_file_lacks_is_missing_there(given, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for name, meta in (("a", {"lang": "en"}), ("b", {"size": 3})):
        rows = pa.table({"text": [f"words {name} {n}" for n in range(9)], "meta": [meta] * 9})
        pq.write_table(rows, pool / f"{name}.parquet")
    out = tmp_path / "chosen.jsonl"
    where = ("--budget", "100%", "--where", "meta.lang == 'en'")
    assert select(given, out, *where, pool=pool) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["meta"]["lang"] for row in rows} == {"en"}
    assert len(rows) == 9


def test_a_text_column_is_not_silently_compared_with_a_number(given, tmp_path, capsys):
    where = ("--budget", "5", "--where", "domain > 3")
    assert select(given, tmp_path / "a.jsonl", *where) == 2
    fails(capsys, "compares 'domain' with a number, and none of its 360 values is one")


def test_two_suffixes_of_one_name_do_not_share_a_report(given, tmp_path, capsys):
    assert select(given, tmp_path / "e.jsonl", "--budget", "5") == 0
    assert select(given, tmp_path / "e.csv", "--budget", "5") == 2
    fails(capsys, f"e.gotd has the reports of {tmp_path / 'e.jsonl'}")
    assert not (tmp_path / "e.csv").exists()
    assert select(given, tmp_path / "e.jsonl", "--budget", "6") == 0
    (tmp_path / "e.jsonl").unlink()
    assert select(given, tmp_path / "e.csv", "--budget", "5") == 0


def test_nothing_is_written_into_a_folder_of_inputs(given, tmp_path, capsys):
    for more in (
        ("--out", str(given.pool / "chosen.jsonl")),
        ("--out", str(tmp_path / "a.jsonl"), "--removed", str(given.pool / "r.jsonl")),
    ):
        arguments = ("--method", "random", "--budget", "5", *more)
        assert main(given.arguments(*arguments)) == 2
        fails(capsys, f"is inside the input {given.pool}")


def test_not_a_number_is_reported_where_json_lacks_it(given, tmp_path, caplog):
    pool = tmp_path / "pool.parquet"
    values = [float("nan"), float("inf"), 1.0]
    pq.write_table(pa.table({"text": ["one", "two", "three"], "x": values}), pool)
    assert select(given, tmp_path / "a.jsonl", "--budget", "3", pool=pool) == 0
    assert "a.jsonl: NaN or Infinity of 2 rows is null" in caplog.text


def test_token_budgets_name_the_files(given, tmp_path):
    assert select(given, tmp_path / "a.jsonl", "--tokens", "200,1k") == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "a-200.jsonl",
        "a-1k.jsonl",
        "a.gotd",
    }
    assert select(given, tmp_path / "a.jsonl", "--tokens", "200,1k") == 0


def test_a_map_is_a_list_of_pairs_in_a_data_set(given, tmp_path):
    kind = pa.map_(pa.string(), pa.list_(pa.int64()))
    rows = pa.table({"text": ["one"], "m": pa.array([[("a", [1]), ("b", None)]], kind)})
    pq.write_table(rows, tmp_path / "pool.parquet")
    pool = tmp_path / "pool.parquet"
    assert select(given, tmp_path / "a.hf", "--budget", "1", pool=pool) == 0
    row = datasets.load_from_disk(str(tmp_path / "a.hf"))[0]
    assert row["m"] == [{"key": "a", "value": [1]}, {"key": "b", "value": None}]


def test_long_values_are_cut_in_messages(given, tmp_path, capsys):
    for more in (
        ("--budget", "9" * 50 + "x" * 9000),
        ("--budget", "5", "--where", "a" * 9000 + "("),
    ):
        assert select(given, tmp_path / "a.jsonl", *more) == 2
        assert len(capsys.readouterr().err) < 600


def test_no_folder_is_created_for_a_list(given, tmp_path, capsys):
    more = ("--budget", "5", "--removed", str(tmp_path / "nodir" / "x.csv"))
    assert select(given, tmp_path / "a.jsonl", *more) == 2
    fails(capsys, f"there is no folder {tmp_path / 'nodir'}")
    assert list(tmp_path.iterdir()) == []


def test_a_report_shows_texts_as_they_are(given, tmp_path):
    (tmp_path / "pool.jsonl").write_text(json.dumps({"text": 'it\'s "so" <b>'}))
    pool = tmp_path / "pool.jsonl"
    assert select(given, tmp_path / "a.jsonl", "--budget", "1", pool=pool) == 0
    report = (tmp_path / "a.gotd" / "report.md").read_text()
    assert '| `it\'s "so" <b>` |' in report


def test_a_pool_of_one_row_is_selected(given, tmp_path):
    (tmp_path / "pool.jsonl").write_text(json.dumps({"text": "the cell and the tumor"}))
    arguments = ("--out", str(tmp_path / "a.jsonl"), "--budget", "1")
    assert main(given.arguments(*arguments, pool=str(tmp_path / "pool.jsonl"))) == 0


def test_an_unknown_tokenizer_is_an_error_at_once(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gotd.storage.model_files.hub_commit", lambda name: None)
    more = ("--tokens", "5", "--tokenizer", "nobody/nothing")
    assert select(given, tmp_path / "a.jsonl", *more) == 2
    fails(capsys, "'nobody/nothing' is no folder, and not known on the Hub")


def test_an_error_of_an_input_names_the_input(tmp_path):
    from gotd.pipeline.output import Output

    output = Output(tmp_path / "a.jsonl")
    with pytest.raises(OSError, match="/dev/absent: No such file"), output.filling():
        Path("/dev/absent").read_text()


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("a.jsonl", '{"text": "one", "a\\ud800b": 1}', "a.jsonl line 1: the name of field"),
        ("b.jsonl", '{"text": "one", "d": ' + "[" * 99999 + "]" * 99999 + "}", "b.jsonl line 1"),
        (os.fsdecode(b"bad\xff.jsonl"), '{"text": "one"}', "is not UTF-8; choose another name"),
    ],
)
def test_what_cannot_be_read_is_named(given, tmp_path, capsys, name, row, says):
    (tmp_path / name).write_text(row)
    out = tmp_path / "chosen.jsonl"
    assert select(given, out, "--budget", "1", pool=tmp_path / name) == 2
    fails(capsys, says)
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_deeply_nested_values_come_through(given, tmp_path, suffix):
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    (tmp_path / "pool.jsonl").write_text(json.dumps({"text": "one", "d": deep}))
    out = tmp_path / f"chosen{suffix}"
    assert select(given, out, "--budget", "1", pool=tmp_path / "pool.jsonl") == 0
    if suffix == ".parquet":
        assert json.loads(pq.read_table(out)["d"][0].as_py()) == deep
    else:
        assert json.loads(out.read_text())["d"] == deep


def test_a_run_that_is_terminated_leaves_nothing_half_written(given, tmp_path, monkeypatch, capsys):
    def terminate(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("gotd.pipeline.written.report", terminate)
    weights = ("--weights", str(tmp_path / "weights.parquet"))
    assert select(given, tmp_path / "a.jsonl", "--budget", "5", *weights) == 130
    assert capsys.readouterr().err.endswith("interrupted; run it again to resume\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
