"""How many rows and tokens to expect, before anything is read.

What a source does not know, nor a configuration state, is assumed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq

from gotd.config.schemas import Chunking
from gotd.data.base import Source

UNKNOWN_ROWS = 10_000
"""Rows of a split, or of a pool, whose number a source does not know."""
ROW_BYTES = 300
"""Bytes of a row in a file of lines."""
CHARS_PER_TOKEN = 4.5
DOCUMENT_TOKENS = 64
"""Tokens of a document that is not cut (``unit: whole``)."""
PASSAGE_TOKENS = 1_000 / CHARS_PER_TOKEN
"""Tokens of a passage of real text."""
GENERATED_TASK_TOKENS, OTHER_TASK_TOKENS = 14, 40
"""Tokens of a labelled text or pair, in the generated benchmark (measured) and in GLUE."""
TASK_TOKENS: Mapping[str, int] = {
    **{"chemprot": 71, "acl_arc": 54, "hyperpartisan": 721},
    **{"agnews": 53, "helpfulness": 197, "imdb": 297},
    **{"gap_biomedical": 190, "gap_cs_papers": 190, "gap_math": 190},
}
"""Tokens of a text of a task, by BERT's tokeniser: of labelled texts measured on train, of
passages by their characters."""


def expected_rows(source: Source, role: str, most: int | None = None) -> int:
    """Return how many rows a role of a source has, at most ``most``; see `Source.count`."""
    rows = source.count(role) or UNKNOWN_ROWS
    return min(rows, most or rows)


def expected_chunks(source: Source, chunking: Chunking) -> int:
    """Return how many chunks the candidates of a source make."""
    rows = expected_rows(source, "candidates")
    if source.name != "hub" or chunking.unit == "whole":
        return rows
    return rows * 1_000 // chunking.length_chars  # the Hub counts a row for 1,000 characters


def task_tokens(source: Source, task: str) -> float:
    """Return how many tokens a labelled text, or pair, of a task has."""
    counted = getattr(source, "text_tokens", None)  # a source of files that are read anyway
    if counted is not None:
        return counted
    return GENERATED_TASK_TOKENS if source.generated else TASK_TOKENS.get(task, OTHER_TASK_TOKENS)


def chunk_tokens(chunking: Chunking) -> float:
    """Return how many tokens a chunk has."""
    whole = chunking.unit == "whole"
    return DOCUMENT_TOKENS if whole else chunking.length_chars / CHARS_PER_TOKEN


def row_tokens(source: Source, chunking: Chunking) -> float:
    """Return how many tokens a chunk of a source has, counted where it knows that."""
    counted = getattr(source, "row_tokens", None) if chunking.unit == "whole" else None
    return counted or chunk_tokens(chunking)


@cache
def count_rows(path: Path) -> int:
    """Return the rows of a Parquet file, and by its size about those of another file."""
    if path.name.endswith(".parquet"):
        return pq.read_metadata(path).num_rows
    return max(1, path.stat().st_size // ROW_BYTES)
