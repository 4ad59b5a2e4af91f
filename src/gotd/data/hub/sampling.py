"""Sample full documents from a stream of rows until there is enough text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from gotd.data.hub.corpora import Corpus

BATCH_ROWS = 1000


def texts_of(rows: Iterable[dict[str, Any]], domain: str, corpus: Corpus) -> Iterator[str]:
    """Yield the text of each row that has one.

    Raises:
        ValueError: If a column is missing.
    """
    for row in rows:
        missing = [column for column in corpus.columns if column not in row]
        if missing:
            raise ValueError(
                f"{corpus.dataset} ({domain}) has no column {missing[0]!r}; it has "
                f"{', '.join(row)}: pin a revision that has it"
            )
        text = "\n".join(str(row[column]) for column in corpus.columns if row[column]).strip()
        if text:
            yield text


def sample_documents(
    texts: Iterator[str], domain: str, parts: Mapping[str, int]
) -> Iterator[pa.Table]:
    """Yield tables of full documents, part after part, until each holds its characters.

    Ids number the documents in order, so the documents of a smaller sample with the same
    seed are the first of a larger one.

    Args:
        texts: The documents, in the order of the sample.
        domain: Their domain, with which ids begin.
        parts: Characters of each part, by the name of the setting that says so.

    Raises:
        ValueError: If the corpus ends before that.
    """
    rows = 0
    for setting, chars in parts.items():
        sampled = 0
        while sampled < chars:
            batch = []
            while sampled < chars and len(batch) < BATCH_ROWS and (text := next(texts, None)):
                batch.append(text)
                sampled += len(text)
            if not batch:
                raise ValueError(
                    f"domain {domain} ends after {sampled:,} characters in {rows:,} documents; "
                    f"set {setting} to that or less (it is {chars:,})"
                )
            ids = [f"{domain}/{rows + i}" for i in range(len(batch))]
            rows += len(batch)
            yield pa.table({"id": ids, "text": batch, "domain": pa.repeat(domain, len(batch))})
