import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "mode_coverage.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("mode_coverage", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mode_coverage"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_clusters_serve_what_got_d_leaves_out(script, tmp_path, monkeypatch):
    few = {name: script.ARMS[name] for name in ("random", "got_d", "got_d_clusters, 64")}
    monkeypatch.setattr(script, "ARMS", few)
    found = script.main(["--settings", "apart", "--seeds", "2", "--out", str(tmp_path)])
    misallocated = {row["arm"]: row["misallocated"] for row in found}
    assert misallocated["got_d_clusters, 64"] < 0.1 < 0.3 < misallocated["got_d"]
    lines = (tmp_path / "tables" / "mode_coverage.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found
    assert "| got_d |" in (tmp_path / "tables" / "mode_coverage.md").read_text()
    assert (tmp_path / "figures" / "mode_coverage.svg").read_text().startswith("<?xml")


def test_the_whole_pool_reaches_everything(script):
    setting = script.generated(0)
    assert set(np.unique(setting.target_mode)) == {0, 1, 2}
    best = script.reached(setting, np.arange(len(setting.pool)))
    some = script.reached(setting, np.arange(50))
    assert (best < some).all()


def test_an_unknown_setting_is_refused(script):
    with pytest.raises(SystemExit):
        script.main(["--settings", "nowhere"])
