"""What one step hands to another does not change on the way."""

import dataclasses
import importlib
import pkgutil

GATHERED = {
    "gotd.pipeline.ranked_pool.SelectedRows",
    "gotd.training.data.Batch",
    "gotd.training.data.BatchStream",
}
"""Values that gather what a loop reads."""


def test_values_that_are_part_of_a_key_cannot_be_changed_after_it_is_made():
    changeable = set()
    for package in ("data", "evaluation", "pipeline", "training"):
        (folder,) = importlib.import_module(f"gotd.{package}").__path__
        for found in pkgutil.walk_packages([folder], f"gotd.{package}."):
            for name, kind in vars(importlib.import_module(found.name)).items():
                own = dataclasses.is_dataclass(kind) and kind.__module__ == found.name
                if own and not kind.__dataclass_params__.frozen and not name.startswith("_"):
                    changeable.add(f"{found.name}.{name}")
    assert changeable == GATHERED
