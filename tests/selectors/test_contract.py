"""What every arm promises, whatever its method."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.base import smallest
from gotd.selectors.curated_tapt import CuratedTAPT
from gotd.selectors.dsir import DSIR
from gotd.selectors.got_d import GotD
from gotd.selectors.got_d_clusters import GotDClusters
from gotd.selectors.got_d_path import GotDPath
from gotd.selectors.least_toxic import LeastToxic
from gotd.selectors.nearest import Nearest
from gotd.selectors.oracle import Oracle
from gotd.selectors.random import AllDomains, Random, RandomInDomain
from gotd.selectors.round_robin import RoundRobin
from gotd.selectors.tsds import TSDS

N = 300
SELECTORS = {
    "random": Random(),
    "random_in_domain": RandomInDomain("a"),
    "random_in_nearest_domain": RandomInDomain(),
    "all_domains": AllDomains(),
    "oracle": Oracle(domains=("a",)),
    "half_oracle": Oracle(domains=("c",), fill=("a", "b"), share=0.5),
    "dsir_fast": DSIR(),
    "dsir_sha256": DSIR(hash="sha256"),
    "dsir_without_noise": DSIR(noise=False, buckets=64),
    "curated_tapt": CuratedTAPT(),
    "curated_tapt_duplicates": CuratedTAPT(duplicates=True),
    "curated_tapt_normalised": CuratedTAPT(normalise=True),
    "round_robin": RoundRobin(),
    "tsds_uniform": TSDS(),
    "tsds_spread": TSDS(alpha=0.01),
    "tsds_kde": TSDS(variant="kde", sigma=2.0),
    "tsds_multinomial": TSDS(variant="kde", sampling="multinomial"),
    "least_toxic": None,
    "nearest": Nearest(),
    "nearest_cosine": Nearest(cost="cosine"),
    "got_d": GotD(),
    "got_d_away": GotD(direction="away"),
    "got_d_dense": GotD(solver="dense"),
    "got_d_path": GotDPath(first=5, growth=0.3),
    "got_d_path_sampled": GotDPath(first=20, growth=0.5, reference_rows=250, max_passes=30),
    "got_d_clusters": GotDClusters(clusters=4),
    "got_d_clusters_many": GotDClusters(clusters=24, whiten=True),
    "got_d_debiased": GotD(debias=True, epsilon=0.2),
}
SEEDED = ("random", "all_domains", "oracle", "half_oracle", "dsir_fast", "tsds_multinomial")
BY_DOMAIN = [name for name, arm in SELECTORS.items() if arm and "domains" in arm.requires]
EMBEDDED = [
    name
    for name, arm in SELECTORS.items()
    if arm and "embeddings" in arm.requires and arm != RandomInDomain("a")
]
SCORING = [name for name, arm in SELECTORS.items() if hasattr(arm, "scores")]
WHOLE_POOL = [
    name
    for name, arm in SELECTORS.items()
    if arm
    and not isinstance(arm, Oracle | RandomInDomain)
    and name not in ("curated_tapt_duplicates", "tsds_multinomial")
]


def make_rows(n, prefix, seed):
    """Rows of three domains; every tenth row copies the text and embedding of another."""
    rng = np.random.default_rng(seed)
    domains = rng.choice(["a", "b", "c"], size=n, p=[0.5, 0.3, 0.2])
    words = {"a": ["ant", "axe", "arm"], "b": ["bee", "box", "bag"], "c": ["cow", "cup", "été"]}
    texts = [" ".join(rng.choice([*words[d], "the", "of", ","], size=20)) for d in domains]
    centres = {"a": 0.0, "b": 2.0, "c": -2.0}
    embeddings = np.stack([rng.normal(centres[d], 1.0, size=6) for d in domains])
    for row in range(10, n, 10):
        texts[row], embeddings[row], domains[row] = (
            texts[row - 5],
            embeddings[row - 5],
            domains[row - 5],
        )
    # Ids in an order of their own, so that position cannot stand in for them.
    ids = [f"{prefix}{i:04d}" for i in rng.permutation(n)]
    return Rows(
        pa.array(ids), pa.array(texts), pa.array(domains.tolist()), embeddings.astype(np.float32)
    )


def take(shard, rows):
    rows = np.asarray(rows, dtype=np.int64)
    chosen = pa.array(rows)
    return Rows(
        shard.ids.take(chosen),
        shard.texts.take(chosen),
        shard.domains.take(chosen),
        shard.embeddings[rows],
    )


POOL = make_rows(N, "c", 0)
TARGET = take(make_rows(60, "t", 1), np.arange(24))
ENGINE = LocalEngine()


@pytest.fixture(params=list(SELECTORS))
def selector(request, tmp_path):
    if request.param != "least_toxic":
        return SELECTORS[request.param]
    path = tmp_path / "scores.parquet"
    scores = np.random.default_rng(2).random(N).round(1)
    pq.write_table(pa.table({"id": POOL.ids, "score": scores}), path)
    return LeastToxic(path)


def outcome(ranking):
    return ranking.ids.to_pylist(), ranking.scores


def test_it_says_what_it_is_and_needs(selector):
    assert isinstance(selector.name, str)
    assert selector.requires <= {"embeddings", "texts", "domains", "scores"}


def test_ids_come_from_the_pool_and_only_repeat_with_replacement(selector):
    ranking = selector.rank(TARGET, [POOL], 100, 3, ENGINE)
    ids, scores = outcome(ranking)
    assert set(ids) <= set(POOL.ids.to_pylist())
    assert len(ids) == len(scores) == 100
    assert ranking.with_replacement or len(set(ids)) == 100


def test_scores_ascend_and_diagnostics_are_json(selector):
    ranking = selector.rank(TARGET, [POOL], 100, 3, ENGINE)
    assert ranking.scores.dtype == np.float64
    assert (np.diff(ranking.scores) >= 0).all()
    json.dumps(ranking.diagnostics, allow_nan=False)


def test_a_budget_is_a_prefix_of_a_larger_one(selector):
    large, small = (selector.rank(TARGET, [POOL], n, 3, ENGINE) for n in (100, 37))
    assert small.ids.to_pylist() == large.ids.to_pylist()[:37]
    np.testing.assert_array_equal(small.scores, large.scores[:37])


def test_the_same_seed_gives_the_same_ranking(selector):
    one, two = (outcome(selector.rank(TARGET, [POOL], 100, 3, ENGINE)) for _ in range(2))
    assert one[0] == two[0]
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("name", SCORING)
def test_scores_are_what_the_ranking_is_made_of(name):
    pool = [take(POOL, np.arange(120)), take(POOL, []), take(POOL, np.arange(120, N))]
    ranking = SELECTORS[name].rank(TARGET, pool, 100, 3, ENGINE)
    scores = SELECTORS[name].scores(TARGET, pool, 3, ENGINE)
    assert [len(values) for values in scores.values] == [120, 0, 180]
    ids, best = smallest(scores.values, [shard.ids for shard in pool], 100)
    assert ids.equals(ranking.ids)
    np.testing.assert_array_equal(best, ranking.scores)
    json.dumps(scores.diagnostics, allow_nan=False)
    out = [np.full(len(shard), np.nan) for shard in pool]
    filled = SELECTORS[name].scores(TARGET, pool, 3, ENGINE, out).values
    assert all(a is b for a, b in zip(filled, out, strict=True))
    np.testing.assert_array_equal(np.concatenate(out), np.concatenate(list(scores.values)))


@pytest.mark.parametrize("name", SEEDED)
def test_another_seed_gives_another_ranking(name):
    one, two = (SELECTORS[name].rank(TARGET, [POOL], 100, seed, ENGINE) for seed in (3, 4))
    assert one.ids.to_pylist() != two.ids.to_pylist()


def test_shards_workers_and_row_order_do_not_matter(selector):
    wanted, scores = outcome(selector.rank(TARGET, [POOL], 100, 3, ENGINE))
    order = np.random.default_rng(5).permutation(N)
    pieces = [take(POOL, part) for part in np.split(order, [1, 60, 60, 217])]
    shuffled = take(TARGET, np.random.default_rng(6).permutation(len(TARGET)))
    got, other = outcome(selector.rank(shuffled, pieces, 100, 3, LocalEngine(workers=2)))
    assert got == wanted
    np.testing.assert_allclose(other, scores, rtol=1e-9, atol=1e-12)


def test_a_memory_map_is_read_like_an_array(selector, tmp_path):
    np.save(tmp_path / "rows.npy", POOL.embeddings)
    mapped = replace(POOL, embeddings=np.load(tmp_path / "rows.npy", mmap_mode="r"))
    one, two = (selector.rank(TARGET, [pool], 60, 3, ENGINE) for pool in (POOL, mapped))
    assert one.ids.to_pylist() == two.ids.to_pylist()


def test_a_budget_beyond_the_pool_is_refused(selector):
    with pytest.raises(ValueError, match="301"):
        selector.rank(TARGET, [POOL], N + 1, 3, ENGINE)


def test_an_empty_target_is_refused(selector):
    with pytest.raises(ValueError, match="target is empty"):
        selector.rank(take(TARGET, []), [POOL], 10, 3, ENGINE)


@pytest.mark.parametrize("name", WHOLE_POOL)
def test_the_whole_pool_can_be_ranked(name):
    ranking = SELECTORS[name].rank(TARGET, [POOL], N, 3, ENGINE)
    assert sorted(ranking.ids.to_pylist()) == sorted(POOL.ids.to_pylist())


@pytest.mark.parametrize("side", ["target", "candidates"])
@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedding_that_is_not_finite_is_named(name, side):
    broken = {"target": TARGET, "candidates": POOL}
    rows = broken[side].embeddings.copy()
    rows[7, 2] = np.nan
    broken[side] = replace(broken[side], embeddings=rows)
    with pytest.raises(ValueError, match=broken[side].ids[7].as_py()):
        SELECTORS[name].rank(broken["target"], [broken["candidates"]], 10, 3, ENGINE)


@pytest.mark.parametrize("name", EMBEDDED)
def test_missing_embeddings_are_asked_for(name):
    with pytest.raises(ValueError, match="embeddings"):
        SELECTORS[name].rank(TARGET, [replace(POOL, embeddings=None)], 10, 3, ENGINE)


@pytest.mark.parametrize("name", BY_DOMAIN)
def test_missing_domains_are_asked_for(name):
    with pytest.raises(ValueError, match="domain"):
        SELECTORS[name].rank(TARGET, [replace(POOL, domains=None)], 10, 3, ENGINE)
    unknown = pa.array([None, *POOL.domains.to_pylist()[1:]], type=pa.string())
    with pytest.raises(ValueError, match=POOL.ids[0].as_py()):
        SELECTORS[name].rank(TARGET, [replace(POOL, domains=unknown)], 10, 3, ENGINE)
