"""Selectors that read losses of the base model, given in files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.selectors.contract import ENGINE, POOL, TARGET
from gotd.selectors.ensemble import Ensemble
from gotd.selectors.loss_drop import LossDrop
from gotd.selectors.perplexity import Perplexity
from gotd.selectors.rds_plus import RDSPlus
from gotd.selectors.round_robin import RoundRobin

N = len(POOL)
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(1, 30, N)
BEFORE, AFTER = RNG.random(N) + 2.0, RNG.random(N) + 1.0


def written(path: Path, means: np.ndarray, tokens: np.ndarray = TOKENS) -> Path:
    columns = {"id": POOL.ids, "loss": means * tokens, "tokens": tokens}
    pq.write_table(pa.table(columns).take(RNG.permutation(N)), path)
    return path


def test_the_change_of_the_mean_loss_ranks(tmp_path):
    tokens = np.where(np.arange(N) == 5, 0, TOKENS)
    files = written(tmp_path / "a", BEFORE, tokens), written(tmp_path / "b", AFTER, tokens)
    scored = LossDrop(*files).scores(TARGET, [POOL.slice(0, 70), POOL.slice(70)], 0, ENGINE)
    found = np.concatenate(list(scored.values))
    assert found.argmax() == 5
    others = np.arange(N) != 5
    np.testing.assert_allclose(found[others], (AFTER - BEFORE)[others])
    assert scored.diagnostics["mean_change_nats"] == pytest.approx((AFTER - BEFORE)[others].mean())


def test_a_band_of_quantiles_comes_first_in_random_order(tmp_path):
    path = written(tmp_path / "a", BEFORE)
    method = Perplexity(low=0.4, high=0.6, losses=path)
    ids = method.rank(TARGET, [POOL], N, 3, ENGINE).ids.to_pylist()
    loss = dict(zip(POOL.ids.to_pylist(), BEFORE, strict=True))
    low, high = np.quantile(BEFORE, [0.4, 0.6])
    inside = [low <= loss[one] <= high for one in ids]
    assert all(inside[:60])
    assert not any(inside[60:])
    # Inside the order is random; outside the nearest quantiles come first.
    assert abs(np.corrcoef([loss[one] for one in ids[:60]], np.arange(60))[0, 1]) < 0.5
    ranks = np.argsort(np.argsort(BEFORE))
    place = dict(zip(POOL.ids.to_pylist(), np.abs(ranks - (N - 1) / 2), strict=True))
    assert (np.diff([place[one] for one in ids[60:]]) >= 0).all()


def test_rds_plus_is_round_robin_by_the_cosine():
    one, other = (s.rank(TARGET, [POOL], 50, 0, ENGINE) for s in (RDSPlus(), RoundRobin(True)))
    assert one.ids.equals(other.ids)


def test_an_ensemble_passes_files_on_and_has_one_space(tmp_path):
    files = {
        "losses": written(tmp_path / "a", BEFORE),
        "tuned_losses": written(tmp_path / "b", AFTER),
    }
    ensemble = Ensemble(selectors=("bm25", "loss_drop"))
    assert ensemble.requires == {"texts", "model", "losses", "tuned_losses"}
    ids = ensemble.with_files(files).rank(TARGET, [POOL], 20, 0, ENGINE).ids
    assert len(ids) == 20
    with pytest.raises(ValueError, match="no losses yet"):
        ensemble.rank(TARGET, [POOL], 20, 0, ENGINE)
    with pytest.raises(ValueError, match="rds_plus reads a space of its own"):
        Ensemble(selectors=("bm25", "rds_plus"))


@pytest.mark.parametrize("wrong", [{"low": 0.8}, {"low": -0.1}, {"high": 1.5}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match="low"):
        Perplexity(**wrong)
