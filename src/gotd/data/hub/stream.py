"""A data set on the Hugging Face Hub as a part: rows that are streamed."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from gotd.data.columns import Columns
from gotd.data.hub.access import HubAccess
from gotd.data.row_shapes import SHAPES_VERSION
from gotd.data.uniform import rows_of, uniform_tables

log = logging.getLogger(__name__)

TRAIN = "train"
ROWS_AT_ONCE = 256
"""Rows of a piece; full books are long."""
HUB_RECORD = "hub-revisions.json"
"""File in the store that records the commit of each data set."""
REMEDY = (
    "check its name and the network, or download its files elsewhere and give their paths instead"
)


def parse_hub(name: str) -> tuple[str, str | None, str]:
    """Parse ``namespace/name[:config][:split]``; an empty config is none.

    Returns:
        Data set, configuration and split.

    Raises:
        ValueError: If it is not of this form.
    """
    form = r"(\w[\w.-]*(?:/\w[\w.-]*)?)(?::([\w.+-]*))?(?::([\w.+-]*))?"
    match = re.fullmatch(form, name)
    if match is None:
        raise ValueError(
            f"{name!r} names no data set; write hub:namespace/name, hub:namespace/name:config "
            "or hub:namespace/name:config:split"
        )
    return match[1], match[2] or None, match[3] or TRAIN


@dataclass(frozen=True)
class HubRows:
    """The rows of one split, streamed.

    Args:
        dataset: ``namespace/name``.
        config: Its configuration, where it has several.
        split: Its split.
        columns: Which columns to read.
        record: JSON file with the commit of each data set (`HubAccess`).
    """

    dataset: str
    config: str | None
    split: str
    columns: Columns
    record: Path

    @property
    def label(self) -> str:
        """Return the name of data set, configuration and split; numbered ids begin with it."""
        split = "" if self.split == TRAIN else self.split
        return ":".join([self.dataset, self.config or "", split]).rstrip(":")

    def identity(self) -> dict[str, Any]:
        """Return data set, configuration, split and commit, and a version if rows may have turns.

        Raises:
            SourceUnavailable: If the commit was never recorded and the Hub is out of reach.
        """
        return {
            "hub": self.dataset,
            "config": self.config,
            "split": self.split,
            "revision": self._access.revision(self.dataset, self._what),
            **({"ids": self.label} if self.label != self.dataset else {}),
            # Which shape its rows have is not known before they are read.
            **({"shape_version": SHAPES_VERSION} if self.columns.may_have_turns else {}),
        }

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``, in the data set's order.

        Raises:
            SourceUnavailable: If the Hub is out of reach, or has only a script.
            ValueError: If a column is missing or a value is no string.
        """
        where, domain = f"{self.label} ({self.split})", self.dataset.rpartition("/")[2]
        pieces = self.originals()
        first = next(pieces, None)
        if first is None:
            raise ValueError(f"{self._what} has no rows in {self.split}")
        shape = self.columns.shape(first.column_names, lambda: rows_of(first, where), where)
        log.info("%s: %s", self.label, shape.description)
        yield from uniform_tables(
            chain([first], pieces), self.columns, shape, where, self.label, domain
        )

    def originals(self) -> Iterator[pa.Table]:
        """Yield all columns of the rows, in the data set's order.

        Raises:
            SourceUnavailable: If the Hub is out of reach, or has only a script.
        """
        access, what = self._access, self._what
        source = {"split": self.split, "revision": access.revision(self.dataset, what)}
        rows = access.load(what, self.dataset, self.config, **source, streaming=True)
        batches = iter(rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE))
        yield from access.each(what, batches)

    @property
    def _access(self) -> HubAccess:
        return HubAccess(self.record, REMEDY)

    @property
    def _what(self) -> str:
        return f"the data set {self.label}"
