import numpy as np
import pytest

from gotd.selectors.contract import ENGINE, POOL, TARGET
from gotd.selectors.got_d import GotD
from gotd.selectors.partial_ot import PartialOT
from gotd.selectors.unbalanced_ot import UnbalancedOT

STRICT = {"tolerance": 1e-8}


@pytest.mark.parametrize(
    "almost",
    [
        UnbalancedOT(price=1e5, **STRICT),
        UnbalancedOT(relaxed="target", price=1e5, **STRICT),
        PartialOT(share=1 - 1e-7, **STRICT),
    ],
)
def test_without_relaxation_the_scores_are_those_of_got_d(almost):
    expected = GotD(solver="dense", tolerance=1e-9).scores(TARGET, [POOL], 0, ENGINE).values[0]
    found = almost.scores(TARGET, [POOL], 0, ENGINE).values[0]
    np.testing.assert_allclose(found, expected, atol=2e-3 * expected.std())


def test_an_odd_target_has_less_say():
    far = np.array(TARGET.embeddings)
    far[0] = 40.0
    target = type(TARGET)(TARGET.ids, TARGET.texts, TARGET.domains, far)
    away = np.linalg.norm(POOL.embeddings - far[0], axis=1)
    towards = {
        name: float(np.corrcoef(method.scores(target, [POOL], 0, ENGINE).values[0], away)[0, 1])
        for name, method in {
            "balanced": GotD(),
            "target": UnbalancedOT(relaxed="target", price=0.02),
            "partial": PartialOT(share=0.5),
        }.items()
    }
    assert towards["target"] < towards["balanced"] - 0.1
    assert towards["partial"] < towards["balanced"] - 0.1


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (UnbalancedOT, {"price": 0}),
        (UnbalancedOT, {"relaxed": "both"}),
        (PartialOT, {"share": 1.0}),
        (PartialOT, {"epsilon": -1.0}),
    ],
)
def test_settings_are_checked(kind, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)
