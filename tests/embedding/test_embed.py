"""Embeddings of a pool on disk: a row for each id, and the same bytes after any interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import gotd
from gotd.data.columns import Columns
from gotd.data.inputs import table_parts
from gotd.data.pool import embeddings_file, shard_files, write_pool
from gotd.embedding import embed
from gotd.embedding.tfidf import TfidfSvdEmbedder
from gotd.engine.local import LocalEngine

SPACE = TfidfSvdEmbedder(np.arange(128), np.random.default_rng(0).random((128, 16), "f4"), 128)
MATRIX = embeddings_file(0)


def texts(n: int) -> list[str]:
    return [f"word{row} and more" for row in range(n)]


def pool(folder: Path, n: int) -> list[tuple[Path, int]]:
    folder.mkdir(parents=True, exist_ok=True)
    parts = table_parts(texts(n), "c", Columns())
    write_pool(parts, folder, folder / "work", unit="whole", length_chars=1, tick=lambda rows: None)
    return shard_files(folder)


def run(
    load: Callable, shards: list, folder: Path, workers: int = 1, length_chars: int | None = None
) -> np.ndarray:
    """Embed the shards into a folder and return the matrix of the first."""
    folder.mkdir(exist_ok=True)
    work, engine = folder / "work", LocalEngine(workers)
    list(embed.embed_shards(load, 16, shards, folder, work, engine, length_chars))
    return np.load(folder / MATRIX)


@pytest.fixture(autouse=True)
def _short_ranges(monkeypatch):
    monkeypatch.setattr(embed, "ROWS_PER_RANGE", 10)


@dataclass
class Stopping:
    """Embeds like ``SPACE`` and stops with an error at its nth call."""

    stop_at: int
    calls: int = 0

    def embed(self, texts):
        self.calls += 1
        if self.calls > self.stop_at:
            raise InterruptedError
        return SPACE.embed(texts)


@pytest.mark.parametrize("n", [1, 10, 35])
@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_in_the_order_of_the_pool(tmp_path, n, workers):
    rows = run(lambda: SPACE, pool(tmp_path / "pool", n), tmp_path / "out", workers)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, SPACE.embed(texts(n)), atol=1e-6)


def test_so_much_of_each_text_is_read(tmp_path):
    shards = pool(tmp_path / "pool", 12)
    rows = run(lambda: SPACE, shards, tmp_path / "out", length_chars=5)
    np.testing.assert_allclose(rows, SPACE.embed([t[:5] for t in texts(12)]), atol=1e-6)


@pytest.mark.parametrize("stop_at", [0, 1, 3])
def test_a_stopped_run_continues_at_its_range(tmp_path, stop_at):
    shards = pool(tmp_path / "pool", 35)
    with pytest.raises(InterruptedError):
        run(lambda: Stopping(stop_at), shards, tmp_path / "out")
    rest = Stopping(99)
    rows = run(lambda: rest, shards, tmp_path / "out")
    assert rest.calls == 4 - stop_at
    np.testing.assert_allclose(rows, SPACE.embed(texts(35)), atol=1e-6)


def test_markers_without_a_matrix_are_not_believed(tmp_path):
    shards = pool(tmp_path / "pool", 20)
    run(lambda: SPACE, shards, tmp_path / "out")
    (tmp_path / "out" / MATRIX).unlink()
    assert run(lambda: SPACE, shards, tmp_path / "out").any(axis=1).all()


def test_a_kill_while_the_file_is_created_is_repaired(tmp_path):
    """What a kill leaves before the header is complete is begun again."""
    shards = pool(tmp_path / "pool", 20)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{MATRIX}.7.part").write_bytes(b"\x93NUM")
    assert run(lambda: SPACE, shards, tmp_path / "out").shape == (20, 16)


PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
from gotd.data.pool import shard_files
from gotd.embedding import embed
from gotd.embedding.tfidf import TfidfSvdEmbedder
from gotd.engine.local import LocalEngine

embed.ROWS_PER_RANGE = 10
pool, folder, stop_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
plain = TfidfSvdEmbedder(np.arange(128), np.random.default_rng(0).random((128, 16), "f4"), 128)

class Slow:
    calls = 0
    def embed(self, texts):
        if self.calls == stop_at:
            print("stopped", flush=True)
            time.sleep(120)
        self.calls += 1
        return plain.embed(texts)

list(embed.embed_shards(Slow, 16, shard_files(pool), folder, folder / "work", LocalEngine()))
"""


def test_a_killed_process_continues_to_the_same_bytes(tmp_path):
    full, cut = tmp_path / "full", tmp_path / "cut"
    cut.mkdir()
    shards = pool(tmp_path / "pool", 35)
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "pool"), str(cut), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "stopped\n"
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((cut / "work").iterdir())) == 2
    rest = Stopping(99)
    run(lambda: rest, shards, cut)
    run(lambda: SPACE, shards, full)
    assert rest.calls == 2
    assert (cut / MATRIX).read_bytes() == (full / MATRIX).read_bytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(tmp_path, value):
    class Broken(Stopping):
        def embed(self, texts):
            rows = SPACE.embed(texts)
            rows[[text.startswith("word17 ") for text in texts], 3] = value
            return rows

    shards = pool(tmp_path / "pool", 35)
    with pytest.raises(ValueError, match="row 'c#18' is not finite; repair or drop its text"):
        run(lambda: Broken(9), shards, tmp_path / "out")
