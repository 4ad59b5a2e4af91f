"""`gotd select --plan`: sizes of files, what is written meanwhile, and how near it comes."""

from __future__ import annotations

import bz2
import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.cli.main import main
from gotd.data import head_rows
from gotd.data.columns import Columns
from gotd.data.head_rows import HeadRows, size_of
from gotd.data.inputs import File
from gotd.planning.selection import _line

ROWS = [{"text": f"row {n} of the \n cells"} for n in range(3000)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    lines = "\n".join(map(json.dumps, ROWS))
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, folder / "a.parquet")
    (folder / "b.jsonl").write_text(lines)
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "d.jsonl.bz2").write_bytes(bz2.compress(lines.encode()))
    (folder / "e.json").write_text(json.dumps(ROWS))
    with (folder / "f.csv").open("w") as file:
        file.write("text\n" + "\n".join(f'"{row["text"]}"' for row in ROWS) + "\n")
    return folder


NAMES = ["a.parquet", "b.jsonl", "c.jsonl.gz", "d.jsonl.bz2", "e.json", "f.csv"]


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_counted_in_small_files_and_estimated_in_large_ones(files, name, monkeypatch):
    part = File(files / name, "pool", Columns())
    assert size_of(part).rows == 3000
    monkeypatch.setattr(head_rows, "SAMPLE_BYTES", 20_000)
    size = size_of(part)
    if name in ("a.parquet", "b.jsonl", "e.json", "f.csv"):
        assert size.rows == pytest.approx(3000, rel=0.1)
    assert size.data_bytes == (files / name).stat().st_size
    assert size.exact is (name == "a.parquet")


def test_the_first_rows_of_a_part_are_those_of_the_part(files):
    part = File(files / "b.jsonl", "pool", Columns())
    head = HeadRows(part, 7)
    for tables in (head.pieces(), head.originals()):
        texts = pa.concat_tables(tables)["text"].to_pylist()
        assert texts == [row["text"] for row in ROWS[:7]]


def test_a_line_through_two_points_never_falls():
    assert _line(10, 20, 1.0, 2.0, 100) == pytest.approx(10)
    assert _line(10, 20, 2.0, 1.0, 100) == 1.0
    assert _line(10, 10, 2.0, 3.0, 100) == 3.0


@pytest.mark.slow
def test_a_plan_keeps_nothing_and_knows_rows_and_bytes(tmp_path, capsys):
    pool = [{"id": str(n), "text": f"words of the cell number {n}" * 4} for n in range(12_000)]
    pq.write_table(pa.Table.from_pylist(pool), tmp_path / "pool.parquet")
    (tmp_path / "mine.txt").write_text("\n".join(f"a tumor cell {n}" for n in range(50)))
    before = sorted(tmp_path.rglob("*"))
    arguments = ["select", "--target", f"{tmp_path}/mine.txt", "--candidates"]
    arguments += [f"{tmp_path}/pool.parquet", "--method", "dsir", "--budget", "600"]
    arguments += ["--out", f"{tmp_path}/out.jsonl", "--store", f"{tmp_path}/store"]
    assert main([*arguments, "--plan"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    shown = capsys.readouterr().out
    assert "candidates  1 file, 12,000 rows" in shown
    stored = re.search(r"memory, ([\d.]+) MiB", shown)
    assert stored
    assert main(arguments) == 0
    kept = sum(one.stat().st_size for one in (tmp_path / "store").rglob("*") if one.is_file())
    assert float(stored[1]) * 2**20 == pytest.approx(kept, rel=0.3)
    assert main([*arguments, "--plan"]) == 0
    assert "in the store already: candidates, left out, target" in capsys.readouterr().out
