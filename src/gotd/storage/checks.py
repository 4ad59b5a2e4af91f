"""Checks of settings: the fields of a class, or of a node of the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def check_choice(settings: Any, name: str, choices: Iterable[str], prefix: str = "") -> None:
    """Raise if a field is none of its choices.

    Args:
        settings: Has the field.
        name: Name of the field.
        choices: Its possible values.
        prefix: Comes before the name in the message.

    Raises:
        ValueError: If so; names the field and the choices.
    """
    value, choices = getattr(settings, name), list(choices)
    if value not in choices:
        raise ValueError(f"{prefix}{name} must be one of {', '.join(choices)}, not {value!r}")


def check_at_least(settings: Any, least: int, *names: str, prefix: str = "") -> None:
    """Raise if a field is below its bound; ``None`` is within every bound.

    Args:
        settings: Has the fields.
        least: Lowest value of each field.
        names: Names of the fields.
        prefix: Comes before the name in the message.

    Raises:
        ValueError: If so; names the field and the bound.
    """
    bound = "not be negative" if least == 0 else f"be at least {least}"
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ValueError(f"{prefix}{name} must {bound}, not {value}")
