"""Rows in pieces are the rows of the file, and what is wrong is named with its row."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from gotd.data import table_files
from gotd.data.columns import Columns
from gotd.data.inputs import named_parts, table_parts
from gotd.data.json_lines import JSON_TEXT
from gotd.data.readers import original_rows, stream

TEXTS = [f"text {i} é — “quoted”, with a\ttab" + " more" * (i % 5) for i in range(50)]
ROWS = pa.table(
    {
        "id": [f"row-{i}" for i in range(50)],
        "text": TEXTS,
        "domain": ["a" if i % 3 else "b" for i in range(50)],
        "other": list(range(50)),
    }
)


def write(path, table):
    rows = table.to_pylist()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if path.name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=13)
    elif path.name.endswith(".jsonl"):
        path.write_bytes(lines)
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines))
    elif path.name.endswith(".zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(lines)
    else:
        pa_csv.write_csv(table, path)
    return path


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(table_files, "ROWS_PER_PIECE", 7)


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".csv"])
def test_every_format_gives_the_same_rows(tmp_path, small_pieces, ending):
    path = write(tmp_path / f"rows{ending}", ROWS)
    pieces = list(stream(path, Columns(), "rows"))
    assert ending == ".csv" or len(pieces) > 5
    table = pa.concat_tables(pieces)
    assert table.schema.types == [pa.string(), pa.large_string(), pa.string()]
    assert table.to_pydict() == ROWS.select(["id", "text", "domain"]).to_pydict()


def test_plain_text_is_a_passage_a_line(tmp_path, small_pieces):
    path = tmp_path / "mine.txt"
    path.write_text("\ufefffirst\r\n\nthird é\nlast", "utf-8")
    table = pa.concat_tables(list(stream(path, Columns(), "mine")))
    assert table["text"].to_pylist() == ["first", "", "third é", "last"]
    assert table["id"].to_pylist() == ["mine#1", "mine#2", "mine#3", "mine#4"]
    assert table["domain"].unique().to_pylist() == ["mine"]


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv"])
def test_columns_can_be_named_joined_and_left_out(tmp_path, small_pieces, ending):
    table = pa.table({"q": TEXTS, "a": TEXTS[::-1], "key": list(range(50)), "part": ["x"] * 50})
    path = write(tmp_path / f"asked{ending}", table)
    found = pa.concat_tables(
        list(stream(path, Columns(("q", "a"), id="key", domain="part"), "asked"))
    )
    assert found["text"][3].as_py() == f"{TEXTS[3]} {TEXTS[46]}"
    assert found["id"].to_pylist() == [str(i) for i in range(50)]
    assert found["domain"].unique().to_pylist() == ["x"]
    numbered = pa.concat_tables(list(stream(path, Columns(("q",)), "asked")))
    assert numbered["id"].to_pylist()[::49] == ["asked#1", "asked#50"]
    assert numbered["domain"].unique().to_pylist() == ["asked"]


def test_a_missing_domain_is_the_files_name(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"text": "a", "domain": "x"}\n{"text": "b", "domain": null}\n{"text": "c"}\n')
    (table,) = stream(path, Columns(), "some")
    assert table["domain"].to_pylist() == ["x", "some", "some"]


def test_a_domain_counts_on_whatever_line_it_first_comes(tmp_path, small_pieces):
    path = tmp_path / "late.jsonl"
    lines = [{"text": str(i)} | ({"domain": "x"} if i in (5, 12) else {}) for i in range(20)]
    path.write_text("\n".join(map(json.dumps, lines)))
    table = pa.concat_tables(list(stream(path, Columns(), "late")))
    wanted = ["x" if i in (5, 12) else "late" for i in range(20)]
    assert table["domain"].to_pylist() == wanted


def test_a_column_is_there_once_or_is_not_read(tmp_path):
    path = tmp_path / "twice.parquet"
    names = ["text", "other", "other"]
    pq.write_table(pa.table([["a"], ["b"], ["c"]], names=names), path)
    (table,) = stream(path, Columns(), "twice")
    assert table["text"].to_pylist() == ["a"]
    with pytest.raises(ValueError, match=r"twice.parquet has 2 columns 'other'; rename all"):
        list(stream(path, Columns(("other",)), "twice"))


def test_an_integer_of_any_size_is_an_id(tmp_path):
    path = tmp_path / "big.jsonl"
    path.write_text(f'{{"id": {2**80}, "text": "a"}}\n')
    (table,) = stream(path, Columns(), "big")
    assert table["id"].to_pylist() == [str(2**80)]


def test_a_piece_is_bounded_in_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BYTES_PER_PIECE", 1000)
    heavy = pa.table({"text": ["x" * 400 for _ in range(20)]})
    for ending in (".parquet", ".jsonl"):
        path = write(tmp_path / f"heavy{ending}", heavy)
        pieces = list(stream(path, Columns(), "heavy"))
        assert max(piece["text"].nbytes for piece in pieces) < 3000
        assert pa.concat_tables(pieces)["text"].to_pylist() == heavy["text"].to_pylist()


BAD = {
    "no.jsonl": (b'{"text": "a"}\n\n{"text": 3}\n', r"line 3: field 'text' holds int"),
    "null.jsonl": (b'{"text": null}\n{"text": null}\n', r"'text' is missing or null in every row"),
    "other.jsonl": (b'{"txt": "a"}\n', r"no column 'text'; it has txt.*--text-column"),
    "late.jsonl": (b'{"text": "a"}\n{"text": "b", "id": 7}\n', r"line 2 has an id.*the first line"),
    "deep.jsonl": (
        b'{"text": "a", "x": ' + b"[" * 10**5 + b"]" * 10**5,
        r"line 1 is nested too deeply to be read; write values of fewer levels",
    ),
    "digits.jsonl": (
        b'{"text": "a", "x": ' + b"9" * 5000 + b"}",
        r"line 1 is not JSON .*4300 digits.*\); write one object a line",
    ),
    "twice.csv": (b"text,text\na,b\n", r"has 2 columns 'text'; rename all but one"),
    "ids.jsonl": (b'{"text": "a", "id": 1}\n{"text": "b"}\n', r"line 2: field 'id' is missing"),
    "half.jsonl": (b'{"text": "a\\ud800"}\n', r"line 1: field 'text' holds half a character"),
    "latin.jsonl": (b'{"text": "a"}\n{"text": "\xe9"}\n', r"line 2 is not UTF-8"),
    "cut.jsonl": (b'{"text": "a"}\n{"text": "b', r"line 2 is not JSON .*the file may be cut off"),
    "ended.jsonl": (b'{"text": "a"}\n{"text": ', r"line 2 is not JSON .*the file may be cut off"),
    "nul.jsonl": (b'{"text": "a"}\n{"text": "b\0c"}\n', r"line 2 holds a NUL character"),
    "nul2.jsonl": (b'{"text": "a"}\n\0\0\0\n', r"line 2 holds a NUL character"),
    "word.jsonl": (b'{"text": nope}\n', r"line 1 is not JSON .*\); write one object a line"),
    "list.jsonl": (b'["a"]\n', r"line 1 holds a JSON list"),
    "blank.jsonl": (b"\n\n", r"has no rows"),
    "empty.jsonl": (b"", r"is empty \(0 bytes\)"),
    "cut.jsonl.gz": (gzip.compress(b'{"text": "a"}\n' * 999)[:-9], r"cut off or damaged"),
    "latin.csv": (b"text,id\na,1\n\xe9,2\n", r"row 2: 'text' is not UTF-8"),
    "wide.csv": (b"text,id\na,1\nb,2,3\n", r"is not CSV .*Row #3"),
    "other.csv": (b"txt\na\n", r"no column 'text'; it has txt"),
    "header.csv": (b"text\n", r"has no rows"),
    "no.parquet": (b"PAR1 and nothing else", r"cut off, damaged or not Parquet"),
    "latin.txt": (b"a\n\xe9\n", r"line 2 is not UTF-8"),
    "what.xls": (b"a\n", r"unknown format; use one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(tmp_path, name):
    content, says = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        list(stream(path, Columns(), "x"))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"text": [None] * 10}, r"'text' is missing or null in every row"),
        ({"text": list(range(10))}, r"'text' holds int64 from row 1"),
        ({"t": ["a"] * 10}, r"no column 'text'; it has t"),
        ({"text": ["a"] * 10, "id": [1.5] * 10}, r"'id' holds double"),
        ({"text": ["a"] * 10, "id": [1e300] * 10}, r"'id' holds double"),
        ({"text": ["a"] * 10, "id": ["x"] * 8 + [None] * 2}, r"row 9: 'id' is null \(1 such"),
    ],
)
def test_a_bad_value_in_parquet_is_named(tmp_path, monkeypatch, table, says):
    monkeypatch.setattr(table_files, "ROWS_PER_PIECE", 9)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(ValueError, match=says):
        list(stream(path, Columns(), "rows"))


def test_plain_text_has_no_columns(tmp_path):
    (tmp_path / "mine.txt").write_text("a\n")
    with pytest.raises(ValueError, match="has no columns"):
        list(stream(tmp_path / "mine.txt", Columns(id="key"), "mine"))


def test_a_file_that_is_not_there_is_told_with_what_is(tmp_path):
    (tmp_path / "rows.csv").write_text("text\na\n")
    with pytest.raises(FileNotFoundError, match="rows.csv"):
        list(stream(tmp_path / "row.csv", Columns(), "x"))


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".jsonl.gz", ".csv"])
def test_original_rows_are_the_rows_of_the_texts_with_all_columns(tmp_path, small_pieces, ending):
    path = write(tmp_path / f"rows{ending}", ROWS)
    (part,) = named_parts([str(path)], Columns(), tmp_path / "hub.json")
    originals = pa.concat_tables(original_rows(part))
    wanted = ROWS.to_pydict()
    if ending == ".csv":
        wanted["other"] = [str(value) for value in wanted["other"]]
    assert originals.to_pydict() == wanted
    texts = pa.concat_tables(part.pieces())
    assert texts["id"].to_pylist() == originals["id"].to_pylist()


def test_original_values_of_json_lines_are_unchanged(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [
        {"text": "a", "meta": {"x": 1}, "n": 1, "tags": ["p"], "same": {"y": [1]}},
        {"text": "b", "meta": {"z": [None, 2.5]}, "n": "two", "same": {"y": []}},
        {"text": "", "n": 2.5, "same": None, "half": "\ud800"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    (part,) = named_parts([str(path)], Columns(), tmp_path / "hub.json")
    (table,) = original_rows(part)
    assert table.schema.field("same").type == pa.struct([("y", pa.list_(pa.int64()))])
    found = [
        {
            name: json.loads(value) if table.schema.field(name).type == JSON_TEXT else value
            for name, value in row.items()
            if value is not None
        }
        for row in table.to_pylist()
    ]
    assert found == [{k: v for k, v in line.items() if v is not None} for line in lines]


def test_rows_in_memory_are_their_own_originals():
    (part,) = table_parts(ROWS, "mine", Columns())
    assert pa.concat_tables(original_rows(part)).equals(ROWS)
