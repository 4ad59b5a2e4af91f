"""Compiled functions, kept on disk where a folder for them can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Return the decorator of a compiled function.

    Args:
        options: Options of `numba.njit`.
    """

    def decorate(function: Any) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # a read-only installation, and no home: it is compiled each time
            return njit(**options)(function)

    return decorate
