"""Tests that every selector passes, for ours and for those of other packages.

In a test module, with pytest installed:

    class TestShortest(SelectorContract):
        @pytest.fixture
        def selector(self):
            return build_selector("shortest", {})
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows
from gotd.engine.local import LocalEngine
from gotd.selectors.base import REQUIREMENTS, ScoringSelector, Selector
from gotd.selectors.topk import smallest

WORDS = {
    "common_0": ["ant", "axe", "arm"],
    "common_1": ["bee", "box", "bag"],
    "rare_0": ["cow", "cup", "été"],
}
"""Words by domain, which are some of the generated benchmark's."""


def make_rows(n: int, prefix: str, seed: int) -> Rows:
    """Generate rows of three domains; every tenth row repeats an earlier text and embedding."""
    rng = np.random.default_rng(seed)
    number = rng.choice(3, size=n, p=[0.5, 0.3, 0.2])
    names = list(WORDS)
    texts = [" ".join(rng.choice([*WORDS[names[d]], "the", ","], size=20)) for d in number]
    rows = rng.normal(np.array([0.0, 2.0, -2.0])[number, None], 1.0, size=(n, 6))
    for row in range(10, n, 10):
        texts[row], rows[row], number[row] = texts[row - 5], rows[row - 5], number[row - 5]
    # Random ids, so that a position cannot be mistaken for one.
    ids = [f"{prefix}{i:04d}" for i in rng.permutation(n)]
    domains = pa.array([names[d] for d in number])
    return Rows(pa.array(ids), pa.array(texts), domains, rows.astype(np.float32))


N = 300
POOL = make_rows(N, "c", 0)
TARGET = make_rows(60, "t", 1).slice(0, 24)
ENGINE = LocalEngine()


class SelectorContract:
    """The tests; a subclass states the fixture ``selector``."""

    def test_it_states_its_name_and_requirements(self, selector: Selector) -> None:
        """Check the class variables that other modules read."""
        assert isinstance(selector, Selector)
        assert isinstance(selector.name, str)
        assert selector.requires <= REQUIREMENTS
        assert "key_name" in vars(type(selector)), "state key_name, the class's name in cache keys"

    def test_ids_are_the_pool_s_and_repeat_only_with_replacement(self, selector: Selector) -> None:
        """Check ids, their number and the order of the scores."""
        ranking = selector.rank(TARGET, [POOL], 60, 3, ENGINE)
        ids = ranking.ids.to_pylist()
        assert set(ids) <= set(POOL.ids.to_pylist())
        assert len(ids) == len(ranking.scores) == 60
        assert ranking.with_replacement or len(set(ids)) == 60
        assert ranking.scores.dtype == np.float64
        assert (np.diff(ranking.scores) >= 0).all()
        json.dumps(ranking.diagnostics, allow_nan=False)

    def test_a_budget_is_a_prefix_of_a_larger_one(self, selector: Selector) -> None:
        """Check that one ranking serves every budget, and that a seed repeats it."""
        large, small = (selector.rank(TARGET, [POOL], n, 3, ENGINE) for n in (60, 37))
        assert small.ids.to_pylist() == large.ids.to_pylist()[:37]
        np.testing.assert_array_equal(small.scores, large.scores[:37])

    def test_shards_workers_and_row_order_do_not_matter(self, selector: Selector) -> None:
        """Check that ids alone identify rows."""
        expected = selector.rank(TARGET, [POOL], 60, 3, ENGINE)
        order = np.random.default_rng(5).permutation(N)
        shards = [POOL.take(part) for part in np.split(order, [1, 60, 60, 217])]
        target = TARGET.take(np.random.default_rng(6).permutation(len(TARGET)))
        ranking = selector.rank(target, shards, 60, 3, LocalEngine(workers=2))
        assert ranking.ids.to_pylist() == expected.ids.to_pylist()
        np.testing.assert_allclose(ranking.scores, expected.scores, rtol=1e-9, atol=1e-12)

    def test_a_memory_map_is_read_like_an_array(self, selector: Selector, tmp_path: Path) -> None:
        """Check embeddings that are on disk."""
        assert POOL.embeddings is not None
        np.save(tmp_path / "rows.npy", POOL.embeddings)
        mapped = replace(POOL, embeddings=np.load(tmp_path / "rows.npy", mmap_mode="r"))
        one, two = (selector.rank(TARGET, [pool], 60, 3, ENGINE) for pool in (POOL, mapped))
        assert one.ids.to_pylist() == two.ids.to_pylist()

    def test_scores_give_the_ranking(self, selector: Selector) -> None:
        """Check a `ScoringSelector`'s scores, in new arrays and in given ones."""
        if not isinstance(selector, ScoringSelector):
            pytest.skip("it does not score rows one by one")
        pool = [POOL.slice(0, 120), POOL.slice(0, 0), POOL.slice(120)]
        ranking = selector.rank(TARGET, pool, 60, 3, ENGINE)
        scored = selector.scores(TARGET, pool, 3, ENGINE)
        assert [len(values) for values in scored.values] == [120, 0, 180]
        ids, best = smallest(scored.values, [shard.ids for shard in pool], 60)
        assert ids.equals(ranking.ids)
        np.testing.assert_array_equal(best, ranking.scores)
        json.dumps(scored.diagnostics, allow_nan=False)
        out = [np.full(len(shard), np.nan) for shard in pool]
        filled = selector.scores(TARGET, pool, 3, ENGINE, out).values
        assert all(a is b for a, b in zip(filled, out, strict=True))
        np.testing.assert_array_equal(np.concatenate(out), np.concatenate(list(scored.values)))

    def test_all_candidates_can_be_ranked_or_the_error_states_why(self, selector: Selector) -> None:
        """Check the largest budget; a selector may exclude rows, with a clear error."""
        try:
            ranking = selector.rank(TARGET, [POOL], N, 3, ENGINE)
        except ValueError as error:
            assert selector.name in str(error)  # noqa: PT017 - not every selector raises
            return
        if not ranking.with_replacement:
            assert sorted(ranking.ids.to_pylist()) == sorted(POOL.ids.to_pylist())

    def test_a_request_without_an_answer_is_an_error(self, selector: Selector) -> None:
        """Check the messages of an oversized budget and of an empty target."""
        with pytest.raises(ValueError, match="301"):
            selector.rank(TARGET, [POOL], N + 1, 3, ENGINE)
        if not selector.reads_target:
            return
        with pytest.raises(ValueError, match="target is empty"):
            selector.rank(TARGET.slice(0, 0), [POOL], 10, 3, ENGINE)

    def test_a_target_that_is_not_read_changes_nothing(self, selector: Selector) -> None:
        """Check `reads_target`, by which all tasks share one training on a selection."""
        if selector.reads_target:
            pytest.skip("it reads the target")
        expected = selector.rank(TARGET, [POOL], 60, 3, ENGINE)
        for target in (POOL.slice(100, 160), Rows.none()):
            ranking = selector.rank(target, [POOL], 60, 3, ENGINE)
            assert ranking.ids == expected.ids
            np.testing.assert_array_equal(ranking.scores, expected.scores)

    @pytest.mark.parametrize("side", ["target", "candidates"])
    def test_an_embedding_that_is_not_finite_is_named(self, selector: Selector, side: str) -> None:
        """Check that the message has the row's id."""
        self.skip_unless(selector, "embeddings")
        rows = {"target": TARGET, "candidates": POOL}
        assert rows[side].embeddings is not None
        broken = np.array(rows[side].embeddings)
        broken[7, 2] = np.nan
        rows[side] = replace(rows[side], embeddings=broken)
        with pytest.raises(ValueError, match=rows[side].ids[7].as_py()):
            selector.rank(rows["target"], [rows["candidates"]], 10, 3, ENGINE)

    @pytest.mark.parametrize("field", ["embeddings", "domains"])
    def test_a_missing_field_is_an_error(self, selector: Selector, field: str) -> None:
        """Check that the message names the field."""
        self.skip_unless(selector, field)
        with pytest.raises(ValueError, match=field.rstrip("s")):
            selector.rank(TARGET, [replace(POOL, **{field: None})], 10, 3, ENGINE)

    def test_its_work_grows_with_the_pool(self, selector: Selector) -> None:
        """Check what `gotd plan` reads."""
        small, large = (selector.work(n, 100, 64, 50) for n in (1_000, 100_000))
        assert small.texts + small.flops > 0
        assert large.texts >= small.texts
        assert large.flops >= small.flops
        assert large.texts + large.flops > small.texts + small.flops

    @staticmethod
    def skip_unless(selector: Selector, requirement: str) -> None:
        """Skip a test of a requirement that the selector does not have."""
        if requirement not in selector.requires:
            pytest.skip(f"it does not require {requirement}")
