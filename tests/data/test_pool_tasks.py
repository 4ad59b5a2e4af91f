"""A pool whose files are read in tasks has the bytes of one that is read in one go."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.schemas import Chunking
from gotd.data import pool, unique_ids
from gotd.data.columns import Columns
from gotd.data.inputs import named_parts
from gotd.data.pool import pool_facts, write_pool
from gotd.data.pool_tasks import shard_ranges, write_pool_in_tasks
from gotd.data.unique_ids import hash_strings, repeated, repeated_among
from gotd.engine.local import THIS_PROCESS, LocalEngine


class Elsewhere:
    """Runs items like other processes: of copies, in any order, some of them twice."""

    def map(self, function, items: Iterable):
        items, found = list(items), {}
        order = [*range(len(items)), *range(0, len(items), 3)]
        random.Random(len(items)).shuffle(order)
        for place in order:
            try:
                found[place] = pickle.loads(pickle.dumps(function))(items[place])
            except Exception as error:  # noqa: BLE001 - raised at its item
                found[place] = error
        for place in range(len(items)):
            if isinstance(found[place], Exception):
                raise found[place]
            yield pickle.loads(pickle.dumps(found[place]))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(pool, "SHARD_ROWS", 64)
    monkeypatch.setattr(pool, "SHARD_BYTES", 3000)
    monkeypatch.setattr("gotd.data.table_files.ROWS_PER_PIECE", 23)
    monkeypatch.setattr("gotd.storage.files.flush", lambda path: None)  # a disk is slow


def text(number: int) -> str:
    return " \u200b" if number % 17 == 3 else f"passage {number} é " + "word " * (number % 40)


@pytest.fixture
def files(tmp_path) -> Path:
    """Write a file of each format, of which one has many rows and one has no visible text."""
    folder = tmp_path / "given"
    folder.mkdir()
    rows = [{"id": f"r{i}", "text": text(i), "domain": f"d{i % 3}"} for i in range(400)]
    pq.write_table(pa.Table.from_pylist(rows[:150]), folder / "a.parquet", row_group_size=40)
    lines = "".join(json.dumps(row) + "\n" for row in rows[150:200])
    (folder / "b.jsonl").write_text(lines, "utf-8")
    named = [f'{row["id"]},"{row["text"]}",{row["domain"]}\n' for row in rows[200:260]]
    (folder / "c.csv").write_text("id,text,domain\n" + "".join(named), "utf-8")
    (folder / "d.txt").write_text("".join(f"{text(i)}\n" for i in range(260, 290)), "utf-8")
    blank = pa.table({"id": ["x", "y"], "text": [" ", "\u200b"]})
    pq.write_table(blank, folder / "e.parquet")
    pq.write_table(pa.Table.from_pylist(rows[290:]), folder / "f.parquet")
    return folder


def parts(folder: Path):
    return named_parts([str(folder)], Columns(), folder / "hub.json")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}


CHUNKINGS = [Chunking("whole"), Chunking("whole", min_chars=40), Chunking("fixed", 60, 30)]


@pytest.mark.parametrize("chunking", CHUNKINGS, ids=["whole", "long", "fixed"])
@pytest.mark.parametrize("engine", [THIS_PROCESS, LocalEngine(3), Elsewhere()])
def test_the_bytes_are_those_of_one_process(files, tmp_path, chunking, engine):
    write_pool(parts(files), tmp_path / "one", chunking)
    write_pool_in_tasks(parts(files), tmp_path / "tasks", chunking, engine)
    assert contents(tmp_path / "tasks") == contents(tmp_path / "one")
    facts = pool_facts(tmp_path / "tasks")
    assert len(facts["rows"]) > 4
    assert facts["blank_rows"] > 20


def test_rows_are_those_of_the_files(files, tmp_path):
    write_pool_in_tasks(parts(files), tmp_path / "tasks", Chunking("whole"), Elsewhere())
    texts = [
        line
        for shard in pool.open_pool(tmp_path / "tasks")
        for line in zip(shard.ids.to_pylist(), shard.texts.to_pylist(), strict=True)
    ]
    visible = [i for i in range(400) if i % 17 != 3]
    names = [f"d#{i - 259}" if 260 <= i < 290 else f"r{i}" for i in visible]
    assert [name for name, _ in texts] == names
    assert [shown.rstrip() for _, shown in texts] == [text(i).rstrip() for i in visible]


class Stopped(KeyboardInterrupt):
    pass


class Stops:
    """An engine that ends after so many items of its life."""

    def __init__(self, left: int) -> None:
        self.left = left

    def map(self, function, items):
        for item in items:
            if not self.left:
                raise Stopped
            self.left -= 1
            yield function(item)


@pytest.mark.parametrize("left", [0, 2, 6, 9])
@pytest.mark.parametrize("by_tasks", [True, False])
def test_a_run_that_was_stopped_goes_on_with_the_same_bytes(files, tmp_path, left, by_tasks):
    chunking = Chunking("whole", min_chars=40)
    write_pool(parts(files), tmp_path / "one", chunking)
    broken = tmp_path / "broken"
    with pytest.raises(Stopped):
        write_pool_in_tasks(parts(files), broken, chunking, Stops(left))
    done = {path: path.stat().st_mtime_ns for path in (broken / ".work").glob("*.arrow")}
    if by_tasks:
        write_pool_in_tasks(parts(files), broken, chunking, Elsewhere())
        assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    else:
        write_pool(parts(files), broken, chunking)
    assert contents(broken) == contents(tmp_path / "one")


def bad_json(folder: Path) -> None:
    with (folder / "b.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "z", "text": 7}\n')


def cut_off(folder: Path) -> None:
    (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-900] + b"x" * 900)


def no_text(folder: Path) -> None:
    for path in folder.glob("*"):
        path.unlink()
    for name in "ab":
        pq.write_table(pa.table({"id": ["x", "y"], "text": [" ", ""]}), folder / f"{name}.parquet")


def same_id(folder: Path) -> None:
    texts = ["passage " * 30, "another " * 30]
    rows = pa.table({"id": ["p", "r39"], "text": texts, "domain": ["d", "d"]})
    pq.write_table(rows, folder / "z.parquet")


@pytest.mark.parametrize("spoil", [bad_json, cut_off, no_text, same_id])
@pytest.mark.parametrize("chunking", CHUNKINGS[1:], ids=["long", "fixed"])
def test_a_bad_file_is_the_same_line(files, tmp_path, spoil, chunking):
    given = parts(files)
    spoil(files)
    given = given if spoil in (bad_json, cut_off) else parts(files)
    lines = []
    for write in (write_pool, lambda *all: write_pool_in_tasks(*all, Elsewhere())):
        with pytest.raises(ValueError, match=r"\w") as raised:
            write(given, tmp_path / f"pool{len(lines)}", chunking)
        lines.append((type(raised.value), str(raised.value)))
    assert lines[0] == lines[1]
    assert "\n" not in lines[0][1]


@pytest.mark.parametrize("seed", range(20))
def test_shards_end_where_counting_row_by_row_ends_them(seed):
    rng = random.Random(seed)
    sizes = [[rng.randrange(0, 40) for _ in range(rng.randrange(0, 50))] for _ in range(6)]
    expected, rows, held = [], [], 0
    for number, own in enumerate(sizes):
        for row, size in enumerate(own):
            rows.append((number, row))
            held += size
            if len(rows) == 11 or held >= 150:
                expected.append(rows)
                rows, held = [], 0
    expected += [rows] if rows else []
    found = shard_ranges([np.cumsum(own, dtype=np.int64) for own in sizes], 11, 150)
    assert [
        [(number, row) for number, start, stop in ranges for row in range(start, stop)]
        for ranges in found
    ] == expected


@pytest.mark.parametrize("at_once", [3, 10, 1000])
def test_a_repeated_id_is_found_in_any_range_of_hashes(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(unique_ids, "HASHES_AT_ONCE", at_once)

    def found(shards: list[list[str]]) -> str | None:
        ids = [pa.array(shard, pa.string()) for shard in shards]
        paths = [tmp_path / f"{number}.npy" for number in range(len(ids))]
        for path, shard in zip(paths, ids, strict=True):
            np.save(path, np.sort(hash_strings(shard)))
        name = repeated_among(paths, sum(map(len, shards)), lambda: ids, Elsewhere())
        assert name == repeated(ids)
        return name

    shards = [[f"{shard}-{row}" for row in range(9)] for shard in range(4)]
    assert found(shards) is None
    for row in range(9):
        assert found([*shards, [f"2-{row}", "other"]]) == f"2-{row}"
