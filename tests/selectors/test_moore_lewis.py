from collections import Counter
from itertools import pairwise
from math import log

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.data.words import words
from gotd.engine.local import LocalEngine
from gotd.selectors import moore_lewis
from gotd.selectors.hashed_words import ExactCounts, HashedWords, SketchedCounts, bucket
from gotd.selectors.moore_lewis import MooreLewis

ENGINE = LocalEngine()


def random_texts(n, seed, names):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(names.split(), size=rng.integers(1, 15))) for _ in range(n)]


POOL = [*random_texts(150, 0, "a b c d e f g"), *random_texts(50, 1, "a été 東京 x"), "once only"]
TARGET = random_texts(25, 2, "a b été été x unknown")


def shard(texts, prefix):
    return Rows(pa.array([f"{prefix}{i:05d}" for i in range(len(texts))]), pa.array(texts))


def scores(selector=None, target=TARGET, pool=POOL):
    selector = selector or MooreLewis()
    return selector.scores(shard(target, "t"), [shard(pool, "c")], 0, ENGINE).values[0]


def by_dictionaries(target, pool, prior, buckets):
    """The formula with a dictionary of words and one of pairs, a text at a time."""
    wanted, wanted_pairs = Counter(), Counter()
    for text in target:
        wanted.update(words(text))
        wanted_pairs.update(pairwise(words(text)))
    kinds = len({word for text in pool for word in words(text)})
    n_wanted = sum(wanted.values())

    def cross_entropy_difference(number):
        rest, rest_pairs = Counter(), Counter()
        for other, text in enumerate(pool):
            if other != number:
                rest.update(words(text))
                rest_pairs.update(pairwise(words(text)))
        total, before, n_rest = 0.0, None, sum(rest.values())
        for word in words(pool[number]):
            p = (rest[word] + kinds / buckets) / (n_rest + kinds)
            q = (wanted[word] + len(wanted) * p) / (n_wanted + len(wanted))
            if before is not None:
                p = (rest_pairs[before, word] + prior * p) / (rest[before] + prior)
                q = (wanted_pairs[before, word] + prior * q) / (wanted[before] + prior)
            total += log(p) - log(q)
            before = word
        return total / len(words(pool[number]))

    return [cross_entropy_difference(number) for number in range(len(pool))]


@pytest.mark.parametrize("prior", [5.0, 0.3])
def test_scores_are_those_of_models_in_dictionaries(prior):
    expected = by_dictionaries(TARGET, POOL, prior, 1 << 26)
    np.testing.assert_allclose(scores(MooreLewis(prior=prior)), expected, rtol=1e-10)


def test_blocks_do_not_change_scores(monkeypatch):
    expected = scores()
    monkeypatch.setattr(moore_lewis, "BLOCK_ROWS", 7)
    np.testing.assert_array_equal(scores(), expected)


def test_length_does_not_decide():
    pool = [*POOL, "x été " * 3, "x été " * 300, "c d " * 3, "c d " * 300]
    found = scores(pool=pool)[-4:]
    assert max(found[:2]) < min(found[2:])
    assert abs(found[0] - found[1]) < 0.3 * (min(found[2:]) - max(found[:2]))


def test_words_that_neither_side_knows_do_not_favour_the_target():
    found = scores(pool=[*POOL, "qqq www zzz", "x été a b"])
    assert found[-1] < 0 < found[-2]


def test_keys_fall_into_all_buckets_differently():
    text = HashedWords.of([[f"w{i}" for i in range(20_000)]])
    found = [bucket(keys, 1000, n) for keys in (text.words, text.pairs[1:]) for n in (0, 1)]
    for buckets in found:
        counts = np.bincount(buckets.astype(int), minlength=1000)
        assert 0 < counts.min() < counts.max() < 45
    assert np.mean(found[0] == found[1]) < 0.003
    assert np.unique(bucket(text.words, 1 << 32)).size == 20_000


def test_a_sketch_never_counts_too_little_and_mostly_right():
    rng = np.random.default_rng(0)
    rows = [[f"w{i}" for i in rng.zipf(1.5, 60) if i < 3000] for _ in range(200)]
    text = HashedWords.of(rows)
    exact, sketch = ExactCounts(text), SketchedCounts(1 << 14)
    sketch.add(*text.distinct())
    assert (sketch.total, exact.total) == (len(text.words), len(text.words))
    assert sketch.kinds <= exact.kinds
    excess = (sketch.pairs(text) - exact.pairs(text))[~text.first]
    assert excess.min() == 0
    assert np.mean(excess > 0) < 0.1
    assert (sketch.words(text) >= exact.words(text)).all()


def test_own_words_are_those_of_the_row():
    text = HashedWords.of([["a", "b", "a", "b"], [], ["a"], ["b", "b", "b"]])
    assert text.own_words().tolist() == [2, 2, 2, 2, 1, 3, 3, 3]
    assert text.own_pairs()[~text.first].tolist() == [2, 1, 2, 2, 2]
    assert text.first.tolist() == [True, False, False, False, True, True, False, False]


def test_a_text_without_a_word_comes_last():
    found = scores(pool=[*POOL, "?!"])
    assert found.argmax() == len(POOL)
    assert np.isfinite(found).all()


def test_what_cannot_be_counted_is_an_error():
    with pytest.raises(ValueError, match="moore_lewis: no word in the target"):
        scores(target=["..."])
    with pytest.raises(ValueError, match="moore_lewis: no word in the candidates"):
        scores(pool=["..."])
    with pytest.raises(ValueError, match="c00001"):
        scores(pool=["a", None])


@pytest.mark.parametrize("wrong", [{"buckets": 0}, {"buckets": 1 << 33}, {"prior": 0.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MooreLewis(**wrong)
