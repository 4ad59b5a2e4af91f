"""What a space saves for each half of a target, on made-up points with known distances."""

import importlib.util
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


def test_saved_cost_is_that_of_the_distances(script, drawn):
    places = {"films": (0, 0), "law": (3, 0), "cells": (0, 1)}
    found = script.describe(*points(drawn, places, noise=0.0), drawn)
    distances = {("films", "law"): 9, ("films", "cells"): 1, ("cells", "law"): 10}
    counts = {"films": 60, "law": 60, "cells": 12}
    total = 20 * (60 * 9 + 12 * 1) + 20 * (60 * 1 + 60 * 10)
    mean = total / (40 * 132)
    others = (60 * distances["cells", "law"] + 60 * distances["films", "cells"]) / 120
    assert found["saved_missing"] == pytest.approx(others / mean)
    of_films = (60 * 9 + 12 * 1) / (132 - counts["films"])
    assert found["saved_covered"] == pytest.approx(of_films / mean)
    assert found["neighbours"] == 1.0


@pytest.mark.parametrize(("missing", "taken"), [((0, 4), 1.0), ((0.6, 0), 0.0)])
def test_got_d_selects_the_half_whose_own_rows_save_more(script, drawn, missing, taken):
    places = {"films": (-3, 0), "law": (0, 0), "cells": missing}
    pool, target = points(drawn, places)
    found = script.describe(pool, target, drawn)
    assert (found["saved_missing"] > found["saved_covered"]) == bool(taken)
    assert script.selected_share(pool, target, drawn, 0.05) == taken


def test_the_page_has_the_means_over_domains(script):
    numbers = {"saved_covered": 0.2, "saved_missing": 0.1, "neighbours": 0.5}
    spaces = [f"{space}{kind}" for space in script.SPACES for kind in ("", ", whitened")]
    rows = [
        {"space": space, "task": task, "rows": 4000, "budget": 23, "draw": 1, **numbers}
        | {"selected_0.05": share, "selected_0.01": share}
        for space in spaces
        for task, share in (("gap_a", 0.0), ("gap_b", 1.0))
    ]
    page = script.tabulate(rows)
    assert "| minilm | 0.20 | 0.10 | 0.50 | 0.50 | 0.50 | 0.20 / 0.10 | 0.20 / 0.10 |" in page
    assert "2 missing domains and 1 draw of 4,000 candidates" in page
