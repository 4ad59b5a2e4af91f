"""The suffix of --out chooses the format, and every column of the candidates is in it."""

from __future__ import annotations

import csv
import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd import GOTD
from gotd.cli.main import main
from gotd.storage.artifacts import checksum

OWN = {"gotd_id", "gotd_score", "gotd_rank", "gotd_domain"}


@pytest.fixture(scope="module")
def rich(given, tmp_path_factory):
    """Rows with more columns, some of which have the names of gotd's own."""
    folder = tmp_path_factory.mktemp("rich")
    rows = [
        {
            "text": text,
            "id": number,
            "score": f"s{number}",
            "turns": [{"role": "user", "content": text[:9]}],
            "gotd_rank": -1,
        }
        for number, text in enumerate(given.rows.values())
    ]
    rows[0] |= {"turns": "none", "more": {"é": None}}
    (folder / "rich.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return folder / "rich.jsonl", rows


def select(given, pool, out, *more):
    assert (
        main(given.arguments("--out", str(out), "--method", "random", *more, pool=str(pool))) == 0
    )


def lines(path):
    raw = path.read_bytes()
    return list(
        map(json.loads, (gzip.decompress(raw) if path.suffix == ".gz" else raw).splitlines())
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".parquet", ".hf"])
def test_every_column_is_in_the_file(given, rich, tmp_path, suffix):
    pool, rows = rich
    out = tmp_path / f"chosen{suffix}"
    select(given, pool, out, "--budget", "360")
    reports = tmp_path / "chosen.gotd"
    manifest = json.loads((reports / "manifest.json").read_text("utf-8"))
    written = ["README.md", "manifest.json", "report.html", "report.md"]
    assert sorted(p.name for p in reports.iterdir()) == written
    assert list(manifest["files"]) == [out.name]
    if suffix != ".hf":
        assert manifest["files"][out.name]["sha256"] == checksum(out)
    if suffix.startswith(".jsonl"):
        found = lines(out)
    elif suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
    elif suffix == ".parquet":
        found = pq.read_table(out).to_pylist()
    else:
        found = list(datasets.load_from_disk(str(out)))
    assert [int(row["gotd_rank"]) for row in found] == list(range(1, 361))
    for row in found:
        original = dict(rows[int(row["id"])])
        assert str(row["gotd_id"]) == str(original["id"])
        assert row["gotd_domain"] == "rich"
        del original["gotd_rank"]  # an earlier selection's, replaced
        if suffix.startswith(".jsonl"):
            theirs = {name: value for name, value in row.items() if name not in OWN}
            assert theirs == {"more": None} | original
            continue
        for name in ("text", "score"):
            assert row[name] == original[name]
        assert row["turns"] == "none" or json.loads(row["turns"]) == original["turns"]
        more = row["more"]
        is_empty = more in (None, "")
        assert is_empty == ("more" not in original)


def test_a_carriage_return_is_no_end_of_a_row(given, tmp_path):
    table = pa.table({"text": [f"{text}\rmore" for text in given.rows.values()]})
    pq.write_table(table, tmp_path / "pool.parquet")
    select(given, tmp_path / "pool.parquet", tmp_path / "a.csv", "--budget", "9")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [int(row["gotd_rank"]) for row in found] == list(range(1, 10))
    assert all(row["text"].endswith("\rmore") for row in found)


def test_a_folder_has_the_other_columns_too(given, rich, tmp_path):
    pool, rows = rich
    select(given, pool, tmp_path / "chosen", "--budget", "7")
    table = pq.read_table(tmp_path / "chosen" / "selected.parquet")
    first = ["id", "text", "score", "rank", "domain"]
    assert table.column_names[:5] == first
    assert set(table.column_names[5:]) <= {"turns", "original_score", "gotd_rank", "more"}
    for row in table.to_pylist():
        assert row["original_score"] == rows[int(row["id"])]["score"]
    card = (tmp_path / "chosen" / "README.md").read_text("utf-8")
    assert "`original_score`" in card


def test_python_has_every_column(given, rich):
    pool, rows = rich
    chosen = GOTD(method="random").fit(given.target, pool).select(9)
    assert chosen.table["original_score"].to_pylist() == [rows[int(i)]["score"] for i in chosen.ids]
    table = pa.table({"text": list(given.rows.values()), "n": list(range(360))})
    chosen = GOTD(method="random").fit(given.target, table).select(9)
    texts = table["text"].to_pylist()
    assert [texts[n] for n in chosen.table["n"].to_pylist()] == chosen.texts


def test_several_budgets_are_several_files(given, rich, tmp_path):
    pool, _ = rich
    select(given, pool, tmp_path / "chosen.jsonl", "--budget", "3,5")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "chosen-3.jsonl",
        "chosen-5.jsonl",
        "chosen.gotd",
    ]
    large = lines(tmp_path / "chosen-5.jsonl")
    assert lines(tmp_path / "chosen-3.jsonl") == large[:3]
    assert "data_files: ../chosen-3.jsonl" in (tmp_path / "chosen.gotd" / "README.md").read_text()


def test_a_chunk_is_no_original_row(given, rich, tmp_path):
    pool, _ = rich
    select(given, pool, tmp_path / "chosen.jsonl", "--budget", "3", "--unit", "fixed")
    assert set(lines(tmp_path / "chosen.jsonl")[0]) == {"id", "text", "score", "rank", "domain"}
    report = (tmp_path / "chosen.gotd" / "report.md").read_text("utf-8")
    assert "their other columns are not in the output" in report


def test_a_file_is_replaced_only_if_gotd_wrote_it(given, rich, tmp_path, capsys):
    pool, _ = rich
    out = tmp_path / "chosen.csv"
    out.write_text("mine")
    arguments = given.arguments("--out", str(out), "--budget", "3", pool=str(pool))
    assert main(arguments) == 2
    assert f"{out} exists and was not written by gotd select" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["chosen.csv"]
    assert main([*arguments, "--overwrite"]) == 0
    assert main(arguments) == 0
    assert out.read_text().startswith("text,id,")


@pytest.mark.parametrize("suffix", [".jsonl", ".hf"])
def test_a_data_set_is_replaced_by_the_next(given, rich, tmp_path, suffix):
    pool, _ = rich
    for budget in ("3", "4"):
        select(given, pool, tmp_path / f"chosen{suffix}", "--budget", budget)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chosen.gotd", f"chosen{suffix}"]


def test_an_input_is_never_replaced(given, rich, tmp_path, capsys):
    pool, rows = rich
    copy = tmp_path / "pool.jsonl"
    copy.write_bytes(pool.read_bytes())
    arguments = given.arguments("--out", str(copy), "--budget", "3", pool=str(copy))
    assert main([*arguments, "--overwrite"]) == 2
    assert f"{copy} is the input {copy}" in capsys.readouterr().err
    assert copy.read_bytes() == pool.read_bytes()


def test_a_format_that_is_not_written_is_refused(given, tmp_path, capsys):
    assert main(given.arguments("--out", str(tmp_path / "chosen.json"), "--budget", "3")) == 2
    assert "rows are written as .jsonl, .jsonl.gz, .parquet, .csv, .hf" in capsys.readouterr().err


def test_candidates_that_change_meanwhile_are_refused(given, rich, tmp_path, capsys, monkeypatch):
    pool, _ = rich
    copy = tmp_path / "pool.jsonl"
    copy.write_bytes(pool.read_bytes())

    from gotd.cli import select as module

    write = module.write_selection

    def change(*given, **more):
        with copy.open("a") as file:
            file.write('\n{"text": "new", "id": 9999}')
        return write(*given, **more)

    monkeypatch.setattr(module, "write_selection", change)
    out = tmp_path / "chosen.jsonl"
    assert main(given.arguments("--out", str(out), "--budget", "3", pool=str(copy))) == 2
    assert "pool has changed since it was read" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["pool.jsonl"]
