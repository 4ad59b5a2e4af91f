"""The command line of an experiment: its name, overrides, and the flags of Hydra."""

from __future__ import annotations

from collections.abc import Sequence

from gotd.runs.expand import SweepError, experiments
from gotd.storage.checks import meant, meant_override

FLAGS = ("-h", "--help", "--info", "--cfg", "-m", "--multirun")
"""The flags of Hydra that an experiment knows."""


def split_experiment(overrides: Sequence[str]) -> tuple[str, list[str]]:
    """Return the experiment's name and the other overrides.

    Raises:
        SweepError: If no override states the experiment.
    """
    names = [o.partition("=")[2] for o in overrides if o.startswith("experiment=")]
    if not names:
        check_flags(overrides)
        raise SweepError(
            f"no experiment given; add experiment=…, one of: {', '.join(experiments())}"
        )
    return names[-1], [o for o in overrides if not o.startswith("experiment=")]


def check_flags(overrides: Sequence[str]) -> None:
    """Raise a `SweepError` at a flag that there is not, with a hint at what was meant."""
    for word in overrides:
        name, equals, _ = word.partition("=")
        if not word.startswith("-") or word in FLAGS:
            continue
        typed_as_flag = equals and name not in FLAGS
        hint = meant_override(word) if typed_as_flag else meant(name, FLAGS)
        raise SweepError(f"there is no flag {name}{hint or '; overrides have the form name=value'}")
