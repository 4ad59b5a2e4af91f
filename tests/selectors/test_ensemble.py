import numpy as np
import pytest

from gotd.selectors.contract import ENGINE, POOL, TARGET
from gotd.selectors.ensemble import Ensemble
from gotd.selectors.registry import build_selector

N = len(POOL)


def ranks(name: str, depth: int = N) -> dict[str, int]:
    """The rank of each id that the method ranks among the first ``depth``."""
    ids = build_selector(name, {}).rank(TARGET, [POOL], depth, 3, ENGINE).ids.to_pylist()
    found: dict[str, int] = {}
    for place, one in enumerate(ids, start=1):
        found.setdefault(one, place)
    return found


def scores(**settings) -> dict[str, float]:
    found = Ensemble(**settings).scores(TARGET, [POOL.slice(0, 90), POOL.slice(90)], 3, ENGINE)
    return dict(zip(POOL.ids.to_pylist(), np.concatenate(list(found.values)), strict=True))


@pytest.mark.parametrize("names", [("dsir", "got_d"), ("tsds", "bm25", "nearest")])
def test_reciprocal_ranks_are_summed(names):
    of = [ranks(name) for name in names]
    found = scores(selectors=names)
    for one in POOL.ids.to_pylist():
        assert found[one] == pytest.approx(-sum(1 / (60 + r[one]) for r in of if one in r))


def test_the_mean_rank_counts_rows_below_the_depth_alike():
    of = [ranks(name, 40) for name in ("bm25", "mmd")]
    found = scores(selectors=("bm25", "mmd"), aggregate="mean_rank", depth=40)
    for one in POOL.ids.to_pylist():
        assert found[one] == pytest.approx(np.mean([r.get(one, 41) for r in of]))


def test_it_requires_what_its_members_require():
    assert Ensemble(selectors=("dsir", "bm25")).requires == {"texts"}
    assert Ensemble(selectors=("dsir", "got_d")).requires == {"texts", "embeddings"}
    work = Ensemble(selectors=("dsir", "got_d")).work(1000, 10, 8, 5)
    assert work.texts
    assert work.flops


def test_a_command_line_names_the_members():
    built = build_selector("ensemble", {"selectors": "bm25,mmd", "aggregate": "mean_rank"})
    assert [one.name for one in built.members] == ["bm25", "mmd"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"selectors": ("dsir",)}, "two or more"),
        ({"selectors": ("dsir", "dsir")}, "two or more"),
        ({"selectors": ("dsir", "ensemble")}, "other than ensemble"),
        ({"selectors": ("dsir", "got_c")}, "did you mean 'got_d'"),
        ({"depth": 0}, "depth"),
        ({"constant": -1.0}, "constant"),
        ({"aggregate": "median"}, "aggregate"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(**wrong)


def test_its_device_is_that_of_its_members():
    dsir, got_d = Ensemble(device="cpu").members
    assert got_d.device == "cpu"
    assert not hasattr(dsir, "device")
