"""Any bytes end in rows or in one line, and any arguments in a status and one line."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotd.cli.main import main
from gotd.data.base import SCHEMA
from gotd.data.columns import Columns
from gotd.data.readers import all_columns, read_table, stream

EXAMPLES = 2000 if os.environ.get("FULL") == "1" else 40
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=os.environ.get("FULL") != "1",
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=4), one, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["text", "id", "domain", "messages", "prompt", "label"]) | st.text(
    max_size=4
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4) | VALUES, max_size=6)
CELLS = st.sampled_from(
    ["text", "id", "a", "1", '"', '""', ",", "\n", "\r\n", "\t", " ", "é", "\0"]
)


def parquet_bytes(texts: list[str | None]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), buffer)
    return buffer.getvalue()


def json_lines(rows: list) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode("utf-8", "surrogatepass")


def damaged(content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Give contents as they are, cut, or with some bytes replaced."""

    def change(drawn: tuple[bytes, int, bytes, bool]) -> bytes:
        whole, at, new, cut = drawn
        place = at % (len(whole) + 1)
        return whole[:place] + new + (b"" if cut else whole[place + len(new) :])

    changes = st.tuples(content, st.integers(0, 10**6), st.binary(max_size=4), st.booleans())
    return content | changes.map(change)


FORMATS = {
    ".jsonl": damaged(ROWS.map(json_lines)),
    ".json": damaged(ROWS.map(lambda rows: json.dumps(rows).encode("utf-8", "surrogatepass"))),
    ".csv": damaged(st.lists(CELLS, max_size=30).map(lambda cells: "".join(cells).encode())),
    ".tsv": damaged(st.lists(CELLS, max_size=30).map(lambda cells: "".join(cells).encode())),
    ".txt": st.binary(max_size=60)
    | st.text(max_size=40).map(lambda t: t.encode("utf-8", "replace")),
    ".parquet": damaged(st.lists(st.none() | st.text(max_size=8), max_size=5).map(parquet_bytes)),
    ".jsonl.gz": damaged(ROWS.map(lambda rows: gzip.compress(json_lines(rows), mtime=0))),
}


def one_line(error: Exception) -> None:
    message = str(error)
    assert message
    assert "\n" not in message, message


@pytest.mark.parametrize("ending", FORMATS)
def test_any_bytes_are_rows_or_one_line(tmp_path, ending):
    @SETTINGS
    @given(FORMATS[ending] | st.binary(max_size=80))
    def check(content: bytes) -> None:
        path = tmp_path / f"rows{ending}"
        path.write_bytes(content)
        try:
            tables = list(stream(path, Columns(), "rows"))
        except (ValueError, OSError) as error:
            one_line(error)
        else:
            assert all(table.schema.names == SCHEMA.names for table in tables)
            rows = sum(table.num_rows for table in tables)
            assert rows
            assert sum(table.num_rows for table in all_columns(path)) == rows
        try:
            read_table(path)
        except (ValueError, OSError) as error:
            one_line(error)

    check()


WORDS = st.sampled_from(
    ["--target", "--candidates", "--budget", "--out", "--set", "--where", "--format", "--template"]
    + ["--unit", "--tokens", "--epsilon", "--text-column", "--min-chars", "--method", "--seed"]
    + ["t.txt", "p.jsonl", "5", "2,3", "10%", "o", "-1", "1e400", "nan", "", "a=b", "epsilon=x"]
    + [
        "got_d",
        "random",
        "hub:",
        "hub:a/b",
        "*",
        "[",
        "s3://x",
        "lang == 'en'",
        "{text}",
        "{",
        "\0",
    ]
)
ARGUMENTS = st.lists(WORDS | st.text(max_size=6), max_size=8)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("plan", "export")]


@pytest.mark.parametrize("command", ["select", "diff", "report", *SLOW])
def test_any_arguments_end_in_a_status_and_one_line(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("t.txt").write_text("the dog barks\nthe cat sleeps\n")
    Path("p.jsonl").write_text('{"text": "the dog runs"}\n{"text": "a bird"}\n')
    needed = {"select": ["--target", "t.txt", "--candidates", "p.jsonl", "--out", "o"]}

    @settings(SETTINGS, max_examples=max(10, EXAMPLES // 3))
    @given(ARGUMENTS, st.booleans())
    def check(arguments: list[str], complete: bool) -> None:
        for handler in list(logging.getLogger().handlers):
            logging.getLogger().removeHandler(handler)
        capsys.readouterr()
        given_ = [*needed.get(command, []), *arguments] if complete else arguments
        try:
            status = main([command, *given_])
        except SystemExit as error:  # argparse's own
            status = error.code
        said = capsys.readouterr().err
        assert status in (0, 1, 2), said
        assert "Traceback" not in said
        lines = [
            line for line in said.splitlines() if line.startswith(("gotd:", f"gotd {command}:"))
        ]
        assert len(lines) == (status == 2), said

    check()
