"""Rows of which only the texts are needed: ids and domains that cannot be used are not read.

A target, a test set and labelled rows have no need of names of their own. So a column of ids
that repeat, or of domains that are lists, must not stop a run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from gotd.data.base import Part
from gotd.data.columns import BadName

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def read_texts(parts: Sequence[Part], read: Callable[[Sequence[Part]], Answer]) -> Answer:
    """Read parts, once more without their ids and domains if these cannot be used.

    Args:
        parts: The parts.
        read: Reads them from the beginning, whatever an earlier call has done.

    Raises:
        ValueError: If they cannot be read for another reason.
    """
    try:
        return read(parts)
    except BadName as error:
        report_numbered(error)
    return read(numbered(parts))


def report_numbered(error: BadName) -> None:
    """Log that rows are numbered, and why."""
    log.info("%s. Only its texts are needed, so its rows are numbered", _problem(error))


def _problem(error: BadName) -> str:
    """Return what is wrong, without the remedy, which is not needed."""
    return str(error).split("; ")[0]


def numbered(parts: Sequence[Part]) -> list[Part]:
    """Return the same parts with numbered rows and no domains of their own."""
    return [_numbered(part) for part in parts]


def _numbered(part: Any) -> Any:
    if hasattr(part, "columns"):
        return replace(part, columns=replace(part.columns, text_alone=True))
    inner = getattr(part, "part", None)
    return part if inner is None else replace(part, part=_numbered(inner))
