"""Numbers per candidate and sums over all candidates, from blocks that are computed anywhere.

Sums are a tree of two levels: over the blocks of a group, where the group is computed, and over
the groups, in order. The groups depend on the number of blocks alone, so a sum has the same bits
for any number of workers and any engine. It is kept in float64. A compensated sum in float32
would take as many bytes, since each sum has a second number, and be less exact.

What the caller receives is the sums of a group: of a hundred thousand rows, where blocks are
many. Numbers per candidate that belong into files are written by the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gotd.transport.blocks import Block

# A group is one block below twice `GROUPS` blocks, so that all workers have some. More blocks
# than the most would make a task of many seconds, which is lost if its worker dies.
GROUPS, MOST_BLOCKS = 128, 64


def groups_of(blocks: Sequence[Block]) -> list[Sequence[Block]]:
    """Return groups of consecutive blocks, whose sums are computed together."""
    size = max(1, min(MOST_BLOCKS, len(blocks) // GROUPS))
    return [blocks[start : start + size] for start in range(0, len(blocks), size)]


def fill(
    blocks: Sequence[Block],
    map_blocks: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]],
    out: Sequence[np.ndarray],
    function: Callable[[Block], tuple[np.ndarray | None, Any]],
    add: Callable[[Any, Any], Any],
) -> Any:
    """Compute one number per candidate, and sums over all candidates.

    An array of ``out`` with a ``source``, the path of its file, is written where its values are
    computed, by ``write_rows(start, values)``. The caller must not have changed it since it was
    made: another machine may not see that.

    Args:
        blocks: All rows of all candidate arrays, in order.
        map_blocks: Applies a function to items and yields the results in order.
        out: Per candidate array ``[n_k]`` float64; empty if ``function`` returns no values.
        function: Returns ``[n]`` float64 values of a block or ``None``, and its part of the
            sums, which may be changed in place.
        add: Adds two parts; it may change the first.

    Returns:
        The sum of all parts.
    """
    files: list[Any] = [array if getattr(array, "source", None) else None for array in out]

    def fill_group(group: Sequence[Block]) -> tuple[list[np.ndarray | None], Any]:
        left: list[np.ndarray | None] = []
        total = []
        for block in group:
            values, part = function(block)
            if values is not None and files[block.array] is not None:
                values = files[block.array].write_rows(block.start, values)
            left.append(values)
            total = [add(total[0], part) if total else part]
        return left, total[0]

    groups, total = groups_of(blocks), []
    for group, (left, part) in zip(groups, map_blocks(fill_group, groups), strict=True):
        for block, values in zip(group, left, strict=True):
            if values is not None:
                out[block.array][block.start : block.stop] = values
        total = [add(total[0], part) if total else part]
    return total[0]
