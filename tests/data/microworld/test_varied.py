"""Generated worlds of four kinds: their rare domains and the shares of their targets."""

from collections import Counter
from fractions import Fraction

import pytest

from gotd.config.build import schema
from gotd.data.base import read_all
from gotd.data.microworld.varied import KINDS, VariedMicroworld
from gotd.data.microworld.world import Microworld

SIZES = {"pretraining_documents": 200, "rare_share": 0.1}


def domains(world, task="sst2", split="train"):
    return Counter(world.split(task, split)["domain"].to_pylist())


@pytest.mark.parametrize("seed", [32, 33, 34])
def test_worlds_that_are_half_common_are_plain_worlds(seed):
    world = VariedMicroworld(seed, **SIZES)
    rare = seed % 4 + 1
    plain = Microworld(seed, pretraining_documents=200, rare_domains=rare, rare_share=0.1 * rare)
    assert world.split("mnli", "train").equals(plain.split("mnli", "train"))
    assert read_all(world.candidates()).equals(read_all(plain.candidates()))


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("seed", range(4))
def test_the_target_has_the_shares_of_its_kind(seed, split):
    world = VariedMicroworld(seed, **SIZES)
    found = domains(world, split=split)
    shares = dict(zip(["common_0", *world.under_covered], KINDS[seed], strict=True))
    assert found.keys() == shares.keys()
    for domain, share in shares.items():
        assert abs(found[domain] - share * found.total()) <= 2


def test_an_odd_number_of_rows_is_divided_completely():
    world = VariedMicroworld(3, labels=13, evaluation_rows=11, **SIZES)
    assert (domains(world).total(), domains(world, split="validation").total()) == (13, 11)


def test_each_rare_domain_is_as_rare_in_every_kind():
    for seed in range(4):
        world = VariedMicroworld(seed, **SIZES)
        named = read_all(world.candidates())["domain"].to_pylist()
        rare = Counter(named)
        shares = [Fraction(rare[domain], len(named)) for domain in world.under_covered]
        assert set(shares) == {Fraction(1, 10)}


def test_kinds_follow_the_seed_and_are_part_of_the_identity():
    identities = [VariedMicroworld(seed).identity() for seed in (31, 35, 34)]
    assert identities[0]["target_shares"] == identities[1]["target_shares"] == KINDS[3]
    assert identities[2]["target_shares"] == KINDS[2]
    assert identities[2]["rare_domains"] == 3


def test_the_kind_is_no_option():
    named = schema("gotd.data.microworld.varied.VariedMicroworld").__dataclass_fields__
    assert "rare_share" in named
    assert not {"rare_domains", "target_shares"} & set(named)


def test_a_seed_that_is_no_integer_is_refused():
    with pytest.raises(ValueError, match="seed must be an integer"):
        VariedMicroworld(seed=1.5)
