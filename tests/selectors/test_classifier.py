import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from gotd.data.rows import Rows
from gotd.data.sampling import uniform_by_id
from gotd.data.words import words
from gotd.engine.local import LocalEngine
from gotd.selectors.classifier import Classifier

ENGINE = LocalEngine()
TOPICS = {"t": "goal match team été win", "c": "market vote rain price law", "both": "the of and"}


def texts(n, seed, share):
    """Texts of two topics and of words that both have; ``share`` are of the target's topic."""
    rng = np.random.default_rng(seed)
    topics = rng.random(n) < share
    return [
        " ".join(
            rng.choice((TOPICS["t" if topic else "c"] + " " + TOPICS["both"]).split(), size=12)
        )
        for topic in topics
    ], topics


def shard(rows, prefix):
    return Rows(pa.array([f"{prefix}{i:05d}" for i in range(len(rows))]), pa.array(rows))


POOL, IN_TOPIC = texts(240, 0, 0.2)
TARGET, _ = texts(30, 1, 1.0)


def scores(selector, target=TARGET, pool=POOL, seed=0):
    return selector.scores(shard(target, "t"), [shard(pool, "c")], seed, ENGINE).values[0]


@pytest.mark.parametrize("pool_rows", [10_000, 90])
def test_each_half_is_scored_by_a_pipeline_fitted_on_the_other(pool_rows):
    found = scores(Classifier(pool_rows=pool_rows, regularisation=0.5, buckets=4096), seed=7)
    ids = shard(POOL, "c").ids
    half = uniform_by_id(ids, 7, "classifier half") < 0.5
    chosen = np.argsort(uniform_by_id(ids, 7, "classifier sample"))[:pool_rows]
    expected = np.empty(len(POOL))
    for side in (False, True):
        pipeline = make_pipeline(
            HashingVectorizer(
                tokenizer=words,
                token_pattern=None,
                ngram_range=(1, 2),
                n_features=4096,
                alternate_sign=False,
            ),
            LogisticRegression(C=2.0, class_weight="balanced", tol=1e-10, max_iter=10_000),
        )
        rows = [POOL[row] for row in chosen if half[row] != side]
        pipeline.fit([*TARGET, *rows], [True] * len(TARGET) + [False] * len(rows))
        expected[half == side] = -pipeline.decision_function(POOL)[half == side]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[IN_TOPIC].max() < found[~IN_TOPIC].min()


def test_a_row_of_the_sample_is_scored_like_its_equal_outside():
    """Its own label would pull it towards the pool."""
    pool = [text for text in POOL for _ in range(2)]
    found = scores(Classifier(pool_rows=240), pool=pool)
    ids = shard(pool, "c").ids
    inside = np.isin(np.arange(480), np.argsort(uniform_by_id(ids, 0, "classifier sample"))[:240])
    gaps = [found[a] - found[a + 1] for a in range(0, 480, 2) if inside[a] and not inside[a + 1]]
    gaps += [found[a + 1] - found[a] for a in range(0, 480, 2) if inside[a + 1] and not inside[a]]
    assert len(gaps) > 80
    assert abs(np.mean(gaps)) < 0.1 * found.std()


def test_noise_samples_in_proportion_to_the_odds():
    plain, noisy = scores(Classifier()), [scores(Classifier(noise=True), seed=s) for s in (0, 1)]
    assert not np.allclose(*noisy)
    chance = uniform_by_id(shard(POOL, "c").ids, 0, "classifier")
    np.testing.assert_allclose(noisy[0], plain + np.log(-np.log(chance)), rtol=1e-12)


def test_a_text_without_a_word_comes_last():
    found = scores(Classifier(), pool=[*POOL, "?!", "..."])
    assert set(np.argsort(found)[-2:]) == {240, 241}
    assert np.isfinite(found).all()


def test_what_cannot_be_fitted_is_an_error():
    with pytest.raises(ValueError, match="classifier: no word in the target"):
        scores(Classifier(), target=["..."])
    with pytest.raises(ValueError, match="the 2 rows of the pool to fit on have no word"):
        scores(Classifier(), pool=["...", "?!"])
    with pytest.raises(ValueError, match="c00001"):
        scores(Classifier(), pool=["a", None])


@pytest.mark.parametrize(
    "wrong", [{"ngrams": 0}, {"buckets": 0}, {"pool_rows": 1}, {"regularisation": 0.0}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Classifier(**wrong)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_pool_of_a_few_lines_is_ranked(rows):
    # With so few rows one half of the pool is often empty.
    texts = ["the cow eats", "a bee flies", "the axe cuts"][:rows]
    pool = Rows(pa.array([f"c{row}" for row in range(rows)]), pa.array(texts))
    target = Rows(pa.array(["t1", "t2"]), pa.array(["a cow", "the cow"]))
    for seed in range(6):
        ids = Classifier().rank(target, [pool], rows, seed, ENGINE).ids.to_pylist()
        assert ids[0] == "c0"
        assert len(ids) == rows
