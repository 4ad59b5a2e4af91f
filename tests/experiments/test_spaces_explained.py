"""What a space saves for each half of a target, on made-up points with known distances."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gotd.data.rows import Rows

SCRIPT = Path(__file__).parents[2] / "experiments" / "spaces.py"
NAMES = {"covered": "films", "missing": "cells"}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("explained_spaces", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["explained_spaces"] = module
    spec.loader.exec_module(module)
    return module


def rows(domains, prefix):
    ids = pa.array([f"{prefix}{number}" for number in range(len(domains))])
    return Rows(ids, pa.array(["text"] * len(domains)), pa.array(domains))


@pytest.fixture
def drawn(script):
    """Give a pool of 60 films, 60 of law and 12 of cells, and a target of both halves."""
    pool = rows(["films"] * 60 + ["law"] * 60 + ["cells"] * 12, "c")
    target = rows(["films"] * 20 + ["cells"] * 20, "t")
    return script.Draw(pool, target, NAMES, budget=10)


def points(drawn, places, noise=0.05):
    random = np.random.default_rng(0)
    sides = []
    for side in (drawn.pool, drawn.target):
        centres = np.array([places[name] for name in side.domains.to_pylist()], dtype=float)
        sides.append((centres + noise * random.normal(size=centres.shape)).astype(np.float32))
    return sides


def test_distances_are_those_of_the_points(script, drawn):
    places = {"films": (0, 0), "law": (3, 0), "cells": (0, 1)}
    found = script.describe(*points(drawn, places, noise=0.0), drawn)
    assert found == {"own_covered": 0.0, "own_missing": 0.0, "neighbours": 1.0}
    pool, target = points(drawn, places, noise=0.5)
    films = [float(((t - x) ** 2).sum()) for t in target[:20] for x in pool[:60]]
    every = [float(((t - x) ** 2).sum()) for t in target for x in pool]
    spread = script.describe(pool, target, drawn)
    assert spread["own_covered"] == pytest.approx(np.mean(films) / np.mean(every), rel=1e-5)
    assert spread["neighbours"] < 1


@pytest.mark.parametrize(("spread", "tight"), [("films", "missing"), ("cells", "covered")])
def test_rows_of_a_domain_that_is_spread_out_are_worth_less(script, spread, tight):
    """Both domains are as large and as far from the rest; one has texts that are far apart."""
    pool = rows(["films"] * 20 + ["law"] * 80 + ["cells"] * 20, "c")
    draw = script.Draw(pool, rows(["films"] * 20 + ["cells"] * 20, "t"), NAMES, budget=10)
    random = np.random.default_rng(1)
    sides = []
    for side in (draw.pool, draw.target):
        names = np.array(side.domains.to_pylist())
        noise = np.where(names == spread, 0.5, 0.05)[:, None] * random.normal(size=(len(names), 30))
        noise[:, 0] = np.select([names == "films", names == "cells"], [-3, 3], 0)
        sides.append(noise.astype(np.float32))
    found = script.rank(*sides, draw, 0.05)
    wide = {"missing": "covered", "covered": "missing"}[tight]
    assert found[f"value_{tight}"] > found[f"value_{wide}"]


def test_the_selected_share_is_of_the_budget(script, drawn):
    places = {"films": (-1, 0), "law": (0, 0), "cells": (0, 4)}
    assert script.rank(*points(drawn, places), drawn, 0.05)["selected"] == 1.0
    near = {"films": (-3, 0), "law": (0, 0), "cells": (0.6, 0)}
    assert script.rank(*points(drawn, near), drawn, 0.05)["selected"] == 0.0


def test_the_page_has_the_means_over_domains(script):
    numbers = {"own_covered": 0.8, "own_missing": 0.9, "neighbours": 0.5}
    numbers |= {"commit": "c" * 40, "hardware": {"cores": 2, "cpu": "a cpu"}}
    numbers |= {"value_covered_0.05": 0.2, "value_missing_0.05": 0.1}
    spaces = [f"{space}{kind}" for space in script.SPACES for kind in ("", ", whitened")]
    rows = [
        {"space": space, "task": task, "rows": 4000, "budget": 23, "draw": 1, **numbers}
        | {"selected_0.05": share, "selected_0.01": share}
        for space in spaces
        for task, share in (("gap_a", 0.0), ("gap_b", 1.0))
    ]
    page = script.tabulate(rows)
    assert "| minilm | 0.80 | 0.90 | 50 | 0.20 | 0.10 | 50 | 50 | 0 | 100 |" in page
    assert "2 missing domains and 1 draw of 4,000 candidates" in page


def test_the_committed_page_is_made_from_the_committed_rows(script):
    tables = SCRIPT.parents[1] / "results" / "tables"
    rows = [json.loads(line) for line in (tables / "spaces.jsonl").read_text("utf-8").splitlines()]
    assert script.tabulate(rows) == (tables / "spaces.md").read_text("utf-8")
    assert {row["task"] for row in rows} == {*script.TASKS}
