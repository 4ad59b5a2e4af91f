"""Checks of settings, in classes and configurations, and hints at what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_choice(settings: Any, name: str, choices: Iterable[str], prefix: str = "") -> None:
    """Raise a ValueError if a field is none of its choices.

    Args:
        settings: Object with the field.
        name: Name of the field.
        choices: The allowed values.
        prefix: Comes before the name in the message.
    """
    value, choices = getattr(settings, name), list(choices)
    if value not in choices:
        raise ValueError(f"{prefix}{name} must be one of {', '.join(choices)}, not {value!r}")


def check_choices(settings: Any, prefix: str) -> None:
    """Raise a ValueError if a field annotated with `typing.Literal` has none of its values.

    Args:
        settings: A dataclass.
        prefix: Begins the message, such as ``"embedder "``.
    """
    for name, hint in get_type_hints(type(settings)).items():
        if get_origin(hint) is Literal:
            check_choice(settings, name, get_args(hint), prefix)


def check_at_least(settings: Any, least: int, *names: str, prefix: str = "") -> None:
    """Raise a ValueError if a field is below its bound; ``None`` is within every bound.

    Args:
        settings: Object with the fields.
        least: Lowest value of each field.
        names: Names of the fields.
        prefix: Comes before the name in the message.
    """
    bound = "not be negative" if least == 0 else f"be at least {least}"
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{prefix}{name} must {bound}, not {value}")


def check_at_most(settings: Any, most: int, *names: str, prefix: str = "") -> None:
    """Raise a ValueError if a field is above its bound; ``None`` is within every bound.

    Args:
        settings: Object with the fields.
        most: Highest value of each field.
        names: Names of the fields.
        prefix: Comes before the name in the message.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value > most:
            raise ValueError(f"{prefix}{name} must be at most {most:,}, not {value}")


def check_share(settings: Any, name: str, prefix: str = "") -> None:
    """Raise a ValueError if a field is not in [0, 1)."""
    value = getattr(settings, name)
    if not 0 <= value < 1:
        raise ValueError(f"{prefix}{name} must lie in [0, 1), not {value}")


def check_device_name(device: str) -> None:
    """Raise a ValueError if a device is none of ``auto``, ``cpu``, ``cuda`` and ``cuda:N``."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"the device must be auto, cpu, cuda or cuda:N, not {device!r}")


def meant(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that a misspelt one is like; empty if there is none."""
    by_letters = {one.lower(): one for one in known}
    near = get_close_matches(word.lower(), list(by_letters), n=1)
    return f"; did you mean {by_letters[near[0]]} for {word}?" if near else ""


def meant_override(word: str) -> str:
    """Return a hint at the override that was typed as an option, such as ``--seed=1``."""
    return f"; overrides have no dashes: write {word.lstrip('-')}"
