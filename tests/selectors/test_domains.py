from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors import domains
from gotd.selectors.domains import domain_names, only_domains, rows_in_domains


def make_shard(centres, per_domain, prefix, seed):
    rng = np.random.default_rng(seed)
    domains = [name for name in centres for _ in range(per_domain)]
    rows = np.array([[centres[d], 0, 0, 0] for d in domains]) + rng.normal(size=(len(domains), 4))
    ids = pa.array([f"{prefix}{i:04d}" for i in range(len(domains))])
    return Rows(ids, ids, pa.array(domains), rows.astype(np.float32))


POOL = make_shard({"far": 8.0, "near": 1.0, "middle": 3.0}, 150, "c", 0)
TARGET = make_shard({"target": 0.0}, 60, "t", 1)


def screen(target, candidates, epsilon=0.05, **settings):
    return domains.screen(target, candidates, epsilon=epsilon, tolerance=5e-3, **settings)


def test_domains_are_ranked_by_how_far_they_are():
    screened = screen(TARGET, [POOL])
    assert [row.domain for row in screened] == ["near", "middle", "far"]
    assert [row.rows for row in screened] == [150, 150, 150]
    assert all(row.marginal_error <= 5e-3 for row in screened)


def test_the_distance_tends_to_the_exact_transport_cost():
    ot = pytest.importorskip("ot")
    pool = make_shard({"near": 1.0}, 60, "c", 0)
    near, target = (shard.embeddings.astype(np.float64) for shard in (pool, TARGET))
    exact = ot.emd2([], [], np.square(near[:, None] - target[None]).sum(axis=2))
    # Regularisation adds eps times a relative entropy, so the distance falls to the exact one.
    found = [screen(TARGET, [pool], epsilon=eps)[0].distance for eps in (0.1, 0.002)]
    assert found[0] > found[1] > 0.99 * exact
    assert found[1] < 1.05 * exact


def test_the_modes_of_the_target_decide_not_its_mean():
    # The target has two modes; "between" sits at its mean, "both" on its modes.
    rng = np.random.default_rng(3)
    modes = np.repeat([-4.0, 4.0], 40)
    rows = rng.normal(0, 0.3, size=(80, 2)) + np.stack([modes, modes], axis=1)
    ids = pa.array([f"t{i}" for i in range(80)])
    target = Rows(ids, ids, None, rows.astype(np.float32))
    both = rng.normal(0, 0.3, size=(80, 2)) + np.stack([modes, modes], axis=1)
    between = rng.normal(0, 0.3, size=(80, 2))
    ids = pa.array([f"c{i}" for i in range(160)])
    domains = pa.array(["both"] * 80 + ["between"] * 80)
    pool = Rows(ids, ids, domains, np.vstack([both, between]).astype(np.float32))
    assert screen(target, [pool])[0].domain == "both"


def test_a_sample_is_enough_and_does_not_depend_on_shards():
    parts = []
    order = np.random.default_rng(4).permutation(len(POOL))
    for rows in np.split(order, [100, 100, 333]):
        picked = pa.array(rows)
        parts.append(
            Rows(
                POOL.ids.take(picked),
                POOL.texts.take(picked),
                POOL.domains.take(picked),
                POOL.embeddings[rows],
            )
        )
    one = screen(TARGET, [POOL], sample=50, seed=2)
    two = screen(TARGET, parts, sample=50, seed=2, engine=LocalEngine(workers=2))
    assert [row.sampled for row in one] == [50, 50, 50]
    assert one == two
    assert one != screen(TARGET, [POOL], sample=50, seed=3)


def test_rows_are_listed_by_domain_and_strangers_refused():
    assert domain_names([POOL], "test") == ["far", "middle", "near"]
    assert rows_in_domains([POOL], ("near",), "test")[0].tolist() == list(range(150, 300))
    with pytest.raises(ValueError, match="no domain 'law'"):
        rows_in_domains([POOL], ("near", "law"), "test")


def test_screening_asks_for_embeddings():
    with pytest.raises(ValueError, match="embeddings"):
        screen(TARGET, [replace(POOL, embeddings=None)])


def test_screening_is_on_the_processor_where_there_is_a_gpu_too(monkeypatch):
    expected = screen(TARGET, [POOL])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert screen(TARGET, [POOL]) == expected


def test_a_pool_is_narrowed_to_its_domains_without_a_copy():
    order = np.concatenate([np.arange(100, 450), np.arange(100)])  # far, near, middle, far
    shards = [POOL.take(np.arange(450)), rows_of(order)]
    runs = only_domains(shards, ["near", "far"], least=600)
    assert [len(run) for run in runs] == [300, 200, 100]
    assert runs[0].domains.to_pylist() == ["far"] * 150 + ["near"] * 150
    assert all(
        np.shares_memory(run.embeddings, shard.embeddings)
        for run, shard in zip(runs, [shards[0], shards[1], shards[1]], strict=True)
    )
    assert sorted(ids_of(runs)) == sorted(2 * POOL.ids.to_pylist()[:300])


def test_a_fragmented_shard_is_one_copy(monkeypatch):
    mixed = rows_of(np.random.default_rng(5).permutation(len(POOL)))
    assert len(only_domains([mixed], ["far"], least=1)) == 1
    monkeypatch.setattr(domains, "MOST_RUNS", 450)
    runs = only_domains([mixed], ["far"], least=1)
    assert len(runs) > 64
    (copied,) = only_domains([POOL], ["far"], least=1)
    assert sorted(ids_of(runs)) == sorted(ids_of([copied])) == POOL.ids.to_pylist()[:150]
    where = {name: row for row, name in enumerate(POOL.ids.to_pylist())}
    for run in runs:
        rows = [where[name] for name in run.ids.to_pylist()]
        np.testing.assert_array_equal(run.embeddings, POOL.embeddings[rows])


def rows_of(order):
    rows = pa.array(order)
    return Rows(
        POOL.ids.take(rows), POOL.texts.take(rows), POOL.domains.take(rows), POOL.embeddings[order]
    )


def ids_of(shards):
    return [name for shard in shards for name in shard.ids.to_pylist()]


def test_too_few_rows_in_the_nearest_domains_are_named():
    with pytest.raises(ValueError, match="near.*have 150 candidates, fewer than the 151 to rank"):
        only_domains([POOL], ["near"], least=151)
    with pytest.raises(ValueError, match="no domain 'nowhere'"):
        only_domains([POOL], ["nowhere"], least=1)
