"""Documents to chunks, the unit that is embedded and selected.

Texts of very different length are compared badly: the cost then measures length before
topic. So both sides are cut to one length (paper: 1,000 characters), or left as they are
(``unit: whole``) where their lengths already agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

import pyarrow as pa

from gotd.data.base import ROWS_PER_PIECE, SCHEMA

MIXED = "mixed"
"""Domain of a chunk whose documents come from more than one."""

Unit = Literal["whole", "fixed"]
"""Whether a chunk is a row as it was given, or rows that are cut and joined."""

Row = tuple[str, str, str | None]


def fixed_chunks(
    documents: Iterable[pa.Table], length_chars: int, separator: str = " "
) -> Iterator[pa.Table]:
    """Cut and join documents into chunks of at most ``length_chars`` characters.

    In the order given, short texts are joined with ``separator`` as long as they fit.
    Longer ones are first cut at the last white space before the limit (hard at the limit
    if a stretch has none). No text is lost but the white space at cuts and at the ends of
    documents; documents of white space alone give no chunk. Which texts meet in a chunk
    depends on their order and length only, never on the domain, which selection must not
    see.

    Args:
        documents: Tables with columns as in `gotd.data.base.SCHEMA`; domains may be null.
        length_chars: Most characters in a chunk.
        separator: Put between joined texts. Deviation D7: protocol=published passes "",
            as the paper's code joins sentences without a space and so glues words together.

    Yields:
        Tables of the same columns. The id of a chunk is ``<document id>#<n>`` after the
        piece it starts with, the n-th of its document; the domain is `MIXED` where
        documents differ in it.

    Source: GOT-D App. C; the published code joins without a separator.
    """
    rows = (
        row
        for table in documents
        for row in zip(*(table[name].to_pylist() for name in SCHEMA.names), strict=True)
    )
    chunks = _join(_pieces(rows, length_chars), length_chars, separator)
    while batch := list(islice(chunks, ROWS_PER_PIECE)):
        yield pa.table([list(column) for column in zip(*batch, strict=True)], SCHEMA)


def _pieces(rows: Iterable[Row], length: int) -> Iterator[tuple[int, Row]]:
    """Yield every document's pieces of at most ``length`` characters, numbered from 0."""
    # To the last white space or the end of the text within the limit, else up to the limit.
    most = length - 1
    piece = re.compile(rf"\S(?:.{{0,{most}}}(?!\S)|.{{{most}}})", re.DOTALL)
    for name, text, domain in rows:
        for number, match in enumerate(piece.finditer(text)):
            yield number, (f"{name}#{number}", match[0].rstrip(), domain)


def _join(pieces: Iterable[tuple[int, Row]], length: int, separator: str) -> Iterator[Row]:
    """Join adjacent texts while they fit; a chunk has the id of its first piece."""
    texts: list[str] = []
    first: str = ""
    shared: str | None = None
    size = 0
    for number, (name, text, domain) in pieces:
        # Pieces of one text are not joined again: without a separator words would merge.
        if texts and number == 0 and size + len(separator) + len(text) <= length:
            texts.append(text)
            size += len(separator) + len(text)
            shared = shared if shared == domain else MIXED
            continue
        if texts:
            yield first, separator.join(texts), shared
        texts, first, shared, size = [text], name, domain, len(text)
    if texts:
        yield first, separator.join(texts), shared
