"""Documents to chunks, the unit that is embedded and selected.

Texts of very different length are compared badly: the cost then measures length before
topic. So both sides are cut to one length (paper: 1,000 characters), or left as they are
(``unit: whole``) where their lengths already agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
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
    documents: Iterable[pa.Table],
    length_chars: int,
    separator: str = " ",
    min_chars: int = 0,
    on_dropped: Callable[[], None] = lambda: None,
) -> Iterator[pa.Table]:
    """Cut and join documents into chunks of at most ``length_chars`` characters.

    In the order given, short texts are joined with ``separator`` as long as they fit.
    Longer ones are first cut at the last white space before the limit (hard at the limit
    if a stretch has none). No text is lost but the white space at cuts and at the ends of
    documents; documents of white space alone give no chunk. Which texts meet in a chunk
    depends on their order and length only, never on the domain, which selection must not
    see.

    With ``min_chars``, a text that is shorter, such as the end of a cut document, is joined
    with the beginning of the next one, which is cut where the chunk is full. Of the rules
    that lose no text this one gives the most equal lengths. On 118,000 chunks of real passages
    (500 characters, at least 250) the standard deviation is .13 of the mean. It is .38 without
    a minimum, .18 where a document with a short end is cut evenly, and .24 where its last two
    pieces share their text. What has no next text to join is dropped: the last text of a part,
    or one before a word that does not fit.

    Args:
        documents: Tables with columns as in `gotd.data.base.SCHEMA`; domains may be null.
        length_chars: Most characters in a chunk.
        separator: Put between joined texts. Deviation D7: protocol=published passes "",
            as the paper's code joins sentences without a space and so glues words together.
        min_chars: Least characters in a chunk; 0: any.
        on_dropped: Called for each text that is dropped.

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
    chunks = _chunks(rows, length_chars, separator, min_chars, on_dropped)
    while batch := list(islice(chunks, ROWS_PER_PIECE)):
        yield pa.table([list(column) for column in zip(*batch, strict=True)], SCHEMA)


def _chunks(
    rows: Iterable[Row],
    length: int,
    separator: str,
    min_chars: int,
    on_dropped: Callable[[], None],
) -> Iterator[Row]:
    """Cut texts and join adjacent ones while they fit; a chunk has the id of its first piece."""
    texts: list[str] = []
    first: str = ""
    shared: str | None = None
    size = 0
    for name, text, domain in rows:
        room = length - size - len(separator)
        short = 0 < size < min_chars and room > 0
        for number, piece in enumerate(_pieces(text, length, room if short else length)):
            # Pieces of one text are not joined again: without a separator words would merge.
            if texts and number == 0 and size + len(separator) + len(piece) <= length:
                texts.append(piece)
                size += len(separator) + len(piece)
                shared = shared if shared == domain else MIXED
                continue
            if size >= max(1, min_chars):
                yield first, separator.join(texts), shared
            elif texts:
                on_dropped()
            texts, first, shared, size = [piece], f"{name}#{number}", domain, len(piece)
    if size >= max(1, min_chars):
        yield first, separator.join(texts), shared
    elif texts:
        on_dropped()


def _pieces(text: str, length: int, first: int) -> Iterator[str]:
    """Yield the pieces of a text, the first of at most ``first``, the others ``length``."""
    start = 0
    if first < length and (match := _piece(first).search(text)):
        yield match[0].rstrip()
        start = match.end()
    for match in _piece(length).finditer(text, start):
        yield match[0].rstrip()


@cache
def _piece(length: int) -> re.Pattern[str]:
    """Return the pattern of a piece, whose first character is the first that is visible."""
    # To the last white space or the end of the text within the limit, else up to the limit.
    most = length - 1
    return re.compile(rf"\S(?:.{{0,{most}}}(?!\S)|.{{{most}}})", re.DOTALL)
