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

from gotd import GOTD
from gotd.config.schemas import Chunking
from gotd.data import pool, row_groups, unique_ids
from gotd.data.base import PinnedPart
from gotd.data.columns import Columns
from gotd.data.inputs import named_parts
from gotd.data.pool import pool_facts, write_pool
from gotd.data.pool_tasks import count_readings, shard_ranges, write_pool_in_tasks
from gotd.data.unique_ids import hash_strings, repeated, repeated_among
from gotd.engine.local import THIS_PROCESS, LocalEngine
from gotd.pipeline.steps import pools
from gotd.storage import files as storage_files
from gotd.storage.artifacts import Store


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
    monkeypatch.setattr(row_groups, "RANGE_ROWS", 70)
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


def rows_of_one_file() -> pa.Table:
    """Return rows without ids, of which those of a range of row groups lack a text."""
    texts = [None if 140 <= i < 260 or i % 29 == 5 else text(i) for i in range(500)]
    return pa.table({"text": texts, "domain": [f"d{i % 3}" if i % 7 else None for i in range(500)]})


def one_file(folder: Path, table: pa.Table, group_rows: int = 20):
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "one.parquet", row_group_size=group_rows)
    return named_parts([str(folder / "one.parquet")], Columns(), folder / "hub.json")


@pytest.mark.parametrize("group_rows", [1, 20, 499, 500])
def test_ranges_hold_all_row_groups_in_order(tmp_path, monkeypatch, group_rows):
    one_file(tmp_path, rows_of_one_file(), group_rows)
    metadata = pq.read_metadata(tmp_path / "one.parquet")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for most_bytes in (2**30, 5000, 1):
        monkeypatch.setattr(row_groups, "RANGE_BYTES", most_bytes)
        ranges = list(row_groups.ranges_of(metadata))
        assert [n for own in ranges for n in range(own.start, own.stop)] == [*range(len(groups))]
        for own in ranges:
            assert own.first_row == 1 + sum(group.num_rows for group in groups[: own.start])
            but_last = groups[own.start : own.stop - 1]
            assert sum(group.num_rows for group in but_last) < 70
            assert sum(group.total_byte_size for group in but_last) < most_bytes
    assert len(ranges) == len(groups)


@pytest.mark.parametrize("chunking", CHUNKINGS, ids=["whole", "long", "fixed"])
@pytest.mark.parametrize("engine", [THIS_PROCESS, LocalEngine(3), Elsewhere()])
def test_one_file_is_read_by_many_tasks_with_the_same_bytes(tmp_path, caplog, chunking, engine):
    parts = one_file(tmp_path, rows_of_one_file())
    assert count_readings(parts, chunking) == (1 if chunking.unit == "fixed" else 7)
    write_pool(parts, tmp_path / "one", chunking)
    warned = [record.getMessage() for record in caplog.records]
    caplog.clear()
    write_pool_in_tasks(parts, tmp_path / "tasks", chunking, engine)
    assert contents(tmp_path / "tasks") == contents(tmp_path / "one")
    (line,) = warned
    assert line.endswith("134 of 500 rows lack 'text'")
    found = [record.getMessage() for record in caplog.records]
    if chunking.unit == "fixed":  # reported by the task, which may run twice
        found = [*{*found}]
    assert found == warned


def test_the_step_reads_one_file_in_tasks(tmp_path, monkeypatch):
    read = []

    def in_tasks(parts, *more):
        read.append(count_readings(parts, Chunking("whole")))
        write_pool_in_tasks(parts, *more)

    monkeypatch.setattr(pools, "write_pool_in_tasks", in_tasks)
    stored = []
    for name, group_rows, engine in (
        ("here", 20, THIS_PROCESS),
        ("one task", 500, Elsewhere()),
        ("tasks", 20, Elsewhere()),
    ):
        parts = one_file(tmp_path / name, rows_of_one_file(), group_rows)
        step = pools.pool("candidates", parts, Chunking("whole"), engine=engine)
        folder = Store(tmp_path / f"store {name}").get(step)
        stored.append({path.name: path.read_bytes() for path in folder.glob("rows-*")})
    assert read == [7]
    assert stored[0] == stored[1] == stored[2]


class NewProcesses(Elsewhere):
    """Runs each item like a process that has computed no checksum yet."""

    def map(self, function, items):
        def run(item):
            storage_files._known.clear()
            return function(item)

        for item in items:
            yield run(item)


def test_a_condition_meets_the_rows_that_tasks_have_read(tmp_path):
    numbers = pa.array(range(500))
    table = rows_of_one_file().append_column("number", numbers)
    one_file(tmp_path, table)
    left = []
    for name, engine in (("here", THIS_PROCESS), ("tasks", NewProcesses())):
        chooser = GOTD(method="dsir", engine=engine, store=tmp_path / name)
        chooser.fit(["passage word", "word word"], tmp_path / "one.parquet", where="number >= 231")
        left.append(sorted(row.id for row in chooser.select(150).to_pandas().itertuples()))
    assert left[0] == left[1]
    assert {int(name.partition("#")[2]) > 231 for name in left[0]} == {True}


def test_no_task_reads_all_of_a_file_for_its_checksum(tmp_path, monkeypatch):
    parts = one_file(tmp_path, rows_of_one_file())
    pinned = [PinnedPart(part, part.identity()) for part in parts]

    def checksum(path):
        raise AssertionError("the checksum is known")

    with monkeypatch.context() as during:
        during.setattr(storage_files, "checksum", checksum)
        write_pool_in_tasks(pinned, tmp_path / "tasks", Chunking("whole"), NewProcesses())
    one_file(tmp_path, rows_of_one_file().slice(1))
    with pytest.raises(ValueError, match="has changed since it was read"):
        write_pool_in_tasks(pinned, tmp_path / "again", Chunking("whole"), NewProcesses())


@pytest.mark.parametrize("left", [0, 1, 4, 7, 9])
@pytest.mark.parametrize("then", ["the same", "other ranges", "one process"])
def test_a_stopped_run_goes_on_inside_one_file(tmp_path, monkeypatch, left, then):
    chunking, broken = Chunking("whole", min_chars=40), tmp_path / "broken"
    parts = one_file(tmp_path, rows_of_one_file())
    write_pool(parts, tmp_path / "one", chunking)
    with pytest.raises(Stopped):
        write_pool_in_tasks(parts, broken, chunking, Stops(left))
    done = {path: path.stat().st_mtime_ns for path in (broken / ".work").glob("part-*.arrow")}
    assert len(done) == min(left, 7)
    if then == "one process":
        write_pool(parts, broken, chunking)
    else:
        if then == "other ranges":
            monkeypatch.setattr(row_groups, "RANGE_ROWS", 100)
        write_pool_in_tasks(parts, broken, chunking, Elsewhere())
        assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert contents(broken) == contents(tmp_path / "one")


def spoilt(fault: str) -> pa.Table:
    texts = [text(i).encode() for i in range(500)]
    names: list[str | None] = [f"r{i}" for i in range(500)]
    if fault == "text":
        texts[233] = b"caf\xe9"
    if fault == "id":
        names[411] = None
    if fault == "both":  # around the end of a range
        names[238], names[239], texts[241], texts[330] = None, None, b"\xff", b"\xff"
    if fault == "same id":
        names[77] = names[401]
    if fault == "all null":
        return pa.table({"id": names, "text": pa.nulls(500, pa.string())})
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(texts))]
    return pa.table({"id": names, "text": pa.Array.from_buffers(pa.string(), 500, buffers)})


FAULTS = {
    "text": "row 234: 'text' is not UTF-8",
    "id": "row 412",
    "both": "row 239",
    "same id": "row 78 and one row 402",
    "all null": "'text' is missing or null in every row",
    "damaged": "cut off, damaged or not Parquet",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_in_the_middle_of_one_file_is_the_same_line(tmp_path, fault):
    parts = one_file(tmp_path, spoilt(fault))
    if fault == "damaged":
        path = tmp_path / "one.parquet"
        middle = pq.read_metadata(path).row_group(13).column(1).data_page_offset
        content = bytearray(path.read_bytes())
        content[middle : middle + 40] = b"x" * 40
        path.write_bytes(content)
    # Of a file after it that is bad, too, nothing is said.
    after = tmp_path / "after.parquet"
    pq.write_table(pa.table({"text": ["a", "b"], "id": ["x", None]}), after)
    if fault != "same id":
        parts += named_parts([str(after)], Columns(), tmp_path / "hub.json")
    lines = []
    for write in (write_pool, lambda *all: write_pool_in_tasks(*all, Elsewhere())):
        with pytest.raises(ValueError, match=r"\w") as raised:
            write(parts, tmp_path / f"pool{len(lines)}", Chunking("whole"))
        lines.append((type(raised.value), str(raised.value)))
    assert lines[0] == lines[1]
    assert FAULTS[fault] in lines[0][1]


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


@pytest.mark.usefixtures("few_open_files")
def test_a_pool_of_many_shards_is_written_with_few_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "SHARD_ROWS", 5)
    parts = one_file(tmp_path, rows_of_one_file(), group_rows=1)
    monkeypatch.setattr(row_groups, "RANGE_ROWS", 5)
    write_pool_in_tasks(parts, tmp_path / "tasks", Chunking("whole"), THIS_PROCESS)
    assert len(pool_facts(tmp_path / "tasks")["rows"]) > 60
    assert len(pool.open_pool(tmp_path / "tasks")) > 60
