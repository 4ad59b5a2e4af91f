"""Folder sources: every format gives the same rows, every defect one clear line."""

import dataclasses
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from gotd.data import files
from gotd.data.base import SCHEMA, read_all
from gotd.data.columns import Columns
from gotd.data.folder import Folder
from gotd.data.inputs import File, file_parts
from gotd.data.readers import read_table
from gotd.data.sampling import limited, subsample
from gotd.storage.files import known_checksum

DATA = os.environ.get("DATA", "")
real_data = pytest.mark.skipif(not DATA, reason="DATA names no folder with the public data")


def passages(n: int, domain: str) -> pa.Table:
    return pa.table(
        {
            "id": [f"{domain}/{i}" for i in range(n)],
            "text": [
                f"Passage {i} about {domain}, “quoted”, with a\nline break." for i in range(n)
            ],
            "domain": [domain] * n,
            "source": ["x"] * n,
        }
    )


def write(table: pa.Table, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return path
    if path.suffix == ".csv":
        pa_csv.write_csv(table, path)
        return path
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    content = lines.encode()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = pa.compress(content, codec="zstd", asbytes=True)
    path.write_bytes(content)
    return path


def documents(paths) -> pa.Table:
    return read_all(file_parts(paths, Columns()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(passages(300, "cats"), tmp_path / "candidates" / "cats-a.parquet")
    write(passages(100, "dogs"), tmp_path / "candidates" / "dogs-b.parquet")
    rows = pa.table({"sentence": ["one", "two"], "label": [0, 1], "idx": [0, 1]})
    write(rows, tmp_path / "glue" / "cola" / "train.parquet")
    return tmp_path


def ids(parts) -> list[str]:
    return read_all(parts)["id"].to_pylist()


@pytest.mark.parametrize("suffix", files.SUFFIXES)
def test_every_format_gives_the_same_documents(tmp_path, suffix):
    expected = passages(20, "cats").select(["id", "text", "domain"]).cast(SCHEMA)
    assert documents([write(passages(20, "cats"), tmp_path / f"a{suffix}")]).equals(expected)


def test_candidates_and_pretraining_part_the_pool(folder):
    source = Folder(str(folder), held_out_share=0.25)
    chosen, held = set(ids(source.candidates())), set(ids(source.pretraining()))
    assert not chosen & held
    assert len(chosen) + len(held) == 400
    assert abs(len(held) - 100) < 4 * np.sqrt(400 * 0.25 * 0.75)


def test_adding_a_file_moves_no_passage(folder):
    before = set(ids(Folder(str(folder)).pretraining()))
    write(passages(50, "birds"), folder / "candidates" / "birds.jsonl")
    after = set(ids(Folder(str(folder)).pretraining()))
    assert before == {name for name in after if not name.startswith("birds")}


def test_row_order_decides_nothing(folder):
    first = Folder(str(folder), limit=100)
    expected = sorted(ids(first.candidates())), sorted(ids(first.pretraining()))
    path = folder / "candidates" / "cats-a.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(np.random.default_rng(0).permutation(300)), path)
    again = Folder(str(folder), limit=100)
    assert (sorted(ids(again.candidates())), sorted(ids(again.pretraining()))) == expected


def test_limit_counts_both_parts_and_keeps_the_mixture(folder):
    source = Folder(str(folder), limit=200)
    kept = ids(source.candidates()) + ids(source.pretraining())
    assert len(set(kept)) == len(kept) == 200
    cats = sum(name.startswith("cats") for name in kept)
    assert abs(cats - 150) < 4 * np.sqrt(200 * 0.75 * 0.25)
    smaller = Folder(str(folder), limit=50)
    assert set(ids(smaller.candidates())) <= set(ids(source.candidates()))
    # Sampled apart from the hold-out, so the share held out stays the same.
    assert abs(read_all(smaller.pretraining()).num_rows - 7.5) < 4 * np.sqrt(50 * 0.15 * 0.85)
    everything = Folder(str(folder), limit=10_000)
    assert (
        read_all(everything.candidates()).num_rows + read_all(everything.pretraining()).num_rows
        == 400
    )


def test_candidate_files_choose_by_name_or_pattern(folder):
    for pattern in ("dogs-b", "dogs-*", "dogs-b.parquet"):
        source = Folder(str(folder), candidate_files=(pattern,), held_out_share=0)
        assert set(read_all(source.candidates())["domain"].to_pylist()) == {"dogs"}
    with pytest.raises(FileNotFoundError, match=r"'birds'.*cats-a, dogs-b"):
        Folder(str(folder), candidate_files=("birds",)).candidates()


def test_identity_follows_the_bytes_and_not_the_place(folder, tmp_path_factory):
    before = Folder(str(folder)).identity()
    assert json.loads(json.dumps(before)) == before
    copy = tmp_path_factory.mktemp("copy")
    for path in folder.rglob("*.parquet"):
        target = copy / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert Folder(str(copy)).identity() == before
    table = pq.read_table(copy / "candidates" / "dogs-b.parquet")
    pq.write_table(table.slice(1), copy / "candidates" / "dogs-b.parquet")
    changed = Folder(str(copy)).identity()
    assert changed["candidates"] != before["candidates"]
    assert changed["tasks"] == before["tasks"]
    assert dataclasses.replace(Folder(str(folder)), limit=7).identity() != before


def test_how_rows_without_ids_are_numbered_is_in_the_identity(tmp_path):
    rows = {"text": ["a", "b"]}
    write(pa.table(rows), tmp_path / "candidates" / "plain.jsonl")
    write(pa.table({"id": ["1", "2"], **rows}), tmp_path / "candidates" / "named.jsonl")
    source = Folder(str(tmp_path), held_out_share=0)
    content = source.identity()["candidates"]["files"]
    assert content["plain.jsonl"]["ids"] == "<file>#<row>"
    assert content["named.jsonl"] == known_checksum(tmp_path / "candidates" / "named.jsonl")
    assert ids(source.candidates()) == ["1", "2", "plain#1", "plain#2"]


def test_checksum_is_computed_once_per_state_of_a_file(folder, monkeypatch):
    path = folder / "candidates" / "cats-a.parquet"
    first = known_checksum(path)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("hashed again"))
    assert known_checksum(path) == first


def test_own_data_needs_only_text(tmp_path):
    path = write(pa.table({"text": ["a", "b"]}), tmp_path / "mine.jsonl")
    assert documents([path]).to_pylist() == [
        {"id": "mine#1", "text": "a", "domain": "mine"},
        {"id": "mine#2", "text": "b", "domain": "mine"},
    ]


def test_a_text_of_digits_stays_a_text(tmp_path):
    path = tmp_path / "years.csv"
    path.write_text("id,text\n1,2020\n2,2020-01-01\n")
    assert documents([path])["text"].to_pylist() == ["2020", "2020-01-01"]


def test_bytes_of_a_marked_utf8_file_are_read(tmp_path):
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n\n{"text": "b"}')
    assert documents([path])["text"].to_pylist() == ["a", "b"]


def test_missing_places_are_named_with_what_is_there(folder, tmp_path):
    source = Folder(str(folder))
    assert source.tasks() == ["cola"]
    with pytest.raises(FileNotFoundError, match=r"no task 'sst2'.*there is: cola"):
        source.split("sst2", "train")
    with pytest.raises(FileNotFoundError, match=r"no split 'test'.*there is: train"):
        source.split("cola", "test")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*DATA"):
        read_all(Folder(str(tmp_path / "nowhere")).candidates())
    with pytest.raises(FileNotFoundError, match=r"no file .*x\.parquet; in .* there is: .*cand"):
        read_table(folder / "x.parquet")
    with pytest.raises(ValueError, match="no pre-training text: held_out_share is 0"):
        Folder(str(folder), held_out_share=0).pretraining()


def test_a_split_in_two_formats_is_refused(folder):
    write(pa.table({"sentence": ["x"], "label": [1]}), folder / "glue" / "cola" / "train.csv")
    with pytest.raises(ValueError, match=r"'train' more than once \(train.csv, train.parquet\)"):
        Folder(str(folder)).split("cola", "train")


def text_bytes(values: list[bytes]) -> pa.Array:
    return pa.array(values, pa.binary()).view(pa.string())


LARGE = pa.array([b"a", b"caf\xe9"], pa.large_binary()).view(pa.large_string())


TABLES = {
    "all null": (pa.table({"text": pa.nulls(2)}), r"'text' is missing or null in every row"),
    "number": (pa.table({"text": [1, 2]}), r"column 'text' holds int64 from row 1"),
    "bytes": (pa.table({"text": [b"a"]}), r"column 'text' holds binary"),
    "column": (pa.table({"id": ["1"], "body": ["a"]}), r"no column 'text'; it has id"),
    "latin1": (pa.table({"text": text_bytes([b"a", b"caf\xe9"])}), r"row 2: 'text' is not UTF-8"),
    "large": (pa.table({"text": LARGE}), r"row 2: 'text' is not UTF-8"),
    "domain": (pa.table({"text": ["a"], "domain": [0.5]}), r"column 'domain' holds double"),
    "no rows": (pa.table({"text": pa.array([], pa.string())}), r"has no rows"),
    "null id": (pa.table({"id": ["1", None], "text": ["a", "b"]}), r"row 2: 'id' is null"),
}


@pytest.mark.parametrize(("table", "message"), TABLES.values(), ids=TABLES.keys())
def test_bad_tables_are_named_by_file_and_row(tmp_path, table, message):
    path = write(table, tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=rf"bad\.parquet.*{message}") as error:
        documents([path])
    assert "\n" not in str(error.value)


BYTES = {
    "utf8": ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', r"line 2 is not UTF-8"),
    "cut line": ("a.jsonl", b'{"text": "a"}\n{"text": "b', r"line 2 is not JSON .*cut off"),
    "array": ("a.jsonl", b'["a"]\n', r"line 1 holds a JSON list"),
    "mixed": (
        "a.jsonl",
        b'{"text": "a"}\n{"text": 1}\n',
        r"row 2: field 'text' .*one type",
    ),
    "surrogate": ("a.jsonl", b'{"text": "\\ud800"}\n', r"row 1: field 'text' .*surrogates"),
    "nested half": (
        "a.jsonl",
        b'{"text": "a", "x": ["\\ud800"]}\n',
        r"row 1: .*surrogates",
    ),
    "half name": ("a.jsonl", b'{"text": "a", "\\ud800": 1}\n', r"name of field .* is not UTF-8"),
    "wide": (
        "a.jsonl",
        b'{"x": 1}\n{"x": 12345678901234567890123}\n',
        r"row 2: .* 64 bits",
    ),
    "nested wide": (
        "a.jsonl",
        b'{"x": [12345678901234567890123]}\n',
        r"row 1: .*too large",
    ),
    "nested": ("a.jsonl", b'{"x": {"a": 1}}\n{"x": {"a": "b"}}\n', r"row 2: field 'x' .*one type"),
    "empty": ("a.jsonl", b"", r"is empty \(0 bytes\)"),
    "blank": ("a.jsonl", b"\n\n", r"has no rows"),
    "csv utf8": ("a.csv", b"text\na\ncaf\xe9\n", r"row 2: 'text' is not UTF-8"),
    "csv columns": ("a.csv", b"text\na\nb,c\n", r"is not CSV.*Expected 1 columns, got 2"),
    "csv header": ("a.csv", b"text\n", r"has no rows"),
    "parquet": ("a.parquet", b"PAR1 nothing PAR1", r"cut off, damaged or not Parquet"),
    "suffix": ("a.txt", b"a\n", r"unknown format; use one of \.parquet"),
}


@pytest.mark.parametrize(("name", "content", "message"), BYTES.values(), ids=BYTES.keys())
def test_bad_bytes_are_named_by_file_and_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{message}") as error:
        read_table(path)
    assert "\n" not in str(error.value)


def test_candidates_without_text_are_refused_before_anything_runs(folder):
    file = write(pa.table({"id": ["1"], "passage": ["a"]}), folder / "candidates" / "odd.parquet")
    for ask in (Folder(str(folder)).identity, Folder(str(folder)).candidates):
        with pytest.raises(ValueError, match=f"{file} has no column 'text'; it has id, passage:"):
            ask()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz", ".jsonl.zst"])
def test_a_cut_off_file_is_named(tmp_path, suffix):
    path = write(passages(2000, "cats"), tmp_path / f"cut{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cut\{suffix} is cut off"):
        documents([path])


def test_damaged_pages_are_named(tmp_path):
    path = write(passages(2000, "cats"), tmp_path / "damaged.parquet")
    content = bytearray(path.read_bytes())
    content[200:400] = bytes(200)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"damaged\.parquet is cut off, damaged or not Parquet"):
        documents([path])


def test_a_repeated_id_is_named_with_both_places(folder):
    write(passages(3, "dogs").slice(2), folder / "candidates" / "z.jsonl")
    message = r"'dogs/2' occurs twice: dogs-b row 3 and z row 1"
    with pytest.raises(ValueError, match=message):
        read_all(Folder(str(folder)).candidates())


def test_held_out_is_a_share_of_what_pretrains(folder):
    source = Folder(str(folder), held_out_share=0.5)
    held = set(ids(source.held_out()))
    assert held <= set(ids(source.pretraining()))
    assert 5 < len(held) < 40


@pytest.mark.parametrize("rows", [1, 100, 399, 400, 10_000])
def test_a_limit_over_parts_is_the_subsample_of_the_table(folder, rows):
    parts = [File(path, path.stem, Columns()) for path in sorted(folder.glob("candidates/*"))]
    table = read_all(parts)
    expected = table.filter(pa.array(subsample(table, rows, 3, "role")))
    assert read_all(limited(parts, rows, 3, "role")).equals(expected)


@real_data
def test_real_folder_has_its_published_sizes():
    source = Folder(DATA)
    assert {"cola", "mnli", "stsb", "chemprot", "imdb"} <= set(source.tasks())
    chosen, held = read_all(source.candidates()), read_all(source.pretraining())
    assert chosen.num_rows + held.num_rows == 324_916
    assert abs(held.num_rows / 324_916 - 0.15) < 0.004
    assert not set(chosen["id"].to_pylist()) & set(held["id"].to_pylist())
    assert len(set(chosen["domain"].to_pylist())) == 18
