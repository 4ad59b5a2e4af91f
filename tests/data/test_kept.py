"""The rows that compete: those that the encoder can read and no rule leaves out."""

import numpy as np
import pyarrow as pa
import pytest

from gotd.config.schemas import Chunking
from gotd.data import pool as pools
from gotd.data.columns import Columns
from gotd.data.inputs import InMemory
from gotd.data.kept import write_kept, write_readable
from gotd.data.pool import embeddings_file, open_pool, pool_facts, write_pool

UNREAD = {0, 5, 9, 10, 11, 12}
"""One of each shard of five, two of them at an end, and a whole shard but two rows."""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A pool of 15 rows in three shards; row n has the embedding [n + 1, n], or zeros."""
    monkeypatch.setattr(pools, "SHARD_ROWS", 5)
    pool, embeddings = tmp_path / "pool", tmp_path / "embeddings"
    pool.mkdir()
    embeddings.mkdir()
    rows = pa.table(
        {"id": [f"r{n:02d}" for n in range(15)], "text": [f"text {n}" for n in range(15)]}
    )
    write_pool([InMemory(rows, "rows", Columns())], pool, Chunking("whole"))
    for shard in range(3):
        numbers = range(5 * shard, 5 * shard + 5)
        matrix = [[0, 0] if n in UNREAD else [n + 1, n] for n in numbers]
        np.save(embeddings / embeddings_file(shard), np.array(matrix, "f4"))
    return pool, embeddings


def competing(pool, embeddings, **options):
    """Return the number of each row, by its id; its text and embedding must be its own."""
    found = []
    for shard in open_pool(pool, embeddings, **options):
        for name, text, row in zip(shard.ids, shard.texts, shard.embeddings, strict=True):
            found.append(int(name.as_py()[1:]))
            assert text.as_py() == f"text {found[-1]}"
            assert row.tolist() in ([found[-1] + 1, found[-1]], [0, 0])
    return found


def test_rows_that_cannot_be_read_do_not_compete(written):
    pool, embeddings = written
    write_readable(pool, embeddings, "rows")
    assert competing(pool, embeddings) == [*range(15)]
    assert competing(pool, embeddings, only_readable=True) == sorted(set(range(15)) - UNREAD)
    (*shards,) = open_pool(pool, None, only_readable=True)
    assert sum(map(len, shards)) == 15


def test_rows_that_a_rule_leaves_out_do_not_compete(written, tmp_path):
    pool, embeddings = written
    (tmp_path / "kept").mkdir()
    masks = [np.array([True, True, False, False, True]), np.zeros(5, bool), np.ones(5, bool)]
    write_kept(pool, tmp_path / "kept", masks, embeddings)
    assert competing(pool, embeddings, kept=tmp_path / "kept") == [1, 4, 13, 14]
    assert pool_facts(tmp_path / "kept")["rows"] == [2, 2]
    with pytest.raises(ValueError, match="no candidate is left"):
        write_kept(pool, tmp_path / "kept", [np.zeros(5, bool)] * 3)


def test_a_pool_that_cannot_be_read_at_all_is_refused(written):
    pool, embeddings = written
    for shard in range(3):
        np.save(embeddings / embeddings_file(shard), np.zeros((5, 2), "f4"))
    with pytest.raises(ValueError, match="the encoder can read no row of films"):
        write_readable(pool, embeddings, "films")
