"""A data set on the Hugging Face Hub as a stream of rows; its code is never run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gotd.data.base import SourceUnavailable
from gotd.data.hub.cache import recorded, remember
from gotd.data.readers import Columns, uniform

TRAIN = "train"
ROWS_AT_ONCE = 256
"""Rows of a piece; whole books are long."""
HUB_RECORD = "hub-revisions.json"
"""File in the store that keeps the commit of each data set."""


@dataclass(frozen=True)
class HubName:
    """A split of a data set.

    Args:
        dataset: ``namespace/name``.
        config: Its configuration, where it has several.
        split: Its split.
    """

    dataset: str
    config: str | None = None
    split: str = TRAIN


def parse_hub(name: str) -> HubName:
    """Read ``namespace/name[:config][:split]``; an empty config is none.

    Raises:
        ValueError: If it is not of this form.
    """
    dataset, *rest = name.split(":")
    form = r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.+-]*){0,2}"
    if not re.fullmatch(form, name):
        raise ValueError(
            f"{name!r} names no data set; write hub:namespace/name, hub:namespace/name:config "
            "or hub:namespace/name:config:split"
        )
    config, split = (*rest, "", "")[:2]
    return HubName(dataset, config or None, split or TRAIN)


@dataclass(frozen=True)
class HubRows:
    """The rows of one split, streamed.

    Args:
        name: Which split of which data set.
        columns: Which columns to read.
        record: JSON file that keeps the commit of each data set from its first use on, so
            that the same command gives the same rows.
    """

    name: HubName
    columns: Columns
    record: Path

    @property
    def label(self) -> str:
        """The data set's name, with what parts it: numbered ids begin with it."""
        split = "" if self.name.split == TRAIN else self.name.split
        parts = [self.name.dataset, self.name.config or "", split]
        return ":".join(parts).rstrip(":")

    def identity(self) -> dict[str, Any]:
        """Give data set, configuration, split and commit.

        Raises:
            SourceUnavailable: If the commit was never recorded and the Hub is out of reach.
        """
        return {
            "hub": self.name.dataset,
            "config": self.name.config,
            "split": self.name.split,
            "revision": self._revision(),
            **({"ids": self.label} if self.label != self.name.dataset else {}),
        }

    def pieces(self) -> Iterator[pa.Table]:
        """Yield tables of ``id``, ``text`` and ``domain``, in the data set's order.

        Raises:
            SourceUnavailable: If the Hub is out of reach, or has only a script.
            ValueError: If a column is missing or a value is no string.
        """
        import datasets

        revision = self._revision()
        try:
            rows = datasets.load_dataset(
                self.name.dataset,
                self.name.config,
                split=self.name.split,
                revision=revision,
                streaming=True,
            )
            batches = iter(rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE))
        except Exception as error:
            raise self._unavailable(error) from error
        first = 1
        while True:
            try:
                raw = next(batches, None)
            except Exception as error:
                raise self._unavailable(error) from error
            if raw is None:
                break
            where = f"{self.label} ({self.name.split})"
            short = self.name.dataset.rpartition("/")[2]
            yield uniform(raw, self.columns, where, self.label, short, first)
            first += raw.num_rows
        if first == 1:
            raise ValueError(f"the data set {self.label} has no rows in {self.name.split}")

    def _revision(self) -> str:
        dataset = self.name.dataset
        known = recorded(self.record).get(dataset)
        if known is not None:
            return known
        try:
            from huggingface_hub import HfApi

            newest = HfApi().dataset_info(dataset).sha
        except Exception as error:
            raise self._unavailable(error) from error
        if newest is None:
            raise SourceUnavailable(f"the Hub names no commit of {dataset}")
        return remember(self.record, dataset, newest)

    def _unavailable(self, error: Exception) -> SourceUnavailable:
        """Say in one line why there are no rows; what can go wrong has many names."""
        cause = " ".join(str(error).split())[:160] or "no reason given"
        if "script" in cause.lower():
            return SourceUnavailable(
                f"the data set {self.label} is made by a script, which is never run; "
                "download its files and name them"
            )
        return SourceUnavailable(
            f"the data set {self.label} cannot be had from the Hub "
            f"({type(error).__name__}: {cause}); check its name and the network, or "
            "download its files elsewhere and name them"
        )
