"""Checks of settings that have a few allowed values."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_choices(settings: Any, prefix: str) -> None:
    """Raise if a field annotated with `typing.Literal` has none of its values.

    Args:
        settings: A dataclass.
        prefix: Begins the message, such as ``"embedder "``.

    Raises:
        ValueError: Names the field, its value and what is allowed.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            allowed = ", ".join(get_args(hint))
            raise ValueError(f"{prefix}{name} must be one of {allowed}, not {value!r}")
