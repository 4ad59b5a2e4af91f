"""A pool on disk holds the rows that were handed in, however it was cut or interrupted."""

from __future__ import annotations

import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import regex

from gotd.config.schemas import Chunking
from gotd.data import pool
from gotd.data import unique_ids as pool_ids
from gotd.data.base import read_all
from gotd.data.chunking import fixed_chunks
from gotd.data.columns import Columns
from gotd.data.cutting import visible_ends
from gotd.data.folder import Folder
from gotd.data.inputs import named_parts, table_parts
from gotd.data.pool import (
    as_one,
    embeddings_file,
    open_pool,
    pool_facts,
    shard_files,
    write_pool,
)
from gotd.data.rows import Rows
from gotd.data.unique_ids import hash_strings, repeated
from gotd.embedding.embed import embed_shards
from gotd.engine.local import LocalEngine
from gotd.storage import progress

N = 500
WIDTH = 64


class Letters:
    """Counts characters by the last bits of their code points."""

    def embed(self, texts):
        codes = (np.frombuffer(text.encode("utf-32-le"), "<u4") % WIDTH for text in texts)
        return np.stack([np.bincount(row, minlength=WIDTH).astype("f4") for row in codes])


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(pool, "SHARD_ROWS", 64)
    monkeypatch.setattr("gotd.data.chunking.ROWS_PER_PIECE", 23)
    monkeypatch.setattr("gotd.data.table_files.ROWS_PER_PIECE", 23)


def rows(start, count, domain):
    texts = [f"{domain} passage {i} " + "word " * (i % 9) for i in range(start, start + count)]
    texts[3] = " \t\u00a0"
    return pa.table({"id": [f"{domain}-{i}" for i in range(count)], "text": texts})


@pytest.fixture
def files(tmp_path) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    for name, start, count in (("a", 0, 150), ("b", 150, 7), ("c", 157, N - 157)):
        pq.write_table(rows(start, count, name), folder / f"{name}.parquet", row_group_size=40)
    return folder


def parts(folder):
    return named_parts([str(folder)], Columns(), folder / "hub.json")


def build(
    folder: Path, given, unit="whole", tick=lambda _: None, min_chars=0, separator=" "
) -> Path:
    folder.mkdir(exist_ok=True)
    with progress.watch(lambda label, total: nullcontext(tick)), progress.step("pool"):
        write_pool(given, folder, Chunking(unit, 60, min_chars), separator)
    return folder


def table_of(folder: Path) -> pa.Table:
    shards = open_pool(folder)
    return pa.concat_tables(
        pa.table({"id": s.ids, "text": s.texts, "domain": s.domains}) for s in shards
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}


def test_whole_rows_are_kept_as_they_are_but_blank_ones(files, tmp_path):
    made = build(tmp_path / "pool", parts(files))
    given = pa.concat_tables(pq.read_table(f) for f in sorted(files.glob("*.parquet")))
    kept = [row for row in given.to_pylist() if row["text"].strip()]
    found = table_of(made)
    assert found["id"].to_pylist() == [row["id"] for row in kept]
    assert found["text"].to_pylist() == [row["text"] for row in kept]
    assert found["text"].type == pa.large_string()
    facts = pool_facts(made)
    assert facts["blank_rows"] == 3
    assert facts["domains"] == {"a": 149, "b": 6, "c": N - 157 - 1}
    assert facts["rows"][:-1] == [64] * (len(facts["rows"]) - 1)
    assert sum(count for _, count in facts["length_chars"]) == sum(facts["rows"]) == N - 3
    assert [count for _, count in shard_files(made)] == facts["rows"]


def test_fixed_pieces_are_those_of_chunk_file_by_file(files, tmp_path):
    made = build(tmp_path / "pool", parts(files), unit="fixed")
    expected = []
    for file in sorted(files.glob("*.parquet")):
        documents = pq.read_table(file)
        documents = documents.append_column("domain", pa.repeat(file.stem, len(documents)))
        expected += pa.concat_tables(fixed_chunks([documents], 60)).to_pylist()
    assert table_of(made).to_pylist() == expected


@pytest.mark.parametrize("unit", ["whole", "fixed"])
@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_a_killed_run_goes_on_at_its_shard_with_the_same_bytes(
    files, tmp_path, monkeypatch, unit, stop_after
):
    whole = contents(build(tmp_path / "whole", parts(files), unit))
    written = []

    def stop(rows):
        written.append(rows)
        if len(written) == stop_after + 1:  # the first tick says what was there
            raise KeyboardInterrupt

    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        build(broken, parts(files), unit, tick=stop)
    (broken / "rows-99999.part").write_bytes(b"half a shard")
    before = {p.name: p.stat().st_mtime_ns for p in broken.glob("*.arrow")}
    assert len(before) == stop_after
    again = []
    build(broken, parts(files), unit, tick=again.append)
    (broken / "rows-99999.part").unlink()
    assert contents(broken) == whole
    assert again[0] == 64 * stop_after
    for name, when in before.items():
        assert (broken / name).stat().st_mtime_ns == when


@pytest.mark.parametrize("unit", ["whole", "fixed"])
def test_short_rows_are_left_out_and_counted_also_by_a_run_that_was_killed(files, tmp_path, unit):
    made = build(tmp_path / "pool", parts(files), unit, min_chars=30)
    given = pa.concat_tables(pq.read_table(f) for f in sorted(files.glob("*.parquet")))
    lengths = [len(text) for text in table_of(made)["text"].to_pylist()]
    assert min(len(text.strip()) for text in table_of(made)["text"].to_pylist()) >= 30
    if unit == "whole":
        visible = [len(text.strip()) for text in given["text"].to_pylist() if text.strip()]
        assert 0 < len(lengths) == sum(length >= 30 for length in visible) < len(visible)
        assert pool_facts(made)["short_rows"] == len(visible) - len(lengths)
    else:
        assert max(lengths) <= 60
        assert 0 <= pool_facts(made)["short_rows"] <= 3  # the last text of a file at most
    broken = tmp_path / "broken"

    def stop(rows):
        if (broken / "rows-00002.arrow").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(broken, parts(files), unit, tick=stop, min_chars=30)
    assert contents(build(broken, parts(files), unit, min_chars=30)) == contents(made)


def test_without_a_least_length_the_facts_are_as_before(files, tmp_path):
    assert "short_rows" not in pool_facts(build(tmp_path / "pool", parts(files)))


@pytest.mark.parametrize("unit", ["whole", "fixed"])
def test_a_pool_of_short_rows_alone_is_refused(tmp_path, unit):
    given = table_parts(["one", "two"], "mine", Columns())
    with pytest.raises(ValueError, match="no text of mine has 50 characters; lower min_chars"):
        build(tmp_path / "pool", given, unit=unit, min_chars=50)


def test_a_pool_of_filtered_parts_resumes_with_the_same_bytes(files, tmp_path):
    files.rename(files.with_name("candidates"))
    given = Folder(str(tmp_path), held_out_share=0.3, limit=400).candidates()
    full = contents(build(tmp_path / "full", given))
    broken = tmp_path / "broken"

    def stop(rows):
        if (broken / "rows-00001.arrow").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(broken, given, tick=stop)
    assert not (broken / "rows-00002.arrow").exists()
    assert contents(build(broken, given)) == full
    rows = read_all(given).filter(
        pc.not_equal(pc.utf8_trim_whitespace(read_all(given)["text"]), "")
    )
    assert table_of(tmp_path / "full").equals(rows)


def test_published_joins_texts_without_a_space(tmp_path):
    given = table_parts(["aaa", "bbb"], "mine", Columns())
    made = build(tmp_path / "pool", given, unit="fixed", separator="")
    assert table_of(made)["text"].to_pylist() == ["aaabbb"]


def test_a_shard_is_bounded_in_bytes_wherever_pieces_end(files, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "SHARD_BYTES", 900)
    by_files = build(tmp_path / "one", parts(files))
    sizes = [shard.texts.nbytes for shard in open_pool(by_files)]
    assert max(sizes) < 900 + 60 + 8 * 65
    monkeypatch.setattr("gotd.data.table_files.ROWS_PER_PIECE", 11)
    again = build(tmp_path / "two", parts(files))
    assert pool_facts(by_files) == pool_facts(again)
    assert table_of(by_files).equals(table_of(again))


@pytest.mark.parametrize("unit", ["whole", "fixed"])
def test_ids_are_unique_over_all_files_or_refused_with_their_places(tmp_path, unit):
    for name, ids in (("a", ["1", "2", "3"]), ("b", ["4", "2"])):
        pq.write_table(
            pa.table({"id": ids, "text": ["x" * 60] * len(ids)}), tmp_path / f"{name}.parquet"
        )
    given = named_parts([str(tmp_path)], Columns(), tmp_path / "hub.json")
    with pytest.raises(ValueError, match=r"id '2' occurs twice: a row 2 and b row 2;"):
        build(tmp_path / "pool", given, unit=unit)


def test_invisible_characters_are_those_that_unicode_shows_as_nothing():
    """In the basic plane, besides the empty Braille cell and marks of annotations."""
    nothing = regex.compile(r"[\p{Z}\p{Cc}\p{Default_Ignorable_Code_Point}]")
    every = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    # Between others, so that it is no end that Arrow trims as white space.
    shown = visible_ends(pa.array([f"\u200b{one}\u200b" for one in every])).to_pylist()
    found = {one for one, left in zip(every, shown, strict=True) if not left}
    expected = {one for one in every if nothing.match(one)}
    assert found == expected | {"\u2800", "\ufff9", "\ufffa", "\ufffb"}


def test_nothing_but_blanks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no row of mine has a visible character"):
        build(tmp_path / "pool", table_parts(["  ", "\n"], "mine", Columns()))


def test_a_shard_from_files_pickles_as_their_paths(files, tmp_path):
    made = build(tmp_path / "pool", parts(files))
    list(embed_shards(Letters, WIDTH, shard_files(made), made, made / ".work", LocalEngine(), 1000))
    shard = open_pool(made, made)[2]
    sent = pickle.dumps(shard)
    assert len(sent) < 1000
    copy = pickle.loads(sent)
    assert copy.ids.equals(shard.ids)
    assert copy.texts.equals(shard.texts)
    np.testing.assert_array_equal(copy.embeddings, shard.embeddings)
    part = shard.slice(5, 60).slice(10, 20)
    for rows in (part, shard.take(np.arange(15, 25)), Rows.open(*part.__reduce__()[1])):
        sent = pickle.dumps(rows)
        assert len(sent) < 1000
        copy = pickle.loads(sent)
        assert copy.ids.equals(shard.ids[15:25])
        assert copy.domains.equals(shard.domains[15:25])
        np.testing.assert_array_equal(copy.embeddings, shard.embeddings[15:25])
    assert len(shard.slice(60, 99)) == 4
    # What is no longer the files' rows goes as it is.
    from dataclasses import replace

    other = pickle.loads(pickle.dumps(replace(shard, ids=shard.texts)))
    assert other.ids.equals(shard.texts)
    plain = Rows(shard.ids, shard.texts)
    assert pickle.loads(pickle.dumps(plain)) == plain


def test_several_shards_join_into_one_target(files, tmp_path):
    made = build(tmp_path / "pool", parts(files))
    one = as_one(open_pool(made))
    assert one.ids.to_pylist() == table_of(made)["id"].to_pylist()
    assert len(one) == N - 3


def test_embeddings_resume_at_the_row_range_and_read_so_much_of_a_text(
    files, tmp_path, monkeypatch
):
    monkeypatch.setattr("gotd.embedding.embed.ROWS_PER_RANGE", 30)
    made = build(tmp_path / "pool", parts(files))
    shards = shard_files(made)

    def embed(folder, make, length=12):
        folder.mkdir(exist_ok=True)
        work = folder / ".work"
        return list(embed_shards(make, WIDTH, shards, folder, work, LocalEngine(), length))

    counts = embed(tmp_path / "whole", Letters)
    assert sum(counts) == N - 3
    seen = []

    class Stops(Letters):
        def embed(self, texts):
            if len(seen) == 4:
                raise KeyboardInterrupt
            seen.append(len(texts))
            return super().embed(texts)

    with pytest.raises(KeyboardInterrupt):
        embed(tmp_path / "broken", Stops)
    calls = []

    class Counts(Letters):
        def embed(self, texts):
            calls.append(len(texts))
            assert max(map(len, texts)) <= 12
            return super().embed(texts)

    embed(tmp_path / "broken", Counts)
    assert len(calls) == len(counts) - 4
    for number in range(len(shards)):
        name = embeddings_file(number)
        whole, broken = ((tmp_path / f / name).read_bytes() for f in ("whole", "broken"))
        assert whole == broken
    shutil.rmtree(tmp_path / "broken")

    class Broken(Letters):
        def embed(self, texts):
            return super().embed(texts) * np.nan

    with pytest.raises(ValueError, match=r"the embedding of row 'a-0' is not finite"):
        embed(tmp_path / "broken", Broken)


# Ids ----------------------------------------------------------------------------------


def test_equal_hashes_are_settled_by_the_ids(monkeypatch):
    monkeypatch.setattr(
        pool_ids, "hash_strings", lambda ids: np.array([len(i) for i in ids.to_pylist()], np.uint64)
    )
    shards = [pa.array(["a", "b"]), pa.array(["c", "dd"])]
    assert repeated(shards) is None
    shards[1] = pa.array(["c", "b"])
    assert repeated(shards) == "b"


@pytest.mark.parametrize("at_once", [3, 1000, 1 << 25])
def test_a_repeated_id_is_found_in_any_range_of_hashes(monkeypatch, at_once):
    monkeypatch.setattr(pool_ids, "HASHES_AT_ONCE", at_once)
    ids = [f"row {i} é" for i in range(300)]
    shards = [pa.array(ids[:100]), pa.array(ids[100:]).cast(pa.large_string())]
    assert repeated(shards) is None
    for twice in (0, 99, 150, 299):
        more = [*shards, pa.array(["new", ids[twice]])]
        assert repeated(more) == ids[twice]


def test_hashes_are_sorted_a_range_at_a_time(monkeypatch):
    sizes: list[int] = []
    sort = np.sort
    monkeypatch.setattr(pool_ids, "HASHES_AT_ONCE", 100)
    monkeypatch.setattr(
        pool_ids.np, "sort", lambda values: sizes.append(len(values)) or sort(values)
    )
    assert repeated([pa.array([f"row {i}" for i in range(950)])]) is None
    assert len(sizes) == 10
    assert sum(sizes) == 950
    assert max(sizes) < 150


def test_hashes_depend_on_the_bytes_alone():
    ids = pa.array(["a", "", "é", "a", "long " * 50])
    hashes = hash_strings(ids)
    assert hashes[0] == hashes[3]
    assert len(set(hashes.tolist())) == 4
    np.testing.assert_array_equal(hash_strings(ids[2:]), hashes[2:])
    np.testing.assert_array_equal(hash_strings(ids.cast(pa.large_string())), hashes)
