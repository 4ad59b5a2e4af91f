"""Every selector of the registry, and variants of some, pass the contract."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd.selectors.base import Selector
from gotd.selectors.contract import ENGINE, POOL, TARGET, SelectorContract
from gotd.selectors.curated_tapt import CuratedTAPT
from gotd.selectors.dsir import DSIR
from gotd.selectors.got_d import GotD
from gotd.selectors.got_d_clusters import GotDClusters
from gotd.selectors.got_d_path import GotDPath
from gotd.selectors.nearest import Nearest
from gotd.selectors.oracle import Oracle
from gotd.selectors.random import RandomInDomain
from gotd.selectors.registry import entries, entry, selector_class
from gotd.selectors.tsds import TSDS
from gotd.selectors.unbalanced_ot import UnbalancedOT

VARIANTS = {
    "random_in_one_domain": RandomInDomain("common_0"),
    "dsir_sha256": DSIR(hash="sha256"),
    "dsir_without_noise": DSIR(noise=False, buckets=64),
    "dsir_filtered": DSIR(quality_filter="paper", target_smoothing=1.0),
    "curated_tapt_normalised": CuratedTAPT(normalise=True),
    "tsds_spread": TSDS(alpha=0.01),
    "tsds_kde_wide": TSDS(variant="kde", sigma=2.0),
    "tsds_multinomial": TSDS(variant="kde", sampling="multinomial"),
    "tsds_looked_up": TSDS(variant="kde", density_over="looked_up"),
    "nearest_cosine": Nearest(cost="cosine"),
    "got_d_dense": GotD(solver="dense"),
    "got_d_debiased": GotD(debias=True, epsilon=0.2),
    "got_d_path_sampled": GotDPath(first=20, growth=0.5, reference_rows=250, max_passes=30),
    "unbalanced_target": UnbalancedOT(relaxed="target", reference_rows=250, max_passes=30),
    "got_d_few_clusters": GotDClusters(clusters=4, whiten=True),
}
REGISTERED = [one.name for one in entries() if one.target]
SEEDED = {"random", "full_pool", "all_domains", "oracle", "half_oracle", "dsir", "perplexity"}
SEEDED |= {"ensemble", "tsds_multinomial"}
NARROW = {"random_in_domain", "random_in_one_domain", "oracle"} | {
    f"{share}_oracle" for share in ("quarter", "half", "three_quarters")
}


def make(name: str, folder) -> Selector:
    if name in VARIANTS:
        return VARIANTS[name]
    settings = dict(entry(name).preset)
    if selector_class(name) is Oracle:  # its domains come from the task
        fill = () if name == "oracle" else ("common_0",)
        settings |= {"domains": ("rare_0",), "fill": fill}
    if "scores" in selector_class(name).__dataclass_fields__:
        scores = np.random.default_rng(2).random(len(POOL)).round(1)
        pq.write_table(pa.table({"id": POOL.ids, "score": scores}), folder / "scores.parquet")
        settings["scores"] = folder / "scores.parquet"
    for number, field in enumerate(("losses", "tuned_losses")):
        if field in selector_class(name).__dataclass_fields__:
            settings[field] = folder / f"{field}.parquet"
            rng = np.random.default_rng(number)
            tokens = rng.integers(1, 9, len(POOL))
            losses = {"id": POOL.ids, "loss": tokens * rng.random(len(POOL)), "tokens": tokens}
            pq.write_table(pa.table(losses), settings[field])
    return selector_class(name)(**settings)


class TestContract(SelectorContract):
    @pytest.fixture(params=[*REGISTERED, *VARIANTS])
    def selector(self, request, tmp_path):
        return make(request.param, tmp_path)


@pytest.mark.parametrize("name", sorted(SEEDED))
def test_another_seed_gives_another_ranking(name, tmp_path):
    one, two = (make(name, tmp_path).rank(TARGET, [POOL], 60, seed, ENGINE) for seed in (3, 4))
    assert one.ids.to_pylist() != two.ids.to_pylist()


@pytest.mark.parametrize("name", sorted({*REGISTERED, *VARIANTS} - NARROW))
def test_all_candidates_can_be_ranked(name, tmp_path):
    assert len(make(name, tmp_path).rank(TARGET, [POOL], len(POOL), 3, ENGINE).ids) == len(POOL)


@pytest.mark.parametrize("name", ["loss_drop", "perplexity"])
def test_losses_that_are_not_there_are_named(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: the pool has no losses"):
        selector_class(name)().rank(TARGET, [POOL], 10, 3, ENGINE)
    selector = make(name, tmp_path)
    pq.write_table(pq.read_table(selector.losses).slice(1), selector.losses)
    with pytest.raises(ValueError, match=POOL.ids[0].as_py()):
        selector.rank(TARGET, [POOL], 10, 3, ENGINE)


def test_a_candidate_without_a_domain_is_named():
    unknown = pa.array([None, *POOL.domains.to_pylist()[1:]], type=pa.string())
    broken = type(POOL)(POOL.ids, POOL.texts, unknown, POOL.embeddings)
    for name in ("all_domains", "random_in_domain", "oracle"):
        with pytest.raises(ValueError, match=POOL.ids[0].as_py()):
            make(name, None).rank(TARGET, [broken], 10, 3, ENGINE)


def test_a_requirement_that_does_not_exist_is_an_error():
    with pytest.raises(TypeError, match="embedings"):
        type("Typo", (Selector,), {"requires": frozenset({"embedings"})})
