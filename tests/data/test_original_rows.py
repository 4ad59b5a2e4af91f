"""Original rows come back with every value, in any order, and only if nothing changed."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd.data.column_types import to_json
from gotd.data.columns import Columns
from gotd.data.inputs import File, InMemory
from gotd.data.original_rows import OriginalRows


def opened(folder: Path, parts, ids) -> OriginalRows:
    copies = folder / "copies"
    copies.mkdir(exist_ok=True)
    return OriginalRows(parts, [part.identity() for part in parts], pa.array(ids), copies)


def json_part(path: Path, rows) -> File:
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return File(path, path.name.removesuffix(".jsonl"), Columns())


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from("abc"), values), min_size=1, max_size=6))
def test_json_values_are_unchanged(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    rows = [{"text": "x", **row} for row in rows]
    part = json_part(folder / "pool.jsonl", rows)
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    found = opened(folder, [part], [f"pool#{row + 1}" for row in order])
    records = found.records(0, len(rows))
    names = {name for row in rows for name in row}
    assert records == [dict.fromkeys(names) | rows[row] for row in order]  # absent is null
    assert [json.loads(to_json(record)) for record in records] == records
    table = found.table(0, len(rows))
    pq.write_table(table, folder / "rows.parquet")
    for row, mine in zip(table.to_pylist(), records, strict=True):
        for name, value in mine.items():
            if isinstance(value, bool | int | str):
                as_json = table.schema.field(name).type == pa.large_string()
                assert row[name] == value or (as_json and json.loads(row[name]) == value)


def test_a_table_keeps_its_types_and_rows_may_repeat(tmp_path):
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "text": ["one", "two", "three"],
            "when": pa.array([1, 2, 3], pa.timestamp("us")),
            "price": [Decimal("1.50"), None, Decimal("2.00")],
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "turns": [[{"role": "user", "n": 1}], [], None],
        }
    )
    pq.write_table(table, tmp_path / "pool.parquet")
    found = opened(tmp_path, [File(tmp_path / "pool.parquet", "pool", Columns())], ["c", "a", "c"])
    assert len(found) == 3
    assert found.table(0, 3).equals(table.take(pa.array([2, 0, 2])))
    assert found.table(1, 2).to_pylist() == table.slice(0, 1).to_pylist()


def test_sources_with_other_columns_are_joined(tmp_path):
    one = json_part(tmp_path / "one.jsonl", [{"text": "a", "n": 1}, {"text": "b", "n": "two"}])
    other = InMemory(pa.table({"text": ["c"], "m": [0.5]}), "other", Columns())
    found = opened(tmp_path, [one, other], ["other#1", "one#2", "one#1"])
    assert found.table(0, 3).to_pylist() == [
        {"text": "c", "n": None, "m": 0.5},
        {"text": "b", "n": '"two"', "m": None},
        {"text": "a", "n": "1", "m": None},
    ]


def test_whole_numbers_are_not_rounded_to_fit_beside_fractions(tmp_path):
    rows = [{"text": "a", "n": 2**53 + 1}, {"text": "b", "n": 0.5}]
    found = opened(tmp_path, [json_part(tmp_path / "p.jsonl", rows)], ["p#1", "p#2"])
    assert [json.loads(n) for n in found.table(0, 2)["n"].to_pylist()] == [2**53 + 1, 0.5]


def test_a_changed_source_is_refused(tmp_path):
    part = json_part(tmp_path / "pool.jsonl", [{"text": "a"}])
    before = [part.identity()]
    json_part(tmp_path / "pool.jsonl", [{"text": "another"}])
    with pytest.raises(ValueError, match="pool has changed since it was read"):
        OriginalRows([part], before, pa.array(["pool#1"]), tmp_path)


def test_reading_ends_when_all_rows_are_found(tmp_path):
    first = json_part(tmp_path / "a.jsonl", [{"text": "a"}])
    absent = File(tmp_path / "absent.jsonl", "absent", Columns())
    found = OriginalRows([first, absent], [first.identity(), {}], pa.array(["a#1"]), tmp_path)
    assert found.records(0, 1) == [{"text": "a"}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "null"),
        ([float("inf")], "[null]"),
        (b"\x00", '"AA=="'),
        ("\ud800", '"\\ud800"'),
    ],
)
def test_what_json_lacks_is_written_so_that_it_can_be_read(value, expected):
    assert to_json(value) == expected


@pytest.mark.usefixtures("few_open_files")
def test_rows_of_many_files_do_not_keep_all_of_them_open(tmp_path):
    parts = [json_part(tmp_path / f"f{n}.jsonl", [{"text": "x", "n": n}]) for n in range(60)]
    found = opened(tmp_path, parts, [f"f{n}#1" for n in reversed(range(60))])
    for start in (0, 20, 0):
        records = found.records(start, 60)
        assert [record["n"] for record in records] == [*reversed(range(60 - start))]
