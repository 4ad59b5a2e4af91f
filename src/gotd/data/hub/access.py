"""Requests to the Hugging Face Hub: data sets at a recorded commit; their code is never run.

Rows that were fetched are cached as Parquet files, each with the recipe it was made by.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.data.base import SourceUnavailable
from gotd.storage.files import atomic_write
from gotd.storage.hub_record import recorded, remember
from gotd.storage.hub_requests import TIMEOUT_S, asked, cause_of

log = logging.getLogger(__name__)

RECIPE = b"gotd.recipe"


class SourceAbsent(SourceUnavailable):  # noqa: N818 - a state, not a mistake
    """Rows that the Hub does not have, or does not give to us."""


@dataclass(frozen=True)
class HubAccess:
    """Data sets on the Hub, and the errors of requests for them.

    Args:
        record: JSON file that records the commit of each data set at its first use, so
            that the same command reads the same rows from then on.
        remedy: What to do where the Hub is out of reach; ends the error message.
        pinned: Commits by data set id that take precedence over the record.
    """

    record: Path
    remedy: str
    pinned: Mapping[str, str] = field(default_factory=dict)

    def revision(self, dataset: str, what: str) -> str:
        """Return the commit of a data set to read: pinned, recorded, or else the newest.

        Raises:
            SourceUnavailable: If the commit was never recorded and the Hub is out of reach.
            ValueError: If the record is damaged.
        """
        known = self.known().get(dataset)
        if known is not None:
            return known
        with self._reaching(what):
            from huggingface_hub import HfApi

            log.info("asking the Hub for the newest commit of %s", dataset)
            info = partial(HfApi().dataset_info, dataset, timeout=TIMEOUT_S)
            newest = asked(info, what).sha
        if newest is None:
            raise SourceUnavailable(f"the Hub has no commit of {dataset}; pin one")
        return remember(self.record, dataset, newest)

    def known(self) -> dict[str, str]:
        """Return the commits that are pinned or recorded, by data set."""
        return {**recorded(self.record), **self.pinned}

    def load(self, what: str, *where: str | None, **options: Any) -> Any:
        """Load a data set by `datasets.load_dataset`.

        Args:
            what: What is loaded, for the error message.
            where: Id or format of the data set, and its configuration.
            options: More arguments of `datasets.load_dataset`.

        Raises:
            SourceUnavailable: If it cannot be loaded.
        """
        import datasets

        # Row counts are checked here; those of a card may be stale.
        options = {"verification_mode": "no_checks", **options}
        with self._reaching(what):
            # Not before: a test may put another one in its place.
            load = partial(datasets.load_dataset, *where, **options)  # type: ignore[arg-type]
            return asked(load, what)

    def each(self, what: str, rows: Iterator[Any]) -> Iterator[Any]:
        """Yield what a stream yields.

        Raises:
            SourceUnavailable: If the stream breaks.
        """
        with self._reaching(what):
            yield from rows

    @contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        """Raise whatever goes wrong in a request as one line; the causes have many classes."""
        try:
            yield
        except Exception as error:
            cause = " ".join(str(error).split())[:200] or "no reason given"
            kind, remedy = cause_of(error), self.remedy
            if kind == "disk":
                raise OSError(
                    f"{what} cannot be kept on this disk ({cause}); free some space and run the "
                    "same command again"
                ) from error
            if kind == "temporary":
                remedy = "the Hub did not answer; run the same command again later"
            if "script" in cause.lower():
                remedy = "it is made by a script, which is never run: download its files"
            unavailable = SourceAbsent if kind == "absent" else SourceUnavailable
            raise unavailable(
                f"{what} cannot be read from the Hub ({type(error).__name__}: {cause}); {remedy}"
            ) from error


def from_files(dataset: str, revision: str, split: str, file: str) -> tuple[str, dict[str, Any]]:
    """Return format and options with which `HubAccess.load` reads plain files of a data set.

    Args:
        dataset: Id of the data set.
        revision: Its commit.
        split: What to call the split.
        file: File or pattern inside the repository.
    """
    options: dict[str, Any] = {
        "data_files": {split: f"hf://datasets/{dataset}@{revision}/{file}"},
        "split": split,
    }
    if file.endswith(".csv"):
        # A text may be the word "null".
        return "csv", {**options, "keep_default_na": False}
    return ("parquet" if file.endswith(".parquet") else "json"), options


def is_cached(path: Path, recipe: dict[str, Any]) -> bool:
    """Return whether a file holds what a recipe (data set, revision, sampling) describes."""
    return cached_recipe(path) == recipe


def cached_recipe(path: Path) -> dict[str, Any] | None:
    """Return the recipe of a file; ``None`` if there is none."""
    if not path.is_file():
        return None
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(RECIPE, b"null"))


def write_cached(
    path: Path, recipe: dict[str, Any], schema: pa.Schema, tables: Iterable[pa.Table]
) -> None:
    """Write a Parquet file atomically, its recipe inside."""
    schema = schema.with_metadata({RECIPE: json.dumps(recipe).encode()})
    with atomic_write(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table.cast(schema))
