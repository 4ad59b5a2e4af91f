from itertools import pairwise

import bm25s
import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.data.words import words
from gotd.engine.local import LocalEngine
from gotd.selectors import bm25
from gotd.selectors.bm25 import BM25

ENGINE = LocalEngine()


def shard(texts, prefix):
    return Rows(pa.array([f"{prefix}{i:05d}" for i in range(len(texts))]), pa.array(texts))


def random_texts(n, seed, vocabulary=40):
    rng = np.random.default_rng(seed)
    chance = 1.0 / np.arange(1, vocabulary + 1)
    names = np.array([f"w{i}" for i in range(vocabulary)])
    return [
        " ".join(rng.choice(names, size=rng.integers(1, 40), p=chance / chance.sum()))
        for _ in range(n)
    ]


POOL = [*random_texts(200, 0), "- - -", "Größe 東京都 été w1", "nothing shared here"]
TARGET = [*random_texts(12, 1, vocabulary=30), "unknown words", "!!", "ÉTÉ 東京 w39 w39"]


def scores(selector, target=TARGET, pool=POOL, cut=()):
    ends = [0, *cut, len(pool)]
    shards = [shard(pool, "c").slice(a, b) for a, b in pairwise(ends)]
    found = selector.scores(shard(target, "t"), shards, 0, ENGINE)
    return -np.concatenate(list(found.values))


@pytest.fixture(scope="module")
def by_library():
    """``[m, n]`` scores of the library, a query at a time."""

    def compute(k1, b):
        index = bm25s.BM25(k1=k1, b=b, method="lucene", dtype="float64")
        index.index([words(text) for text in POOL], show_progress=False)
        queries = [[w for w in words(text) if w in index.vocab_dict] for text in TARGET]
        nothing = np.zeros(len(POOL))
        return np.array([index.get_scores(query) if query else nothing for query in queries])

    return compute


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.0), (2.0, 1.0)])
@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_scores_are_those_of_the_library(by_library, aggregate, k1, b):
    expected = getattr(by_library(k1, b), aggregate)(axis=0)
    found = scores(BM25(aggregate, k1, b))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert found[-1] == found[-3] == 0.0  # no word that a target has
    assert len(np.unique(found)) > 150


def test_statistics_are_those_of_the_whole_pool(monkeypatch):
    whole = scores(BM25())
    monkeypatch.setattr(bm25, "BLOCK_PAIRS", 7 * len(TARGET))
    np.testing.assert_array_equal(scores(BM25(), cut=(1, 1, 90)), whole)


def test_a_text_that_is_missing_is_named():
    for target, pool, row in ((["a", None], ["a"], "t00001"), (["a"], ["b", None], "c00001")):
        with pytest.raises(ValueError, match=row):
            scores(BM25(), target, pool)


@pytest.mark.parametrize(("target", "pool"), [(["?!"], ["a"]), (["a"], ["?!", "."])])
def test_a_side_without_words_is_an_error(target, pool):
    side = "target" if target == ["?!"] else "candidates"
    with pytest.raises(ValueError, match=f"bm25: no word in the {side}"):
        scores(BM25(), target, pool)


@pytest.mark.parametrize("wrong", [{"aggregate": "sum"}, {"k1": -1.0}, {"b": 1.5}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BM25(**wrong)
