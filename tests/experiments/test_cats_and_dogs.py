import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "cats_and_dogs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cats_and_dogs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cats_and_dogs"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_got_d_takes_dogs_where_the_others_do_not(script, tmp_path, capsys):
    arms = script.main(["--out", str(tmp_path)])
    dogs = {arm.title: arm.dogs for arm in arms}
    assert dogs["GOT-D"] >= 0.95
    assert 0.35 <= dogs["Distribution matching"] <= 0.65
    assert dogs["Nearest"] <= 0.05
    # What it is for: the model's experience ends up nearest to the target.
    left = {arm.title: arm.transport_cost for arm in arms}
    assert left["GOT-D"] < left["Distribution matching"] < left["Nearest"]
    assert (tmp_path / "cats_and_dogs.png").stat().st_size > 10_000
    assert (tmp_path / "cats_and_dogs.svg").read_text().startswith("<?xml")
    assert "GOT-D                        0%   100%" in capsys.readouterr().out


def test_the_world_is_as_the_paper_says(script):
    world = script.draw_world(3)
    assert world.pool_is_dog.mean() == pytest.approx(0.01)
    assert world.target_is_dog.mean() == 0.5
    assert (script.draw_world(3).pool == world.pool).all()
    assert (script.draw_world(4).pool != world.pool).any()
