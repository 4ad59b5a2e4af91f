"""Every kind of input: its rows are the same in each format, and the page of formats lists it."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import re
import warnings
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.schemas import Chunking
from gotd.data import table_files
from gotd.data.columns import Columns
from gotd.data.files import COMPRESSIONS, INPUT_SUFFIXES, KINDS
from gotd.data.inputs import named_parts
from gotd.data.pool import open_pool, pool_facts, write_pool
from gotd.data.readers import original_rows, shape_of
from gotd.data.row_shapes import FORMATS

TEXTS = ['one, "two"\tthree', "é 細胞は分裂する", "", "last\nline"]
ROWS = [{"id": f"r{i}", "text": text, "domain": "d"} for i, text in enumerate(TEXTS)]
CHAT = [
    {
        "messages": [
            {"role": "user", "content": f"question {i}"},
            {"role": "assistant", "content": t},
        ]
    }
    for i, t in enumerate(TEXTS)
]
CHAT_TEXTS = [f"question {i}\n{text}".rstrip("\n") for i, text in enumerate(TEXTS)]


def parts(*names, columns=None):
    place = Path(str(names[0])).parent
    return named_parts(
        [str(name) for name in names], columns or Columns(), place / "st" / "hub.json"
    )


def rows(part):
    return pa.concat_tables(part.pieces()).to_pylist()


def texts(part):
    return [row["text"] for row in rows(part)]


def compressed(content: bytes, suffix: str) -> bytes:
    if suffix.endswith(".zst"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as file:
            file.write(content)
        return sink.getvalue().to_pybytes()
    packers = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    return next((pack(content) for end, pack in packers.items() if suffix.endswith(end)), content)


def lines(records, end="\n"):
    return end.join(json.dumps(row, ensure_ascii=False) for row in records).encode()


def separated(records, delimiter, end="\n"):
    file = io.StringIO()
    names = list(records[0])
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerow(names)
    for row in records:
        values = [row[name] for name in names]
        writer.writerow([v if isinstance(v, str) else json.dumps(v) for v in values])
    return file.getvalue().encode()


def write(path: Path, records) -> Path:
    """Write records in the format of a file's name."""
    kind = next(kind for kind, ends in KINDS.items() if path.name.endswith(ends))
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(records)
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        make = pa.ipc.new_file if path.suffix == ".feather" else pa.ipc.new_stream
        with make(str(path), table.schema) as file:
            file.write_table(table, max_chunksize=3)
    else:
        content = {
            "jsonl": lines,
            "json": lambda r: json.dumps(r, indent=1).encode(),
            "csv": lambda r: separated(r, ","),
            "tsv": lambda r: separated(r, "\t"),
        }[kind](records)
        path.write_bytes(compressed(content, path.name))
    return path


TABLES = [suffix for suffix in INPUT_SUFFIXES if not suffix.startswith(".txt")]


@pytest.mark.parametrize("suffix", TABLES)
def test_every_format_and_compression_gives_the_same_rows(tmp_path, suffix):
    (part,) = parts(write(tmp_path / f"rows{suffix}", ROWS))
    assert rows(part) == ROWS
    assert [row["text"] for t in original_rows(part) for row in t.to_pylist()] == TEXTS


@pytest.mark.parametrize("suffix", TABLES)
def test_a_chat_is_read_from_every_format(tmp_path, suffix):
    (part,) = parts(write(tmp_path / f"chat{suffix}", CHAT))
    assert texts(part) == CHAT_TEXTS
    assert shape_of(part.path, Columns()).name == "messages"
    assert part.identity()["shape"] == "messages"
    originals = [row["messages"] for t in original_rows(part) for row in t.to_pylist()]
    if suffix.startswith((".csv", ".tsv")):
        originals = list(map(json.loads, originals))
    assert originals == [row["messages"] for row in CHAT]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_plain_text_may_be_compressed(tmp_path, compression):
    path = tmp_path / f"mine.txt{compression}"
    path.write_bytes(compressed("first\r\nsecond é".encode(), path.name))
    (part,) = parts(path)
    assert texts(part) == ["first", "second é"]


MARK = "\ufeff".encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", lines(ROWS, "\r\n")),
        ("rows.json", lines(ROWS, "\r\n")),
        ("rows.json", json.dumps(ROWS, indent=2).replace("\n", "\r\n").encode()),
        ("rows.csv", separated(ROWS, ",", "\r\n")),
        ("rows.tsv", separated(ROWS, "\t", "\r\n")),
        ("rows.csv.gz", separated(ROWS, ",", "\r\n")),
    ],
)
def test_byte_order_marks_and_line_ends_are_no_text(tmp_path, name, content):
    (tmp_path / name).write_bytes(compressed(MARK + content, name))
    (part,) = parts(tmp_path / name)
    assert rows(part) == ROWS


def test_json_is_read_in_pieces_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr("gotd.data.json_lines._READ_CHARS", 5)
    (part,) = parts(write(tmp_path / "rows.json", ROWS))
    assert rows(part) == ROWS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('[{"text": "a"}, {"text": "b"', r"rows.json row 2 is not JSON .*may be cut off"),
        ('[{"text": "a"}', r"rows.json row 2 is not JSON .*ends before its array"),
        ('[{"text": "a"}, {"text": nope}]', r"rows.json row 2 is not JSON [^;]*; write an array"),
        ('[{"text": "a"}, {"text": "b\0"}]', r"rows.json row 2 holds a NUL character"),
        ('[{"text": "a"}, ' + "[" * 100_000, r"rows.json row 2 is nested too deeply to be read"),
        ('[{"text": "a"}] {"text": "b"}', r"rows.json goes on after its array"),
        ('["a"]', r"rows.json row 1 holds a JSON str; write an array of objects"),
        ("[]", r"rows.json has no rows"),
        ('{"data": [1]}', r"rows.json has no column 'text'; it has data"),
    ],
)
def test_what_is_wrong_with_json_is_named(tmp_path, content, says):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(ValueError, match=says):
        rows(parts(tmp_path / "rows.json")[0])


@pytest.mark.parametrize("suffix", [".arrow", ".feather", ".jsonl.xz", ".json.bz2", ".tsv"])
def test_a_damaged_file_is_one_line(tmp_path, suffix):
    path = write(tmp_path / f"rows{suffix}", ROWS * 50)
    content = path.read_bytes()
    path.write_bytes(b'"' + content if suffix == ".tsv" else content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"rows{suffix}") as caught:
        rows(parts(path)[0])
    assert "\n" not in str(caught.value)


# Folders ------------------------------------------------------------------------------


def test_a_folder_has_files_at_any_depth_of_mixed_shapes_and_names_what_it_leaves_out(
    tmp_path, caplog
):
    pool = tmp_path / "pool"
    write(pool / "a.jsonl", ROWS)
    write(pool / "b.parquet", CHAT)
    write(pool / "deep" / "er" / "c.tsv", CHAT)
    write(pool / "deep" / "d.json.gz", [{"question": "q", "answer": "a"}])
    for name in ("notes.md", "_SUCCESS", ".hidden.jsonl", "deep/table.xlsx"):
        (pool / name).write_text("no rows")
    about = {f"task {n}": "about it" for n in range(30)}
    (pool / "about.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"about.json has no column 'text'; .* and 20 more: "):
        parts(pool / "about.json")
    (pool / "nothing.jsonl").write_text("")
    (pool / "blank.jsonl").write_text("\n\n")
    (pool / "header.csv").write_text("text\n")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), pool / "zero.parquet")
    (pool / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    with caplog.at_level(logging.INFO):
        found = parts(pool)
    assert [part.label for part in found] == ["a", "b", "d", "c"]
    assert [len(rows(part)) for part in found] == [4, 4, 1, 4]
    left = {re.search(r"([\w.]+) (?:is|has)", m)[1] for m in caplog.messages if "left out" in m}
    assert left == {
        *("notes.md", "_SUCCESS", ".hidden.jsonl", "table.xlsx", "gone.jsonl"),
        *("nothing.jsonl", "blank.jsonl", "header.csv", "zero.parquet", "about.json"),
    }
    shapes = [line for line in caplog.messages if "column" in line and "left out" not in line]
    assert shapes == [
        f"{pool / 'a.jsonl'}: plain text, column text",
        f"{pool / 'b.parquet'} and 1 more: chat messages, column messages",
        f"{pool / 'deep' / 'd.json.gz'}: questions with answers, columns question, answer",
    ]


def test_files_that_are_all_empty_are_an_error(tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "a.jsonl").write_text("")
    (tmp_path / "pool" / "b.csv").write_text("text\n")
    with pytest.raises(ValueError, match=r"a.jsonl is empty \(0 bytes\)"):
        parts(tmp_path / "pool")


def test_the_store_is_no_input_of_the_folder_around_it(tmp_path, caplog):
    write(tmp_path / "a.jsonl", ROWS)
    write(tmp_path / "st" / "pool" / "rows-00000.arrow", ROWS)
    (part,) = named_parts([str(tmp_path)], Columns(), tmp_path / "st" / "hub.json")
    assert part.label == "a"
    assert "st is left out: it is the store of artifacts" in caplog.text


@pytest.fixture
def saved(tmp_path) -> Path:
    data = datasets.Dataset.from_list(ROWS[:2] + ROWS[3:])
    splits = datasets.DatasetDict({"train": data, "test": data.select([0])})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_to_disk(str(tmp_path / "one"), num_shards=2)
        splits.save_to_disk(str(tmp_path / "several"))
        datasets.DatasetDict({"test": data.select([0])}).save_to_disk(str(tmp_path / "single"))
        data.remove_columns(["id", "domain"]).save_to_disk(str(tmp_path / "plain"))
    return tmp_path


def test_a_saved_data_set_is_a_folder_of_rows(saved):
    kept = ROWS[:2] + ROWS[3:]
    assert [row for part in parts(saved / "one") for row in rows(part)] == kept
    assert [row for part in parts(saved / "single") for row in rows(part)] == kept[:1]
    assert [row for part in parts(saved / "several" / "train") for row in rows(part)] == kept
    (plain,) = parts(saved / "plain")
    assert {row["domain"] for row in rows(plain)} == {"plain"}


def test_of_several_splits_one_must_be_named(saved):
    with pytest.raises(ValueError, match=r"splits train, test; name one, such as .*several/train"):
        parts(saved / "several")
    (saved / "several" / "dataset_dict.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset_dict.json is damaged"):
        parts(saved / "several")


# Values -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv"])
@pytest.mark.parametrize(
    ("ids", "found"),
    [([3, 1], ["3", "1"]), ([3.0, 1.0], ["3", "1"]), (["a", "b"], ["a", "b"])],
)
def test_ids_are_strings_or_whole_numbers(tmp_path, suffix, ids, found):
    if suffix == ".csv":
        found = [str(name) for name in ids]
    path = write(tmp_path / f"rows{suffix}", [{"id": name, "text": "a"} for name in ids])
    assert [row["id"] for row in rows(parts(path)[0])] == found


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    ("ids", "says"),
    [([1.5, 2.5], r"'id' holds"), ([1, None], r"(row|line) 2: .*'id' is (null|missing)")],
)
def test_other_ids_are_named(tmp_path, suffix, ids, says):
    path = write(tmp_path / f"rows{suffix}", [{"id": name, "text": "a"} for name in ids])
    with pytest.raises(ValueError, match=rf"rows{suffix}.*{says}"):
        rows(parts(path)[0])


def test_a_repeated_id_names_both_rows(tmp_path):
    one = write(tmp_path / "one.jsonl", [{"id": 7, "text": "a"}, {"id": 8, "text": "b"}])
    two = write(tmp_path / "two.csv", [{"id": "8", "text": "c"}])
    with pytest.raises(ValueError, match=r"id '8' occurs twice: one row 2 and two row 1"):
        write_pool(parts(one, two), tmp_path / "made", Chunking("whole"))


LANGUAGES = {
    "Chinese": "细胞分裂并复制其遗传物质。",
    "Japanese": "細胞は分裂して増える。カタカナも。",
    "Thai": "เซลล์แบ่งตัวและเพิ่มจำนวน",
    "Arabic": "تنقسم الخلية وتتكاثر",
    "Hindi": "कोशिका विभाजित होती है",
    "emoji": "👩‍🔬 🧬 🇫🇷 cells 😀",
    "mixed": "cell 細胞 เซลล์ خلية कोशिका 🧬",
}


@pytest.mark.parametrize("suffix", TABLES)
def test_text_of_every_language_is_unchanged(tmp_path, suffix):
    given = [{"text": text, "id": name} for name, text in LANGUAGES.items()]
    (part,) = parts(write(tmp_path / f"rows{suffix}", given))
    assert {row["id"]: row["text"] for row in rows(part)} == LANGUAGES


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv", ".arrow"])
def test_a_row_of_many_megabytes_is_read(tmp_path, monkeypatch, suffix):
    size = 3_000_000
    monkeypatch.setattr(table_files, "CSV_BLOCK_BYTES", (2**16, 2**24))
    monkeypatch.setattr("gotd.data.readers.SAMPLE_CHARS", 2**16)
    given = [{"text": "short"}, {"text": "x" * size}, {"text": "end"}]
    (part,) = parts(write(tmp_path / f"rows{suffix}", given))
    assert [len(text) for text in texts(part)] == [5, size, 3]


def test_a_row_that_no_block_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "CSV_BLOCK_BYTES", (2**10, 2**12))
    given = [{"text": "short"}, {"text": "x" * 2**13}, {"text": "end"}]
    (part,) = parts(write(tmp_path / "rows.csv", given))
    with pytest.raises(ValueError, match=r"rows\.csv is .*straddling"):
        texts(part)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".csv"])
def test_a_row_of_70_megabytes_becomes_a_shard(tmp_path, suffix):
    given = [{"text": "short"}, {"text": "word " * 14_000_000}, {"text": "end"}]
    (part,) = parts(write(tmp_path / f"rows{suffix}", given))
    (tmp_path / "made").mkdir()
    write_pool([part], tmp_path / "made", Chunking("whole"))
    lengths = [len(text.as_py()) for shard in open_pool(tmp_path / "made") for text in shard.texts]
    assert lengths == [5, 70_000_000, 3]


def test_rows_without_text_are_counted_as_blank(tmp_path):
    path = write(tmp_path / "rows.jsonl", [*CHAT, {"other": 1}, {"messages": None}])
    (tmp_path / "made").mkdir()
    write_pool(parts(path), tmp_path / "made", Chunking("whole"))
    facts = pool_facts(tmp_path / "made")
    assert (facts["rows"], facts["blank_rows"]) == ([4], 2)


# The page -----------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")


def table_of(title: str) -> list[list[str]]:
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1:]]


def test_the_page_lists_every_shape_with_an_example_that_is_read(tmp_path):
    listed = {row[0].strip("` |"): row[2].strip(" |`") for row in table_of("Shapes of rows")}
    assert tuple(sorted(listed)) == tuple(sorted(FORMATS))
    for name, example in listed.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(example)
        assert shape_of(path, Columns()).name == name
        assert texts(parts(path)[0])[0].endswith("ells." if name != "text" else "divide.")


def test_the_page_lists_every_end_of_a_name():
    ends = set(re.findall(r"`(\.\w+)`", " ".join(row[1] for row in table_of("Files"))))
    compressions = set(re.findall(r"`(\.\w+)`", PAGE.split("may be compressed")[1][:60]))
    assert compressions == set(filter(None, COMPRESSIONS))
    plain = {".parquet", ".arrow", ".feather"}
    made = {end + more for end in ends - plain for more in ("", *compressions)} | plain
    assert ends >= plain
    assert made == set(INPUT_SUFFIXES)
