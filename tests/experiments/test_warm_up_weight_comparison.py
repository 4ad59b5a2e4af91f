"""The registered comparison of warm-up weights: units, tests and page, from made-up cells."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

SCRIPT = Path(__file__).parents[2] / "experiments" / "warm_up_weight_comparison.py"
TABLES = SCRIPT.parents[1] / "results" / "tables"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(script):
    """Give cells in which path .3 is .02 better than GOT-D, and .083 equal to it but for noise."""
    random = np.random.default_rng(5)
    effects = {"none": 0.05, "got_d_path .3": -0.02}
    made = []
    for base, task, seed in itertools.product(script.BASES, script.TASKS, range(21, 31)):
        level = 7 + random.normal(0, 0.1)
        for arm in script.ARMS:
            mean = level + effects.get(arm, 0.0) + random.normal(0, 0.002)
            row = {"base": base, "arm": arm, "task": task, "seed": seed, "mean": mean}
            row |= {"covered": mean - 0.5, "missing": mean + 0.5, "key": "k", "commit": "c" * 40}
            row |= {"hardware": {"cores": 2, "cpu": "a cpu"}}
            made.append(row | {"missing_share": None if arm == "none" else 0.9})
    return made


def by_hand(rows, arm, reference):
    """Return the mean difference of each draw, over tasks and bases."""
    pairs = {}
    for row in rows:
        if row["arm"] in (arm, reference):
            key = row["seed"], row["base"], row["task"]
            sign = 1 if row["arm"] == arm else -1
            pairs[key] = pairs.get(key, 0.0) + sign * row["mean"]
    seeds = sorted({seed for seed, _, _ in pairs})
    return np.array([np.mean([d for key, d in pairs.items() if key[0] == s]) for s in seeds])


def test_the_unit_is_the_draw_averaged_over_tasks_and_bases(script, rows):
    for one in script.compare(rows):
        drawn = by_hand(rows, one.arm, one.reference)
        both = one.over["both"]
        assert len(drawn) == both.n == 10
        assert both.difference.mean == pytest.approx(drawn.mean())
        interval = stats.t.interval(0.95, 9, drawn.mean(), stats.sem(drawn))
        assert (both.difference.low, both.difference.high) == pytest.approx(interval)
        flips = np.array(list(itertools.product((1, -1), repeat=10))) @ drawn
        exact = np.mean(np.abs(flips) >= abs(drawn.sum()) - 1e-12)
        assert both.p_value == pytest.approx(exact)


def test_only_the_registered_four_have_a_corrected_p_and_a_verdict(script, rows):
    results = script.compare(rows)
    tested = [one for one in results if one.holm_p is not None]
    assert [(one.arm, one.reference) for one in tested] == list(script.REGISTERED)
    verdicts = {(one.arm, one.reference): one.verdict for one in results}
    assert verdicts["got_d_path .3", "got_d"] == "better"
    assert verdicts["got_d", "none"] == ""  # a large difference that is not registered
    least = min(one.over["both"].p_value for one in tested)
    assert min(one.holm_p for one in tested) == pytest.approx(4 * least)
    turned = [row | {"mean": -row["mean"]} for row in rows]
    assert script.compare(turned)[1].verdict == "worse"


def test_the_arms_are_those_of_the_registration(script):
    page = (SCRIPT.parents[1] / "results/registrations/warm_up_weight.md").read_text("utf-8")
    numbered = [
        line.split(". ", 1)[1] for line in page.splitlines() if line[:2] in ("1.", "2.", "3.", "4.")
    ]
    named = [f"{arm} − {reference}" for arm, reference in script.REGISTERED]
    plain = {"dsir": "DSIR", "got_d": "GOT-D"}
    assert numbered == [
        " − ".join(plain.get(part, part) for part in name.split(" − ")) for name in named
    ]


def test_the_page_has_every_arm_and_pair(script, rows):
    page = script.tabulate(rows)
    for one in script.compare(rows):
        assert f"| {one.arm} | {one.reference} | {one.over['both'].difference.mean:+.4f} |" in page
    assert "ccccccc; 2 cores a cpu" in page
    for arm in script.ARMS:
        assert f"\n| {arm} | " in page


def test_the_committed_page_is_made_from_the_committed_rows(script):
    lines = (TABLES / "warm_up_weight_comparison.jsonl").read_text("utf-8").splitlines()
    committed = [json.loads(line) for line in lines]
    page = (TABLES / "warm_up_weight_comparison.md").read_text("utf-8")
    assert script.tabulate(committed) == page
    assert {row["seed"] for row in committed} == set(script.SEEDS)
    assert len(committed) == len(script.ARMS) * len(script.TASKS) * 10 * len(script.BASES)
