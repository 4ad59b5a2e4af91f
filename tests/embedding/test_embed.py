"""Rows by id, and the same bytes however a run was cut."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

import gotd
from gotd.embedding import embed as embedding
from gotd.embedding.embed import IDS, MATRIX, read_embeddings, write_embeddings
from gotd.embedding.embedders import HashedEmbedder
from gotd.engine.local import LocalEngine

HASHED = HashedEmbedder(dimension=16, buckets=128)


def chunks(n: int) -> pa.Table:
    return pa.table(
        {"id": [f"c{row}" for row in range(n)], "text": [f"word{row} and more" for row in range(n)]}
    )


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch):
    monkeypatch.setattr(embedding, "ROWS_PER_RANGE", 10)


@dataclass
class Stopping:
    """Embeds like ``HASHED`` and stops with an error at its nth call."""

    stop_at: int
    calls: int = 0
    dimension: int = 16
    version: ClassVar[int] = 1

    def embed(self, texts):
        self.calls += 1
        if self.calls > self.stop_at:
            raise InterruptedError
        return HASHED.embed(texts)


@pytest.mark.parametrize("n", [1, 10, 35])
@pytest.mark.parametrize("workers", [1, 3])
def test_rows_and_ids_stand_in_the_order_of_the_chunks(tmp_path, n, workers):
    table = chunks(n)
    write_embeddings(HASHED, table, tmp_path, tmp_path / "work", LocalEngine(workers))
    rows = read_embeddings(tmp_path, table["id"])
    assert isinstance(rows, np.memmap)
    assert not rows.flags.writeable
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, HASHED.embed(table["text"].to_pylist()), atol=1e-6)


@pytest.mark.parametrize("stop_at", [0, 1, 3])
def test_a_stopped_run_goes_on_at_its_range(tmp_path, stop_at):
    table, work = chunks(35), tmp_path / "work"
    with pytest.raises(InterruptedError):
        write_embeddings(Stopping(stop_at), table, tmp_path, work, LocalEngine())
    rest = Stopping(99)
    write_embeddings(rest, table, tmp_path, work, LocalEngine())
    assert rest.calls == 4 - stop_at
    np.testing.assert_allclose(
        read_embeddings(tmp_path, table["id"]), HASHED.embed(table["text"].to_pylist()), atol=1e-6
    )


def test_markers_without_a_matrix_are_not_believed(tmp_path):
    table, work = chunks(20), tmp_path / "work"
    write_embeddings(HASHED, table, tmp_path, work, LocalEngine())
    (tmp_path / MATRIX).unlink()
    write_embeddings(HASHED, table, tmp_path, work, LocalEngine())
    assert np.asarray(read_embeddings(tmp_path, table["id"])).any(axis=1).all()


def test_a_kill_while_the_file_is_made_is_mended(tmp_path):
    """What a kill leaves before the header and the room stand is begun again."""
    table = chunks(20)
    part = tmp_path / f"{MATRIX}.7.part"
    part.write_bytes(b"\x93NUM")
    write_embeddings(HASHED, table, tmp_path, tmp_path / "work", LocalEngine())
    part.unlink()  # the store does so when the step is done
    assert read_embeddings(tmp_path, table["id"]).shape == (20, 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MATRIX, IDS, "work"]


PROGRAM = """
import sys, time
from pathlib import Path
import pyarrow as pa
from gotd.embedding import embed as embedding
from gotd.embedding.embedders import HashedEmbedder
from gotd.engine.local import LocalEngine

embedding.ROWS_PER_RANGE = 10
folder, stop_at = Path(sys.argv[1]), int(sys.argv[2])
plain = HashedEmbedder(dimension=16, buckets=128)

class Slow:
    version, dimension, calls = 1, 16, 0
    def embed(self, texts):
        if self.calls == stop_at:
            print("stopped", flush=True)
            time.sleep(120)
        self.calls += 1
        return plain.embed(texts)

rows = range(35)
table = pa.table({"id": [f"c{i}" for i in rows], "text": [f"word{i} and more" for i in rows]})
embedding.write_embeddings(Slow(), table, folder, folder / "work", LocalEngine())
"""


def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, str(cut), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "stopped\n"
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((cut / "work").iterdir())) == 2
    assert not (cut / IDS).exists()
    rest = Stopping(99)
    write_embeddings(rest, chunks(35), cut, cut / "work", LocalEngine())
    write_embeddings(HASHED, chunks(35), whole, whole / "work", LocalEngine())
    assert rest.calls == 2
    for name in (MATRIX, IDS):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(tmp_path, value):
    class Broken(Stopping):
        def embed(self, texts):
            rows = HASHED.embed(texts)
            rows[[text.startswith("word17 ") for text in texts], 3] = value
            return rows

    with pytest.raises(ValueError, match="chunk 'c17' is not finite; drop or mend its text"):
        write_embeddings(Broken(9), chunks(35), tmp_path, tmp_path / "work", LocalEngine())
    assert not (tmp_path / IDS).exists()


def test_embeddings_of_other_rows_are_refused(tmp_path):
    table = chunks(20)
    write_embeddings(HASHED, table, tmp_path, tmp_path / "work", LocalEngine())
    ids = table["id"].combine_chunks()
    read_embeddings(tmp_path, ids)
    for other in (ids[::-1], ids[:19], pa.array([*ids.to_pylist(), "c20"])):
        with pytest.raises(ValueError, match="of other rows than the ones given"):
            read_embeddings(tmp_path, other)
