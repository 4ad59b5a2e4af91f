"""CuratedTAPT and RoundRobin: two ways to share out nearest neighbours."""

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.curated_tapt import CuratedTAPT
from gotd.selectors.neighbours import nearest_neighbours
from gotd.selectors.round_robin import RoundRobin

ENGINE = LocalEngine()


def shard(rows, prefix):
    ids = pa.array([f"{prefix}{i:03d}" for i in range(len(rows))])
    return Rows(ids, ids, None, np.asarray(rows, dtype=np.float32).reshape(len(rows), -1))


# Candidates on a line; two targets in one place at 0 and one at 100.
POOL = shard([0.0, 1, 2, 3, 4, 100, 101, 102, 103, 104.5], "c")
TARGET = shard([0.1, 0.1, 100.2], "t")


def test_places_come_in_order_and_a_shared_row_is_taken_once():
    ranking = CuratedTAPT().rank(TARGET, [POOL], 6, 0, ENGINE)
    assert ranking.ids.to_pylist() == ["c000", "c005", "c006", "c001", "c007", "c002"]
    assert ranking.scores.tolist() == [1, 1, 2, 2, 3, 3]


def test_duplicates_are_kept_like_in_the_published_copy():
    ranking = CuratedTAPT(duplicates=True).rank(TARGET, [POOL], 6, 0, ENGINE)
    assert ranking.with_replacement
    assert ranking.ids.to_pylist() == ["c000", "c000", "c005", "c006", "c001", "c001"]
    assert ranking.diagnostics["distinct_rows"] == 4


def test_in_round_robin_a_target_never_loses_its_turn():
    ranking = RoundRobin().rank(TARGET, [POOL], 6, 0, ENGINE)
    # The crowd at 0 takes two rows in each turn, the lone target one.
    assert ranking.ids.to_pylist() == ["c000", "c005", "c001", "c006", "c002", "c003"]
    assert ranking.scores.tolist() == [1, 1, 1, 2, 2, 2]


def simulate_turns(target, pool, limit):
    """Round robin by its definition, on the whole distance matrix."""
    cost = np.square(target.embeddings[:, None].astype(np.float64) - pool.embeddings[None]).sum(2)
    free = np.ones(len(pool), dtype=bool)
    chosen = []
    while len(chosen) < limit:
        waiting = set(range(len(target)))
        while waiting and free.any() and len(chosen) < limit:
            _, row, who = min((cost[t, r], r, t) for t in waiting for r in np.flatnonzero(free))
            chosen.append(pool.ids[int(row)].as_py())
            free[row] = False
            waiting.remove(who)
    return chosen


@pytest.mark.parametrize("limit", [1, 7, 25, 40])
def test_round_robin_agrees_with_its_definition(limit):
    rng = np.random.default_rng(limit)
    target, pool = shard(rng.normal(size=(6, 2)), "t"), shard(rng.normal(size=(40, 2)), "c")
    found = RoundRobin().rank(target, [pool], limit, 0, ENGINE)
    assert found.ids.to_pylist() == simulate_turns(target, pool, limit)


@pytest.mark.parametrize("limit", [3, 20, 60])
def test_the_score_is_the_best_place_among_any_neighbours(limit):
    rng = np.random.default_rng(0)
    target, pool = shard(rng.normal(size=(5, 3)), "t"), shard(rng.normal(size=(60, 3)), "c")
    ranking = CuratedTAPT().rank(target, [pool], limit, 0, ENGINE)
    rows = nearest_neighbours(target, [pool], 60, ENGINE).rows
    best = {pool.ids[i].as_py(): int(np.argwhere(rows == i)[:, 1].min()) + 1 for i in range(60)}
    assert ranking.scores.tolist() == [best[i] for i in ranking.ids.to_pylist()]
    assert ranking.scores.tolist() == sorted(best.values())[:limit]
