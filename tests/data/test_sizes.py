from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.config.schemas import Chunking
from gotd.data.sizes import (
    CHARS_PER_TOKEN,
    DOCUMENT_TOKENS,
    UNKNOWN_ROWS,
    chunk_tokens,
    count_rows,
    expected_chunks,
    expected_rows,
    row_tokens,
    task_tokens,
)


def source(rows, name="folder", **counted):
    return SimpleNamespace(name=name, count=lambda _: rows, generated=False, **counted)


def test_what_a_source_knows_goes_before_what_is_assumed():
    assert expected_rows(source(70), "candidates") == 70
    assert expected_rows(source(70), "candidates", most=50) == 50
    assert expected_rows(source(70), "candidates", most=90) == 70
    assert expected_rows(source(None), "candidates") == UNKNOWN_ROWS
    assert task_tokens(source(1, text_tokens=3.5), "imdb") == 3.5
    assert task_tokens(source(1), "imdb") > task_tokens(source(1), "cola")
    whole, fixed = Chunking("whole"), Chunking("fixed", 900)
    assert row_tokens(source(1, row_tokens=7.0), whole) == 7.0
    assert row_tokens(source(1, row_tokens=7.0), fixed) == chunk_tokens(fixed)


def test_a_chunk_has_the_tokens_of_its_characters():
    assert chunk_tokens(Chunking("fixed", 900)) == 900 / CHARS_PER_TOKEN
    assert chunk_tokens(Chunking("whole", 900)) == DOCUMENT_TOKENS


@pytest.mark.parametrize(("unit", "chunks"), [("fixed", 200), ("whole", 100)])
def test_a_row_of_the_hub_counts_for_1000_characters(unit, chunks):
    assert expected_chunks(source(100, "hub"), Chunking(unit, 500)) == chunks
    assert expected_chunks(source(100), Chunking(unit, 500)) == 100


def test_rows_of_a_file_are_counted_or_estimated(tmp_path):
    pq.write_table(pa.table({"text": ["a"] * 17}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "c.jsonl").write_text("x" * 3_000)
    assert [count_rows(tmp_path / name) for name in ("a.parquet", "b.jsonl", "c.jsonl")] == [
        17,
        1,
        10,
    ]
