"""What names stand for, rows from memory, and the Hub without its code or a network."""

from __future__ import annotations

import json
import socket

import datasets
import huggingface_hub
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.data.base import SourceUnavailable
from gotd.data.columns import Columns
from gotd.data.hub.access import recorded, remember
from gotd.data.hub.stream import HubRows, parse_hub
from gotd.data.inputs import named_parts, table_parts
from gotd.data.row_shapes import SHAPES_VERSION

ROWS = pa.table({"id": ["1", "2"], "text": ["a", "b"], "domain": ["x", "y"]})
REVISION = "0123456789abcdef0123456789abcdef01234567"
load_locally = datasets.load_dataset


def given(tmp_path, *names):
    return named_parts([str(name) for name in names], Columns(), tmp_path / "hub.json")


def rows(part):
    return pa.concat_tables(list(part.pieces())).to_pylist()


# Files --------------------------------------------------------------------------------


def test_folders_patterns_and_files_stand_for_their_files(tmp_path):
    for name in ("b.parquet", "a.parquet", "sub/c.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(ROWS, tmp_path / name)
    (tmp_path / "notes.md").write_text("no rows")
    by_folder = given(tmp_path, tmp_path)
    assert [part.label for part in by_folder] == ["a", "b", "c"]
    assert [p.label for p in given(tmp_path, tmp_path / "**" / "*.parquet")] == ["a", "b", "c"]
    assert [p.label for p in given(tmp_path, tmp_path / "sub", tmp_path / "b.parquet")] == [
        "c",
        "b",
    ]
    with pytest.raises(ValueError, match=r"a.parquet is given twice"):
        given(tmp_path, tmp_path, tmp_path / "a.parquet")


def test_a_pattern_is_read_as_one_though_a_file_has_its_name(tmp_path):
    for name in ("a", "b", "*", "rows[1]", "rows1", "x[1]y", "x1*"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n')
    for name, labels in {
        "*.jsonl": ["*", "a", "b", "rows1", "rows[1]", "x1*", "x[1]y"],
        "?.jsonl": ["*", "a", "b"],
        "rows[1].jsonl": ["rows[1]"],  # it does not match itself
        "x[1]*.jsonl": ["x1*"],
        "x1*.jsonl": ["x1*"],
    }.items():
        assert sorted(p.label for p in given(tmp_path, tmp_path / name)) == labels
    (tmp_path / "rows[1].jsonl").unlink()
    assert [p.label for p in given(tmp_path, tmp_path / "rows[1].jsonl")] == ["rows1"]


def test_a_name_that_is_not_there_is_one_short_line(tmp_path):
    for number in range(300):
        (tmp_path / f"part-{number:04d}.jsonl").write_text("")
    with pytest.raises(FileNotFoundError) as close:
        given(tmp_path, tmp_path / "part-00007.jsonl")
    assert "part-0007.jsonl" in str(close.value)
    assert str(close.value).endswith("and 297 more")
    with pytest.raises(FileNotFoundError, match=r"part-0009.jsonl and 290 more$"):
        given(tmp_path, tmp_path / "zzz")


def test_columns_that_are_many_are_not_all_listed():
    table = pa.table({f"feature {number}": [0] for number in range(500)})
    (part,) = table_parts(table.append_column("txt", [["a"]]), "mine", Columns(("text",)))
    with pytest.raises(ValueError, match="no column 'text'; it has txt and 500 more: rename"):
        rows(part)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text('{"text": "a"}\n')
    parts = given(tmp_path, tmp_path / "one", tmp_path / "two")
    assert [rows(part)[0]["id"] for part in parts] == ["one/rows.jsonl#1", "two/rows.jsonl#1"]


def test_a_file_is_known_by_its_content_not_its_place(tmp_path):
    identities = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        pq.write_table(ROWS, tmp_path / folder / "rows.parquet")
        identities.append(given(tmp_path, tmp_path / folder)[0].identity())
    assert identities[0] == identities[1]
    pq.write_table(ROWS.slice(1), tmp_path / "there" / "rows.parquet")
    assert given(tmp_path, tmp_path / "there")[0].identity() != identities[0]


# Memory -------------------------------------------------------------------------------


def test_the_same_bytes_in_another_format_are_other_rows(tmp_path):
    content = 'text\n"one, two"\n"three\nfour"\n'
    for name in ("rows.txt", "rows.csv"):
        (tmp_path / name).write_text(content)
    (plain,), (table,) = (
        given(tmp_path, tmp_path / "rows.txt"),
        given(tmp_path, tmp_path / "rows.csv"),
    )
    assert [row["text"] for row in rows(table)] == ["one, two", "three\nfour"]
    assert len(rows(plain)) == 4
    assert plain.identity() != table.identity()


def test_a_csv_header_that_is_not_utf8_names_the_file(tmp_path):
    (tmp_path / "rows.csv").write_bytes(b"te\xffxt,domain\na,b\n")
    with pytest.raises(ValueError, match="rows.csv is not CSV in UTF-8"):
        rows(given(tmp_path, tmp_path / "rows.csv")[0])


def test_long_texts_in_memory_come_in_pieces_that_fit(monkeypatch):
    monkeypatch.setattr("gotd.data.table_files.BYTES_PER_PIECE", 1000)
    (part,) = table_parts(["a" * 300] * 20, "mine", Columns())
    assert max(piece["text"].nbytes for piece in part.pieces()) < 1200
    assert [row["id"] for row in rows(part)] == [f"mine#{n}" for n in range(1, 21)]


@pytest.mark.parametrize(
    "table",
    [ROWS, ROWS.to_pandas(), datasets.Dataset.from_dict(ROWS.to_pydict()), ROWS.to_pandas()[::1]],
    ids=["arrow", "pandas", "datasets", "slice"],
)
def test_tables_of_every_kind_are_the_same_rows(table):
    (part,) = table_parts(table, "mine", Columns())
    assert rows(part) == ROWS.to_pylist()
    (plain,) = table_parts(ROWS, "mine", Columns())
    assert part.identity() == plain.identity()


def test_texts_alone_are_numbered():
    (part,) = table_parts(["a", "b"], "mine", Columns())
    assert rows(part) == [
        {"id": "mine#1", "text": "a", "domain": "mine"},
        {"id": "mine#2", "text": "b", "domain": "mine"},
    ]
    (other,) = table_parts(["a", "c"], "mine", Columns())
    assert other.identity() != part.identity()
    with pytest.raises(TypeError, match="not dict"):
        table_parts({"a": 1}, "mine", Columns())
    (missing,) = table_parts(pd.DataFrame({"body": ["a"]}), "mine", Columns())
    with pytest.raises(ValueError, match="mine has no column 'text'; it has body"):
        rows(missing)


# The Hub ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("a/b", ("a/b", None, "train")),
        ("glue:rte", ("glue", "rte", "train")),
        ("a/b:c:validation", ("a/b", "c", "validation")),
        ("a/b::test", ("a/b", None, "test")),
    ],
)
def test_names_on_the_hub(name, means):
    assert parse_hub(name) == means


@pytest.mark.parametrize("name", ["", "a b", "a/b:c:d:e", "../x", "a/b/c", "https://hub"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="names no data set"):
        parse_hub(name)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Stand a local file in for a data set on the Hub."""
    calls = []
    pq.write_table(ROWS, tmp_path / "published.parquet")

    def load(dataset, config, *, split, revision, streaming, **_):
        calls.append((dataset, config, split, revision, streaming))
        file = {split: str(tmp_path / "published.parquet")}
        cache = str(tmp_path / "cache")
        return load_locally(
            "parquet", data_files=file, split=split, streaming=streaming, cache_dir=cache
        )

    class Info:
        sha = REVISION

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: Info())
    return calls


def test_a_data_set_is_streamed_at_a_recorded_commit(published, tmp_path, monkeypatch):
    (part,) = given(tmp_path, "hub:some/rows:plain:test")
    assert rows(part) == ROWS.to_pylist()
    assert published == [("some/rows", "plain", "test", REVISION, True)]
    known = {
        **{"hub": "some/rows", "config": "plain", "split": "test", "revision": REVISION},
        "ids": "some/rows:plain:test",
        "shape_version": SHAPES_VERSION,
    }
    assert part.identity() == known
    # What was recorded is used again, without asking.
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", None)
    (again,) = given(tmp_path, "hub:some/rows:plain:test")
    assert again.identity() == known
    assert json.loads((tmp_path / "hub.json").read_text()) == {"some/rows": REVISION}
    for columns in (Columns(("body",)), Columns(template="{text}"), Columns(format="text")):
        plain = HubRows(*parse_hub("some/rows"), columns, tmp_path / "hub.json")
        assert "shape_version" not in plain.identity()


def test_parts_of_one_data_set_have_ids_of_their_own(published, tmp_path):
    pq.write_table(ROWS.select(["text"]), tmp_path / "published.parquet")
    names = ["hub:some/rows", "hub:some/rows:plain", "hub:some/rows::test"]
    found = [rows(part)[0] for part in given(tmp_path, *names)]
    ids = ["some/rows#1", "some/rows:plain#1", "some/rows::test#1"]
    assert [row["id"] for row in found] == ids
    assert {row["domain"] for row in found} == {"rows"}
    with pytest.raises(ValueError, match="hub:some/rows is given twice"):
        given(tmp_path, "hub:some/rows", "hub:some/rows")


def test_the_record_of_commits_loses_none_and_a_damaged_one_is_named(published, tmp_path):
    record = tmp_path / "hub.json"
    assert remember(record, "a/b", "1") == "1"
    assert remember(record, "c/d", "2") == "2"
    assert remember(record, "a/b", "3") == "1"  # another run was first
    assert recorded(record) == {"a/b": "1", "c/d": "2"}
    record.write_text('{"a/b":')
    (part,) = given(tmp_path, "hub:some/rows")
    with pytest.raises(ValueError, match=r"hub\.json is damaged; delete it"):
        part.identity()


def test_a_column_that_is_not_there_is_named(published, tmp_path):
    part = HubRows(*parse_hub("some/rows"), Columns(("body",)), tmp_path / "hub.json")
    with pytest.raises(ValueError, match=r"some/rows \(train\) has no column 'body'; it has id"):
        rows(part)


def test_a_script_is_never_run(published, tmp_path, monkeypatch):
    def scripted(*_, **__):
        raise RuntimeError("Dataset scripts are no longer supported, but found rows.py")

    monkeypatch.setattr(datasets, "load_dataset", scripted)
    (part,) = given(tmp_path, "hub:some/rows")
    with pytest.raises(SourceUnavailable, match="made by a script, which is never run"):
        rows(part)


def test_without_a_network_it_is_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("the network is blocked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (part,) = given(tmp_path, "hub:some/rows")
    with pytest.raises(SourceUnavailable) as caught:
        part.identity()
    assert "the data set some/rows cannot be read from the Hub" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_of_texts_is_the_first_column_that_is_named():
    (part,) = table_parts(["a", "b"], "candidates", Columns(("title",)))
    assert [row["text"] for row in rows(part)] == ["a", "b"]
    (part,) = table_parts(["a", "b"], "candidates", Columns(("title", "body")))
    with pytest.raises(ValueError, match="candidates has no column 'body'"):
        rows(part)
