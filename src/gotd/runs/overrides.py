"""What an override of a command line changes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from gotd.storage.keys import RUN_ONLY

AXES = {"task", "selector", "model", "budget", "seed", "protocol", "experiment", "scale"}
"""Overrides with a column of their own in the tables; any other one is part of the variant."""


def is_sweep(override: str) -> bool:
    """Return whether an override has several values."""
    return bool(OverridesParser.create().parse_override(override).is_sweep_override())


def is_run_only(override: str) -> bool:
    """Return whether an override changes only how and where cells run."""
    key = key_of(override)
    group, name = re.split("[./]", key)[0], key.rpartition(".")[2]
    return group == "hydra" or key == "source.path" or bool({group, name} & RUN_ONLY)


def variant(overrides: Sequence[str]) -> str:
    """Return the overrides that are no axis, which tell the cells of a sweep apart."""
    return " ".join(sorted(o for o in overrides if key_of(o) not in AXES and not is_run_only(o)))


def key_of(override: str) -> str:
    """Return the group or field that an override changes."""
    return override.lstrip("+~").partition("=")[0]
