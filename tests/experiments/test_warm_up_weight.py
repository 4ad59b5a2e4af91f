"""The weight of a warm-up is recovered from changes that it made, and gives the best shares."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

SCRIPT = Path(__file__).parents[2] / "experiments" / "warm_up_weight.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("warm_up_weight", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["warm_up_weight"] = module
    spec.loader.exec_module(module)
    return module


def changes(script, weight, noise=0.0):
    random = np.random.default_rng(3)
    found = []
    for unit in range(6):
        for part, offset, pool, shares in (
            ("missing", -0.02, 0.02, (0.02, 0.25, 0.5, 0.75, 1)),
            ("covered", 0.01, 0.13, (0.13, 0.75, 0.5, 0.25, 0)),
        ):
            for share in shares:
                exact = offset - 0.04 * np.log(1 + weight * (share / pool - 1))
                change = float(exact + noise * random.normal())
                found.append(script.Change(str(unit), part, part, share, pool, change))
    return found


@pytest.mark.parametrize("weight", [0.05, 0.3, 0.8])
def test_the_weight_of_the_model_is_found(script, weight):
    fit = script.fit_weight(changes(script, weight))
    assert fit.weight == pytest.approx(weight, abs=1e-3)
    assert fit.slope == pytest.approx(0.04, rel=1e-3)
    assert fit.explained == pytest.approx(1, abs=1e-6)


def test_the_interval_has_the_weight(script):
    noisy = changes(script, 0.3, noise=0.003)
    low, high = script.interval(noisy)
    assert low < 0.3 < high
    assert low < script.fit_weight(noisy).weight < high
    assert high - low < 0.4


@pytest.mark.parametrize("weight", [0.05, 0.3, 0.8])
def test_the_best_share_solves_the_convex_program(script, weight):
    pool = {"covered": 0.13, "missing": 0.02}
    fits = {
        "covered": script.Fit(weight, 0.03, 1.0),
        "missing": script.Fit(0.05, 0.1, 1.0),
    }

    def loss(share):
        given = {"missing": share, "covered": 1 - share}
        mixed = {part: 1 + fits[part].weight * (given[part] / pool[part] - 1) for part in fits}
        return -sum(fits[part].slope * np.log(mixed[part]) for part in fits)

    found = minimize_scalar(loss, bounds=(0, 1), method="bounded")
    assert script.best_missing_share(fits, pool) == pytest.approx(found.x, abs=2e-3)


def test_parts_with_weights_of_their_own_are_fitted_apart(script):
    rows = script.estimate(300, changes(script, 0.3, noise=0.001))
    assert [row["parts"] for row in rows] == [
        *("one weight", "covered alone", "missing alone", "each its own"),
    ]
    for row in rows[:3]:
        assert row["low"] <= row["fit"]["weight"] <= row["high"]
    assert rows[0]["best_missing_share"] == pytest.approx(rows[3]["best_missing_share"], abs=0.2)


def test_a_change_is_read_for_each_part(script):
    record = {
        "config": {"seed": 2, "task": {"name": "gap", "covered": "films", "missing": "cells"}},
        "selection": {
            "rows": 300,
            "domains": {"cells": 150, "law": 150},
            "expected_domains": {"cells": 6.0, "films": 40.0, "law": 254.0},
        },
        "metrics": {
            **{"target_loss/covered": 6.9, "target_loss_base/covered": 6.8},
            **{"target_loss/missing": 7.1, "target_loss_base/missing": 7.4},
        },
    }
    covered, missing = script.changes_of(record)
    assert (covered.domain, covered.selected, missing.selected) == ("films", 0, 0.5)
    assert missing.pool == pytest.approx(0.02)
    assert covered.change == pytest.approx(0.1)
    assert missing.change == pytest.approx(-0.3)
    assert covered.unit == missing.unit == "gap, draw 2"


def test_the_committed_page_is_made_from_the_committed_rows(script):
    tables = SCRIPT.parents[1] / "results" / "tables"
    lines = (tables / "warm_up_weight.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "parts" in row]
    points = [row for row in map(json.loads, lines) if "unit" in row]
    page = (tables / "warm_up_weight.md").read_text("utf-8")
    (command,) = re.findall("Command: `(.*)`", page)
    assert script.tabulate(rows, command) == page
    changes = [script.Change(**{k: v for k, v in p.items() if k != "budget"}) for p in points]
    fitted = script.fit_weight(changes)
    assert fitted.weight == pytest.approx(rows[0]["fit"]["weight"], abs=1e-6)


def test_the_page_has_a_row_for_each_estimate(script):
    fit = {"weight": 0.3, "slope": 0.04, "explained": 0.9}
    row = {"budget": 1000, "parts": "one weight", "fit": fit, "low": 0.2, "high": 0.45}
    own = {"budget": 1000, "parts": "each its own", "fit": None, "best_missing_share": 0.79}
    page = script.tabulate([row | {"best_missing_share": 0.63}, own], "command")
    assert "| 1,000 | one weight | 0.300 | 0.200 to 0.450 | 0.0400 | 0.90 | 0.63 |" in page
    assert "| 1,000 | each its own |  |  |  |  | 0.79 |" in page
