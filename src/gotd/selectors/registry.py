"""The methods of ``gotd select`` by name. Imports nothing heavy: ``--help`` lists them."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "got_d": ("gotd.selectors.got_d.GotD", {}, "pulls the pool fastest towards the target"),
    "got_d_contrast": (
        "gotd.selectors.got_d.GotD",
        {"direction": "away"},
        "away from a target of what is not wanted",
    ),
    "got_d_path": (
        "gotd.selectors.got_d_path.GotDPath",
        {},
        "in steps: what was taken counts as seen",
    ),
    "got_d_clusters": (
        "gotd.selectors.got_d_clusters.GotDClusters",
        {},
        "every cluster of the target takes its turn",
    ),
    "nearest": ("gotd.selectors.nearest.Nearest", {}, "closest to any target"),
    "round_robin": ("gotd.selectors.round_robin.RoundRobin", {}, "every target takes its turn"),
    "curated_tapt": (
        "gotd.selectors.curated_tapt.CuratedTAPT",
        {},
        "nearest neighbours of every target",
    ),
    "curated_tapt_duplicates": (
        "gotd.selectors.curated_tapt.CuratedTAPT",
        {"duplicates": True},
        "the same, rows may repeat",
    ),
    "tsds": ("gotd.selectors.tsds.TSDS", {}, "transport with a term for diversity"),
    "tsds_kde": (
        "gotd.selectors.tsds.TSDS",
        {"variant": "kde"},
        "the same, near-duplicates share their weight",
    ),
    "dsir": ("gotd.selectors.dsir.DSIR", {}, "n-gram importance weights, needs no encoder"),
    "random": ("gotd.selectors.random.Random", {}, "the baseline to beat"),
    "random_in_domain": (
        "gotd.selectors.random.RandomInDomain",
        {},
        "random rows of one domain (--set domain=…, else the nearest)",
    ),
    "all_domains": ("gotd.selectors.random.AllDomains", {}, "an equal share of every domain"),
    "least_toxic": (
        "gotd.selectors.least_toxic.LeastToxic",
        {},
        "lowest score in a file (--set scores=FILE)",
    ),
}
"""By name: what to build, the fields that make the variant, and a line for the help."""


def build_method(name: str, settings: Mapping[str, Any]) -> Any:
    """Build a selector.

    Args:
        name: One of `METHODS`.
        settings: Its fields; strings, as from a command line, become what the field holds.

    Raises:
        ValueError: If there is no such method or field, a value is refused, or a needed
            one is missing; suggests the nearest name.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; {did_you_mean(name, METHODS)}")
    target, preset, _ = METHODS[name]
    module, _, kind = target.rpartition(".")
    constructor = getattr(importlib.import_module(module), kind)
    fields = {f.name: f for f in dataclasses.fields(constructor) if f.init}
    for field in settings:
        if field not in fields:
            raise ValueError(
                f"the method {name} has no setting {field!r}; "
                + (did_you_mean(field, fields) if fields else "it has none")
            )
    values = {field: _as(fields[field], value) for field, value in settings.items()}
    for field, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"the method {name}: {field} must be a finite number, not {value}")
        if isinstance(value, Path) and not value.is_file():
            raise ValueError(f"the method {name}: {field}: there is no file {value}")
    for field in fields:
        # In an experiment a step fills it in; here nobody else will.
        if field in constructor.requires and values.get(field) is None:
            raise ValueError(f"the method {name} needs a setting: give --set {field}=…")
    return constructor(**{**preset, **values})


def did_you_mean(name: str, known: Any) -> str:
    """Suggest the nearest of the known names, or list them all."""
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(known)}"


def _as(field: dataclasses.Field[Any], value: Any) -> Any:
    """Read a string as what the field's annotation says."""
    if not isinstance(value, str):
        return value
    kind = str(field.type)
    try:
        if value.lower() in ("none", "null") and "None" in kind:
            return None
        if "bool" in kind:
            return {"true": True, "false": False}[value.lower()]
        if "tuple" in kind:
            return tuple(part for part in value.split(",") if part)
        for name, read in (("int", int), ("float", float), ("Path", Path)):
            if kind.split(" |")[0] == name:
                return read(value)
    except (ValueError, KeyError) as error:
        raise ValueError(f"--set {field.name}={value}: that is no {kind}") from error
    return value
