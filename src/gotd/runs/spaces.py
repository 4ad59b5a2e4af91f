"""Cells of an experiment that has the space of the selectors as an axis.

Its cells are those of the experiment that it extends, under the same keys. So an embedder is no
override where it is the experiment's own, and a selector that reads no embeddings runs only there.
"""

from __future__ import annotations

from collections.abc import Iterable

from gotd.selectors.registry import entry, reads_space

SPACE = "embedder"
"""The axis, a group of conf/."""


def once(jobs: Iterable[tuple[str, ...]], own: str) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Leave out cells that repeat another one, and the embedder where it is the own one.

    Args:
        jobs: The overrides of each cell.
        own: The space of the experiment that is extended.

    Returns:
        The overrides under which a cell is known, by those with which it is composed, in order.
    """
    moved = dict.fromkeys(_moved(job, own) for job in jobs)
    return {job: tuple(part for part in job if part != f"{SPACE}={own}") for job in moved}


def _moved(job: tuple[str, ...], own: str) -> tuple[str, ...]:
    """Return the overrides of a cell in the own space, if its selector reads no embeddings."""
    chosen = dict(part.split("=", 1) for part in job)
    if reads_space(entry(chosen["selector"])):
        return job
    return tuple(f"{SPACE}={own}" if part.startswith(f"{SPACE}=") else part for part in job)
