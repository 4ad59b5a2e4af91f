"""The rows of a part that become rows of a pool: filtered, and cut into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gotd.config.schemas import Chunking
from gotd.data.chunking import fixed_chunks

Tables = Iterable[pa.Table]

INVISIBLE = "".join(
    chr(code)
    for first, last in (
        *(
            (0x0, 0x20),
            (0x7F, 0xA0),
            (0xAD, 0xAD),
            (0x34F, 0x34F),
            (0x61C, 0x61C),
            (0x1680, 0x1680),
        ),
        *((0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2000, 0x200F)),
        *((0x2028, 0x202F), (0x205F, 0x206F), (0x2800, 0x2800), (0x3000, 0x3000)),
        *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0)),
        *((0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
    )
    for code in range(first, last + 1)
)
"""White space, and what Unicode shows as nothing: Default_Ignorable, Cf, fillers."""


class Cutter:
    """Cuts the rows of a part into chunks, and counts those that are left out.

    Args:
        chunking: See `gotd.data.pool.write_pool`.
        separator: Put between the texts that ``fixed`` joins.

    Attributes:
        blank: Rows without a visible character so far.
        short: Texts that are too short so far.
    """

    def __init__(self, chunking: Chunking, separator: str = " ") -> None:
        self.chunking, self._separator = chunking, separator
        self.blank = self.short = 0

    def cut(self, pieces: Tables) -> Tables:
        """Return the chunks of a part, in tables; whole rows come as they are."""
        if self.chunking.unit != "fixed":
            return self._long_enough(self._visible(pieces))
        return fixed_chunks(
            self._visible(pieces),
            length_chars=self.chunking.length_chars,
            separator=self._separator,
            min_chars=self.chunking.min_chars,
            on_dropped=self._count_short,
        )

    def _visible(self, pieces: Tables) -> Iterator[pa.Table]:
        """Filter out blank rows and count them."""
        for table in pieces:
            visible = table.filter(pc.not_equal(visible_ends(table["text"]), ""))
            self.blank += table.num_rows - visible.num_rows
            yield visible

    def _long_enough(self, pieces: Tables) -> Iterator[pa.Table]:
        """Filter out rows that are too short and count them."""
        for table in pieces:
            if least := self.chunking.min_chars:
                lengths = pc.utf8_length(pc.utf8_trim_whitespace(table["text"]))
                kept = table.filter(pc.greater_equal(lengths, least))
                self.short += table.num_rows - kept.num_rows
                table = kept
            yield table

    def _count_short(self) -> None:
        self.short += 1


def visible_ends(texts: Any) -> Any:
    """Return texts without what shows nothing at their ends: white space, or invisible signs."""
    return pc.utf8_trim(pc.utf8_trim_whitespace(texts), INVISIBLE)
