"""Validation of the fields of settings; every error names the field and its value."""

from __future__ import annotations

from collections.abc import Sequence


def check_choice(settings: object, name: str, choices: Sequence[str], kind: str = "") -> None:
    """Raise a ValueError if a field is not one of ``choices``.

    Args:
        settings: Object with the field.
        name: Name of the field.
        choices: The allowed values.
        kind: What the settings are for, where the name of the field alone is not clear.
    """
    value = getattr(settings, name)
    if value not in choices:
        raise ValueError(f"{kind} {name} must be one of {(*choices,)}, not {value!r}".lstrip())


def check_positive(settings: object, names: Sequence[str], kind: str = "") -> None:
    """Raise a ValueError if a field is below 1; ``None`` is allowed.

    Args:
        settings: Object with the fields.
        names: Names of the fields.
        kind: As in `check_choice`.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{kind} {name} must be at least 1, not {value}".lstrip())


def check_share(settings: object, name: str, kind: str = "") -> None:
    """Raise a ValueError if a field is not in [0, 1)."""
    value = getattr(settings, name)
    if not 0 <= value < 1:
        raise ValueError(f"{kind} {name} must lie in [0, 1), not {value}".lstrip())
