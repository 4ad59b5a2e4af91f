"""Data sets on the Hub that replace the paper's data, as ``corpora.yaml`` lists them.

The paper's seven domains (App. C.1.2) are named as it names them; several of its copies
are gone or would run code on loading; each replacement is a numbered deviation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

_FACTS = yaml.safe_load(Path(__file__).with_name("corpora.yaml").read_text("utf-8"))

SUITES: Mapping[str, Mapping[str, Mapping[str, int]]] = _FACTS["suites"]
"""Published rows of each split with public labels, by suite and task."""
GLUE = "nyu-mll/glue"
DATASETS: Mapping[str, str] = _FACTS["datasets"]
"""Data set of each zero-shot task of the paper (App. E) and of toxicity (§3.1)."""
COPIES: Mapping[str, Mapping[str, str]] = _FACTS["copies"]
"""Data sets with a copy of each domain task, the first choice first, and their file names."""

BATCH_ROWS = 1000


@dataclass(frozen=True)
class Corpus:
    """One candidate corpus on the hub; all are read from their ``train`` split.

    Args:
        dataset: Data set id, ``namespace/name``.
        columns: Columns whose texts, joined by a line break, make a document.
        licence: What its page states.
        config: Its configuration, where it has several.
        files: Files inside the repository to read if the id leads to a loading script.
    """

    dataset: str
    columns: Sequence[str]
    licence: str
    config: str | None = None
    files: str | None = None

    def texts(self, rows: Iterable[dict[str, Any]], domain: str) -> Iterator[str]:
        """Yield the text of each row that has one.

        Raises:
            ValueError: If a column is missing.
        """
        for row in rows:
            missing = [column for column in self.columns if column not in row]
            if missing:
                raise ValueError(
                    f"{self.dataset} ({domain}) has no column {missing[0]!r}; it has "
                    f"{', '.join(row)}: pin a revision that has it"
                )
            text = "\n".join(str(row[column]) for column in self.columns if row[column]).strip()
            if text:
                yield text


CORPORA = {domain: Corpus(**fields) for domain, fields in _FACTS["corpora"].items()}
"""The paper's seven domains in its order; no loading scripts, all can be streamed."""


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
