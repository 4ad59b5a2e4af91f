"""What tables, figures and plans read of a selector."""

import re

import pytest

from gotd.selectors.registry import (
    UNORDERED,
    arm_of,
    build_selector,
    colours,
    entries,
    entry,
    order_key,
    references,
    selector_class,
)


def test_tables_list_the_usual_arms_first_and_those_that_know_the_answer_last():
    names = [one.name for one in entries()]
    usual = ["none", "random", "full_pool", "all_domains", "random_in_domain", "nearest"]
    assert names[:6] == usual
    mixes = ["quarter_oracle", "half_oracle", "three_quarters_oracle"]
    assert names[-4:] == [*mixes, "oracle"]
    mixed = ["unknown_b", "oracle", "tsds", "none", "unknown_a", "got_d"]
    assert sorted(mixed, key=order_key) == [
        *("none", "got_d", "tsds", "unknown_a", "unknown_b", "oracle"),
    ]
    assert order_key("unknown_a") == (UNORDERED, "unknown_a")


def test_references_and_published_rows_are_those_of_the_paper_s_tables():
    assert references() == ("none", "random", "nearest", "dsir")
    assert arm_of("TAPT/c") == "curated_tapt_duplicates"
    assert arm_of("GPT-2 XL") == "none"
    assert arm_of("something else") is None
    rows = [row for one in entries() for row in one.published]
    assert len(set(rows)) == len(rows)


def test_every_entry_has_a_class_a_line_of_help_and_a_colour_that_is_one():
    for one in entries():
        assert one.help, one.name
        assert one.target is None or selector_class(one.name).__name__ in one.target
    assert all(re.fullmatch("#[0-9A-F]{6}", colour) for colour in colours().values())


def test_variants_extend_their_parents():
    assert entry("tsds_kde").target == entry("tsds").target
    assert entry("half_oracle").preset == {"share": 0.5}  # the task names the domains
    assert entry("quarter_oracle").preset == {"share": 0.25}
    assert entry("got_d").preset == {}  # an experiment's ${transport...} is not for own data
    assert build_selector("tsds_kde", {"sigma": "2"}).sigma == 2.0


def test_the_device_is_that_of_methods_that_have_one_unless_a_setting_says_otherwise():
    assert build_selector("got_d", {}, "cpu").device == "cpu"
    assert build_selector("got_d", {"device": "cuda:1"}, "cpu").device == "cuda:1"
    assert not hasattr(build_selector("dsir", {}, "cpu"), "device")


@pytest.mark.parametrize(
    ("name", "hint"), [("got_c", "did you mean 'got_d'"), ("oracle", "unknown method 'oracle'")]
)
def test_a_name_that_is_not_offered_is_an_error(name, hint):
    with pytest.raises(ValueError, match=hint):
        build_selector(name, {})


def test_an_arm_without_a_selection_builds_nothing():
    assert not entry("none").offered
    with pytest.raises(ValueError, match="selects nothing"):
        selector_class("none")


def test_solving_again_costs_more_than_solving_once():
    size = (1_000_000, 2_000, 384, 20_000)
    flops = {
        name: build_selector(name, {}).work(*size).flops
        for name in ("nearest", "got_d", "got_d_path", "got_d_clusters", "tsds", "tsds_kde")
    }
    assert flops["got_d"] == pytest.approx(4 * flops["nearest"], rel=0.1)
    assert flops["got_d_path"] > 20 * flops["got_d"]
    assert 3 * flops["got_d"] < flops["got_d_clusters"] < 6 * flops["got_d"]
    assert flops["tsds_kde"] > 100 * flops["tsds"]
    fast, published = ({"hash": name} for name in ("fast", "sha256"))
    assert build_selector("dsir", published).work(100, 10, 0, 5).texts == 210
    assert build_selector("dsir", fast).work(100, 10, 0, 5).texts < 210 / 10
    dense = build_selector("got_d", {"solver": "dense"}).work(1_000, 100, 64, 10)
    assert dense.memory_bytes >= 8 * 1_000 * 100


@pytest.mark.parametrize(
    ("name", "setting", "says"),
    [
        ("dsir", {"ngrams": 10**19}, "ngrams must be at least 1 and at most 100"),
        ("classifier", {"buckets": 10**19}, "buckets must be at most"),
        ("classifier", {"ngrams": 101}, "ngrams must be at most 100"),
        ("got_d", {"device": "abc"}, "the device must be auto, cpu, cuda"),
        ("mmd", {"device": "-1"}, "the device must be auto, cpu, cuda"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_at_once(name, setting, says):
    with pytest.raises(ValueError, match=says):
        build_selector(name, setting)
