"""The space of words: scikit-learn's, whatever the batches, the shards and the order of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gotd.config.schemas import Chunking
from gotd.data.columns import Columns
from gotd.data.inputs import table_parts
from gotd.data.rows import Rows
from gotd.data.words import words
from gotd.embedding.tfidf import BUCKETS, COMPONENTS, TfidfSvdEmbedder, TfidfSvdEncoder
from gotd.engine.local import LocalEngine
from gotd.pipeline.steps import pools
from gotd.storage.artifacts import Step

SMALL = TfidfSvdEncoder(dimension=8, buckets=1 << 14, sample_rows=70)


def make_texts(n: int = 90, seed: int = 0, first: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    vocabulary = [f"word{number}" for number in range(first, first + 60)]
    chance = 1 / np.arange(1, 61)
    return [
        " ".join(
            random.choice(vocabulary, size=int(random.integers(5, 30)), p=chance / sum(chance))
        )
        for _ in range(n)
    ]


def make_rows(texts: Sequence[str], prefix: str = "c") -> Rows:
    ids = pa.array([f"{prefix}{number}" for number in range(len(texts))], pa.large_string())
    return Rows(ids, pa.array(texts, pa.large_string()))


def fit(
    folder: Path, *pools: Sequence[Rows], encoder: TfidfSvdEncoder = SMALL, **more
) -> TfidfSvdEmbedder:
    folder.mkdir(exist_ok=True)
    encoder.fit(pools, folder, **more)
    return encoder.load(folder)


# Rows ---------------------------------------------------------------------------------


def test_rows_are_of_unit_length_or_zero(tmp_path):
    made = fit(tmp_path, [make_rows(make_texts())])
    rows = made.embed([*make_texts(30, seed=5), "unheard of", "!!!", "", "ไทย"])
    assert rows.dtype == np.float32
    assert rows.shape == (34, 8)
    np.testing.assert_allclose(np.linalg.norm(rows[:30], axis=1), 1.0, atol=1e-6)
    assert not rows[30:].any()
    assert made.embed([]).shape == (0, 8)


def test_rows_do_not_depend_on_the_batch(tmp_path):
    made = fit(tmp_path, [make_rows(make_texts())])
    texts = [*make_texts(20, seed=5), "!!!"]
    together = made.embed(texts)
    np.testing.assert_array_equal(together, np.concatenate([made.embed([t]) for t in texts]))
    np.testing.assert_array_equal(together[::-1], made.embed(texts[::-1]))


def test_a_word_s_place_and_case_do_not_count(tmp_path):
    made = fit(tmp_path, [make_rows(make_texts())])
    one, other = made.embed(["word1 word2 word2, word7", "WORD2 ｗｏｒｄ７ word1: word2"])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_second_fit_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        fit(tmp_path / name, [make_rows(make_texts())], [make_rows(make_texts(9, 1), "t")])
    for name in (COMPONENTS, BUCKETS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_shards_and_the_order_of_rows_do_not_matter(tmp_path):
    pool, target = make_rows(make_texts()), make_rows(make_texts(9, 1), "t")
    order = np.random.default_rng(3).permutation(len(pool))
    cut = [pool.take(part) for part in np.split(order, [1, 30, 30, 77])]
    one = fit(tmp_path / "one", [pool], [target])
    other = fit(tmp_path / "other", cut, [target.slice(4), target.slice(0, 4)])
    np.testing.assert_array_equal(one.used, other.used)
    np.testing.assert_allclose(one.components, other.components, atol=1e-6)
    texts = make_texts(20, seed=5)
    np.testing.assert_allclose(one.embed(texts), other.embed(texts), atol=1e-6)


def test_it_is_scikit_learn_s_pipeline(tmp_path):
    """Up to the sign of each direction, and exactly, since few texts are distinct."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import normalize

    others = make_texts(25, seed=5)
    texts = list(np.random.default_rng(0).choice(make_texts(14), size=60))
    pipeline = make_pipeline(
        HashingVectorizer(
            n_features=SMALL.buckets, analyzer=words, alternate_sign=False, norm=None
        ),
        TfidfTransformer(sublinear_tf=True),
        TruncatedSVD(SMALL.dimension, n_iter=4, random_state=SMALL.seed),
    ).fit(texts)
    expected = normalize(pipeline.transform(others))
    rows = fit(tmp_path, [make_rows(texts)]).embed(others)
    np.testing.assert_allclose(rows @ rows.T, expected @ expected.T, atol=1e-4)
    signs = np.sign((rows * expected).sum(axis=0))
    np.testing.assert_allclose(rows, expected * signs, atol=1e-3)


# Fitting ------------------------------------------------------------------------------


def test_so_many_rows_are_drawn_and_so_much_of_each_is_read(tmp_path):
    pool = make_rows([f"alone{number} {'x' * 40} unread" for number in range(90)])
    made = fit(tmp_path, [pool], length_chars=20)
    assert len(made.used) == 70 + 1  # a word of each drawn row, and the cut one
    assert not made.embed(["unread"]).any()


@pytest.mark.parametrize(
    ("texts", "rank"),
    [
        (["a b c", "d e f", "a e g"], 3),
        (["a b c", "d e f", "a e g"] * 20, 3),  # repeats add no direction
        (["a b", "b a", "c"] * 5, 2),
        (["a b c d"], 1),
        (["a"], 1),
    ],
)
def test_fewer_directions_are_padded_with_zeros(tmp_path, texts, rank):
    made = fit(tmp_path, [make_rows(texts)])
    assert made.components.shape == (len(set(" ".join(texts).split())), 8)
    assert made.components[:, :rank].any(axis=0).all()
    assert not made.components[:, rank:].any()
    rows = made.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    assert not rows[:, rank:].any()


def test_rows_without_words_change_nothing(tmp_path):
    texts = make_texts(60)
    plain = fit(tmp_path / "plain", [make_rows(texts)])
    mixed = fit(tmp_path / "mixed", [make_rows([*texts, "!!!", "...", "\u2014"])])
    np.testing.assert_array_equal(plain.components, mixed.components)


def test_a_pool_without_words_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no word in any script, so the encoder tfidf_svd cannot"):
        fit(tmp_path, [make_rows(["!!!", "..."])])


def test_a_word_of_the_target_has_a_direction_only_if_the_target_was_read(tmp_path):
    pool, target = [make_rows(make_texts())], [make_rows(["word1 axolotl", "axolotl word3"], "t")]
    alone, together = fit(tmp_path / "a", pool), fit(tmp_path / "b", pool, target)
    assert not alone.embed(["axolotl"]).any()
    assert together.embed(["axolotl"]).any()


# Steps --------------------------------------------------------------------------------


def make_pool(texts: Sequence[str], name: str) -> Step:
    return pools.pool(name, table_parts(list(texts), name, Columns()), Chunking("whole"))


@pytest.mark.parametrize(("fitted_on", "fits"), [("pool", 1), ("pool_and_target", 2)])
def test_targets_share_a_fit_if_none_was_read(fitted_on, fits):
    encoder = dataclasses.replace(SMALL, fitted_on=fitted_on)
    pool = make_pool(make_texts(), "candidates")
    targets = [make_pool(make_texts(5, seed), "target") for seed in (1, 2)]
    fitted = [pools.fitted_encoder(encoder, {"candidates": pool, "target": t}) for t in targets]
    assert len({step.key for step in fitted}) == fits
    embedded = [pools.embeddings(pool, encoder, LocalEngine(), model=step) for step in fitted]
    assert len({step.key for step in embedded}) == fits
    assert len({pools.fitted_encoder(SMALL, {"candidates": pool, "target": targets[0]}, n).key
                for n in (None, 7, 8)}) == 3  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"dimension": 9},
        {"buckets": 99},
        {"sample_rows": 9},
        {"fitted_on": "pool"},
        {"seed": 1},
        {"name": "other"},
    ],
)
def test_every_field_but_the_name_is_in_the_identity(change):
    changed = dataclasses.replace(SMALL, **change)
    assert (changed.identity() == SMALL.identity()) is ("name" in change)


def test_no_field_is_untested():
    fields = {field.name for field in dataclasses.fields(TfidfSvdEncoder)}
    assert fields == {"dimension", "buckets", "sample_rows", "fitted_on", "seed", "name"}


@pytest.mark.parametrize("field", ["dimension", "buckets", "sample_rows"])
def test_a_size_below_one_is_refused(field):
    with pytest.raises(ValueError, match=f"embedder {field} must be at least 1, not 0"):
        TfidfSvdEncoder(**{field: 0})


def test_rows_to_fit_on_are_a_choice():
    with pytest.raises(ValueError, match="fitted_on"):
        TfidfSvdEncoder(fitted_on="target")  # type: ignore[arg-type]


def test_the_seed_draws_other_rows(tmp_path):
    pool = [make_rows([f"alone{number}" for number in range(90)])]
    one = fit(tmp_path / "a", pool)
    other = fit(tmp_path / "b", pool, encoder=dataclasses.replace(SMALL, seed=1))
    assert set(one.used) != set(other.used)
