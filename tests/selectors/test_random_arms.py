from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.least_toxic import LeastToxic
from gotd.selectors.oracle import Oracle
from gotd.selectors.random import AllDomains, Random, RandomInDomain

ENGINE = LocalEngine()


def make_pool(**rows):
    """Rows per domain; the embedding of domain k is near k."""
    domains = [name for name, count in rows.items() for _ in range(count)]
    place = {name: k for k, name in enumerate(rows)}
    jitter = np.random.default_rng(0).normal(0, 0.1, size=(len(domains), 3))
    embeddings = np.array([[place[d]] * 3 for d in domains]) + jitter
    ids = pa.array([f"c{i}" for i in range(len(domains))])
    return Rows(ids, ids, pa.array(domains), embeddings.astype(np.float32))


POOL = make_pool(law=200, news=120, verse=40)
NEAR_VERSE = Rows(
    pa.array(["t0", "t1"]), pa.array(["", ""]), None, np.full((2, 3), 1.8, dtype=np.float32)
)
DOMAIN = dict(zip(POOL.ids.to_pylist(), POOL.domains.to_pylist(), strict=True))


def domains_of(ranking):
    return [DOMAIN[i] for i in ranking.ids.to_pylist()]


def test_random_draws_domains_in_proportion():
    counts = Counter()
    for seed in range(50):
        counts.update(domains_of(Random().rank(NEAR_VERSE, [POOL], 36, seed, ENGINE)))
    # 1800 draws: three standard deviations are about 55.
    assert abs(counts["law"] - 1000) < 60
    assert abs(counts["verse"] - 200) < 45


def test_random_in_domain_stays_inside_and_refuses_more_than_it_holds():
    assert set(domains_of(RandomInDomain("verse").rank(NEAR_VERSE, [POOL], 40, 0, ENGINE))) == {
        "verse"
    }
    with pytest.raises(ValueError, match="verse has 40"):
        RandomInDomain("verse").rank(NEAR_VERSE, [POOL], 41, 0, ENGINE)
    with pytest.raises(ValueError, match="no domain 'opera'"):
        RandomInDomain("opera").rank(NEAR_VERSE, [POOL], 1, 0, ENGINE)


def test_random_in_domain_finds_the_nearest_domain_itself():
    ranking = RandomInDomain().rank(NEAR_VERSE, [POOL], 20, 0, ENGINE)
    assert set(domains_of(ranking)) == {"verse"}
    distances = ranking.diagnostics["distances"]
    assert list(distances) == ["verse", "news", "law"]


def test_random_in_domain_draws_from_the_first_where_all_texts_are_the_same():
    same = np.full((len(POOL), 3), 0.1, dtype=np.float32)
    pool = replace(POOL, embeddings=same)
    target = replace(NEAR_VERSE, embeddings=same[:2] * np.float32(1 + 1e-7))
    ranking = RandomInDomain().rank(target, [pool], 20, 0, ENGINE)
    assert set(domains_of(ranking)) == {"law"}
    assert ranking.diagnostics["distances"] == {"law": 0.0, "news": 0.0, "verse": 0.0}


def test_random_in_a_named_domain_needs_no_embeddings():
    bare = Rows(POOL.ids, POOL.texts, POOL.domains)
    assert len(RandomInDomain("law").rank(NEAR_VERSE, [bare], 9, 0, ENGINE).ids) == 9


def test_all_domains_takes_equal_shares_until_one_is_used_up():
    chosen = domains_of(AllDomains().rank(NEAR_VERSE, [POOL], 200, 0, ENGINE))
    assert Counter(chosen[:60]) == {"law": 20, "news": 20, "verse": 20}
    assert Counter(chosen) == {"law": 80, "news": 80, "verse": 40}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.75, 1.0])
def test_every_prefix_of_the_oracle_holds_its_share(share):
    fill = ("law", "news") if share < 1 else ()
    chosen = domains_of(Oracle(("verse",), fill, share).rank(NEAR_VERSE, [POOL], 40, 0, ENGINE))
    held = np.cumsum([d == "verse" for d in chosen])
    exact = share * np.arange(1, 41)
    assert (held >= exact - 1e-9).all()
    assert (held < exact + 1).all()


def test_the_oracle_refuses_a_pool_without_enough_true_rows():
    half = Oracle(("verse",), ("law",), 0.5)
    assert len(half.rank(NEAR_VERSE, [POOL], 80, 0, ENGINE).ids) == 80
    with pytest.raises(ValueError, match="verse has 40 candidates, fewer than the 41"):
        half.rank(NEAR_VERSE, [POOL], 81, 0, ENGINE)


def test_rounding_does_not_ask_for_one_row_too_many():
    # 0.56 * 25 is 14.000000000000002 in floating point.
    pool = make_pool(law=100, verse=14)
    assert len(Oracle(("verse",), ("law",), 0.56).rank(NEAR_VERSE, [pool], 25, 0, ENGINE).ids) == 25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"domains": ()}, "at least one domain"),
        ({"domains": ("a",), "share": 0.5}, "give `fill`"),
        ({"domains": ("a",), "fill": ("b",)}, "give `fill`"),
        ({"domains": ("a",), "fill": ("a",), "share": 0.5}, "is in both"),
        ({"domains": ("a",), "share": 0.0}, "share must be"),
    ],
)
def test_the_oracle_refuses_a_contradiction(fields, message):
    with pytest.raises(ValueError, match=message):
        Oracle(**fields)


def test_least_toxic_joins_by_id_and_wants_every_score(tmp_path):
    path = tmp_path / "scores.parquet"
    ids = POOL.ids.to_pylist()
    pq.write_table(pa.table({"id": ids[::-1], "score": range(len(ids))}), path)
    assert LeastToxic(path).rank(NEAR_VERSE, [POOL], 3, 0, ENGINE).ids.to_pylist() == [
        ids[-1],
        ids[-2],
        ids[-3],
    ]
    pq.write_table(pa.table({"id": ids[1:], "score": range(len(ids) - 1)}), path)
    with pytest.raises(ValueError, match="no score for candidate 'c0'"):
        LeastToxic(path).rank(NEAR_VERSE, [POOL], 3, 0, ENGINE)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LeastToxic(tmp_path / "nowhere").rank(NEAR_VERSE, [POOL], 3, 0, ENGINE)
