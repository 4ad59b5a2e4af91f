import inspect
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pytest
import regex

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors import quality_filter
from gotd.selectors.dsir import DSIR
from gotd.selectors.hashed_ngrams import BLOCK_ROWS, FastNgrams, Sha256Ngrams, text_buffer
from gotd.selectors.ngram_kernel import code_points, row_buckets
from gotd.selectors.quality_filter import STOP_WORDS, passes

ENGINE = LocalEngine()
TEXTS = [
    "The cat, the CAT... sat on the mat!",
    "naïve café — “quoted” 東京 no_under 42 3.14",
    "",
    "   \t\n ",
    "word",
    "e\u0301 combining, İstanbul ΣΑΣ 𝔘𝔫𝔦 😀😀 ok",
    "a\u00a0b\u2003c\u2014d",
]


def buckets_of(features, text):
    """List the buckets of one text's n-grams, grouped by last token."""
    data, offsets = text_buffer(pa.array([text]))
    history = np.zeros(features.ngrams, dtype=np.uint64)
    buckets = np.empty(features.ngrams * (len(data) + 1), dtype=np.int64)
    tables = (*code_points(), features.ngrams, features.buckets, history, buckets)
    return buckets[: row_buckets(data, offsets[0], offsets[1], *tables)]


def official_counts(text, ngrams=2, buckets=10_000):
    """The published recipe, from its description: one n-gram after the other."""
    words = regex.findall(r"\w+|[^\w\s]+", text.lower())
    counts = np.zeros(buckets, dtype=int)
    for n in range(1, ngrams + 1):
        for start in range(len(words) - n + 1):
            gram = " ".join(words[start : start + n])
            counts[int(sha256(gram.encode("utf-8")).hexdigest(), 16) % buckets] += 1
    return counts


def random_texts(n, seed, words="alpha beta gamma delta , . eps"):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words.split(), size=rng.integers(1, 30))) for _ in range(n)]


def shard(texts, prefix):
    return Rows(pa.array([f"{prefix}{i:05d}" for i in range(len(texts))]), pa.array(texts))


@pytest.mark.parametrize("ngrams", [4, 6])
def test_texts_shorter_than_the_ngram_have_their_shorter_ones(ngrams):
    for text in ("one two three", ""):
        found = Sha256Ngrams(ngrams, 100).count(pa.array([text]))
        np.testing.assert_array_equal(found, official_counts(text, ngrams, 100))


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_sha256_counts_are_the_published_ones(ngrams):
    found = Sha256Ngrams(ngrams, 10_000).count(pa.array(TEXTS))
    np.testing.assert_array_equal(found, sum(official_counts(t, ngrams) for t in TEXTS))


def test_sha256_importance_weights_are_the_published_ones():
    pool, target = random_texts(200, 0), random_texts(30, 1, words="alpha beta zeta")
    p_target = sum(map(official_counts, target))
    p_pool = sum(map(official_counts, pool))
    ratio = np.log(p_target / p_target.sum() + 1e-8) - np.log(p_pool / p_pool.sum() + 1e-8)
    official = {f"c{i:05d}": official_counts(t) @ ratio for i, t in enumerate(pool)}
    arm = DSIR(hash="sha256", noise=False)
    ranking = arm.rank(shard(target, "t"), [shard(pool, "c")], 200, 0, ENGINE)
    wanted = [-official[i] for i in ranking.ids.to_pylist()]
    np.testing.assert_allclose(ranking.scores, wanted, rtol=0, atol=1e-9)


def test_blocks_do_not_change_sha256_scores():
    texts = pa.array(random_texts(BLOCK_ROWS + 50, 2))
    weights = np.random.default_rng(3).normal(size=500)
    features = Sha256Ngrams(2, 500)
    whole, tail = (
        features.score(texts, weights),
        features.score(texts.slice(BLOCK_ROWS - 7), weights),
    )
    np.testing.assert_array_equal(whole[BLOCK_ROWS - 7 :], tail)


@pytest.mark.parametrize("text", TEXTS)
def test_fast_cuts_texts_like_the_published_tokeniser(text):
    # As many buckets as there are hashes: an n-gram is known by its bucket.
    fast = FastNgrams(3, 2**31)
    words = regex.findall(r"\w+|[^\w\s]+", text.lower())
    grams = [
        " ".join(words[max(0, end - n) : end])
        for end in range(1, len(words) + 1)
        for n in range(1, min(end, 3) + 1)
    ]
    found = buckets_of(fast, text)
    assert len(found) == len(grams)
    if not any(character in text for character in "İΣ"):
        alone = [buckets_of(fast, gram)[-1] for gram in grams]
        assert found.tolist() == alone
        assert len(set(alone)) == len(set(grams))


def test_fast_tells_word_order_and_spreads_over_buckets():
    fast = FastNgrams(2, 1000)
    assert set(buckets_of(fast, "red dog")) != set(buckets_of(fast, "dog red"))
    words = pa.array([f"w{i}" for i in range(100_000)])
    three = FastNgrams(3, 2**31)
    trigrams = {
        buckets_of(three, text)[-1] for text in ("a b c", "x b c", "a x c", "b a c", "a b a")
    }
    assert len(trigrams) == 5
    counts = FastNgrams(1, 1000).count(words)
    # Poisson(100): the variance of a fair hash equals its mean, within 5 %.
    assert counts.sum() == 100_000
    assert 80 < counts.var() < 125


def test_fast_scores_sum_its_counts():
    texts = pa.array(TEXTS)
    fast = FastNgrams(2, 300)
    weights = np.random.default_rng(0).normal(size=300)
    scores = [fast.count(texts.slice(i, 1)) @ weights for i in range(len(TEXTS))]
    np.testing.assert_allclose(fast.score(texts, weights), scores, atol=1e-12)
    np.testing.assert_allclose(fast.score(texts.slice(2, 3), weights), scores[2:5], atol=1e-12)


@pytest.mark.parametrize("kind", ["fast", "sha256"])
def test_it_prefers_texts_that_read_like_the_target(kind):
    near = random_texts(50, 0, words="protein binds the receptor")
    far = random_texts(450, 1, words="goal match the striker")
    target = random_texts(20, 2, words="protein binds the receptor")
    ranking = DSIR(hash=kind).rank(shard(target, "t"), [shard(near + far, "c")], 40, 0, ENGINE)
    assert np.mean([int(i[1:]) < 50 for i in ranking.ids.to_pylist()]) > 0.9


def test_noise_samples_in_proportion_to_the_weight():
    # One-word texts: "heads" has three times the weight of "tails".
    pool = shard(["heads"] * 500 + ["tails"] * 500, "c")
    target = shard(["heads"] * 3 + ["tails"], "t")
    arm = DSIR(ngrams=1)
    share = [
        np.mean([int(i[1:]) < 500 for i in arm.rank(target, [pool], 40, s, ENGINE).ids.to_pylist()])
        for s in range(50)
    ]
    assert abs(np.mean(share) - 0.75) < 0.03


def test_smoothing_keeps_unseen_ngrams_from_deciding():
    counts = np.array([3, 1, 0, 0]), np.array([1, 1, 1, 1])
    plain, smooth = (DSIR(buckets=4, target_smoothing=s).log_ratio(*counts) for s in (0.0, 1.0))
    assert plain[2] < -15
    np.testing.assert_allclose(smooth, np.log(np.array([4, 2, 1, 1]) / 8 / 0.25), atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_weights_are_those_of_the_official_package(tmp_path, smoothing):
    """The release 1.0.3 has no smoothing; the package's repository has."""
    package = pytest.importorskip("data_selection", reason="the extra bench is not installed")
    official = package.HashedNgramDSIR
    named = {"target_laplace_smoothing": smoothing} if smoothing else {}
    if smoothing and "target_laplace_smoothing" not in inspect.signature(official).parameters:
        pytest.skip("this release of data-selection has no smoothing")
    sides = {"pool": random_texts(80, 0), "target": random_texts(20, 1, words="alpha beta zeta")}
    dsir = official(
        ["pool"],
        ["target"],
        str(tmp_path),
        raw_load_dataset_fn=sides.__getitem__,
        raw_parse_example_fn=str,
        target_load_dataset_fn=sides.__getitem__,
        target_parse_example_fn=str,
        num_proc=1,
        min_example_length=20,
        **named,
    )
    dsir.fit_importance_estimator(num_tokens_to_fit="all")
    dsir.compute_importance_weights()
    (weights,) = (np.load(file) for file in dsir.log_importance_weights_dir.glob("*.npy"))
    arm = DSIR(hash="sha256", noise=False, target_smoothing=smoothing)
    scores = arm.scores(shard(sides["target"], "t"), [shard(sides["pool"], "c")], 0, ENGINE)
    np.testing.assert_allclose(-scores.values[0], weights, rtol=0, atol=1e-9)
    (lengths,) = (np.load(file) for file in dsir.perexample_metadata_dir.glob("*.npy"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality_filter, "PACKAGE_TOKENS", 20)
        ours = passes(pa.array(sides["pool"]), "package")
    np.testing.assert_array_equal(ours, dsir.perexample_metadata_filter(lengths))


# Quality filter ---------------------------------------------------------------------------

SENTENCE = "the quick fox and a slow dog ran over to that hill by number {} , where it saw birds . "


def running_text(sentences, start=0):
    return "".join(SENTENCE.format(chr(97 + start + i) * 3) for i in range(sentences))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (running_text(5), True),
        (running_text(23), True),
        (running_text(1), False),  # 21 tokens
        (running_text(24), False),  # 504
        ("word " * 100, False),  # one word alone
        (" ".join(f"w{i % 30}" for i in range(100)), False),  # none a stop word
        (
            "the of and to in is it that was for on are as with they at be this have from " * 4,
            False,
        ),
        (running_text(5) + " 1 2 3 4 5 6 7 8 9 0" * 3, False),  # 30 of 135 are digits
        (
            "fox hill dog the and a to of it in , . -- ... : ; " * 6 + "he is " * 9,
            False,  # 18 of 114 are informative
        ),
        (running_text(4) + "he " * 30, False),  # 30 of 114 are one word
        (" ".join(sorted(STOP_WORDS)[:60] + [f"w{i}" for i in range(50)]), False),  # each once
    ],
)
def test_the_paper_s_filter_passes_running_text(text, kept):
    assert passes(pa.array([text]), "paper").tolist() == [kept]


def test_the_paper_s_thresholds_are_the_published_ones():
    assert (quality_filter.TOKENS, quality_filter.REPEATED) == ((40, 500), (0.02, 0.2))
    assert (quality_filter.INFORMATIVE, quality_filter.NOT_NUMERIC) == ((0.3, 0.7), 0.8)
    assert quality_filter.PACKAGE_TOKENS == 100


@pytest.mark.parametrize("kind", ["paper", "package"])
def test_filtered_rows_come_after_all_others_and_are_counted(kind):
    good = [running_text(6, start) for start in range(8)]
    bad = [text[:60] for text in good]  # the target's own words, but short
    target, pool = shard(good[:4], "t"), [shard(bad, "b"), shard(good, "g")]
    plain = DSIR(noise=False).rank(target, pool, 16, 0, ENGINE)
    assert "filtered_rows" not in plain.diagnostics
    ranking = DSIR(noise=False, quality_filter=kind).rank(target, pool, 16, 0, ENGINE)
    names = [name[0] for name in ranking.ids.to_pylist()]
    assert names == ["g"] * 8 + ["b"] * 8
    assert ranking.diagnostics["filtered_rows"] == 8
    order = [name for name in plain.ids.to_pylist() if name[0] == "g"]
    assert ranking.ids.to_pylist()[:8] == order
    np.testing.assert_array_equal(
        ranking.scores[:8],
        [s for s, i in zip(plain.scores, plain.ids.to_pylist(), strict=True) if i[0] == "g"],
    )


def test_a_filter_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="quality_filter must be one of none, paper, package"):
        DSIR(quality_filter="published")  # type: ignore[arg-type]


def test_equal_lengths_and_smoothing_keep_dsir_from_pieces_of_one_word():
    """A small target lacks common words of the pool, each of which costs 18 nats."""
    words = [f"w{i}" for i in range(400)]
    rng = np.random.default_rng(0)
    long = [" ".join(rng.choice(words, 60)) for _ in range(300)]
    pool = shard([*long, *(" ".join(rng.choice(words, 2)) for _ in range(60))], "c")
    target = shard([" ".join(rng.choice(words[:200], 60)) for _ in range(8)], "t")
    even = Rows(pool.ids[:300], pool.texts[:300])

    def median_length(arm, candidates):
        chosen = arm.rank(target, [candidates], 30, 0, ENGINE).ids.to_pylist()
        return np.median([len(candidates.texts[int(i[1:])].as_py()) for i in chosen])

    assert median_length(DSIR(), pool) < 10
    assert median_length(DSIR(target_smoothing=1.0), even) > 200


def test_texts_that_cannot_be_counted_are_refused():
    pool = shard(["a", "b"], "c")
    with pytest.raises(ValueError, match="no word in the target"):
        DSIR().rank(shard(["", " "], "t"), [pool], 1, 0, ENGINE)
    missing = Rows(pa.array(["x", "y"]), pa.array(["a", None]))
    with pytest.raises(ValueError, match="text of row 1 is missing"):
        DSIR().rank(shard(["a"], "t"), [missing], 1, 0, ENGINE)
