"""A target of two halves without labels: of a domain that the base knows, and of one it lacks.

It is the paper's Figure 3: a target of cats and dogs, and a pool that is nearly all cats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from gotd.config.schemas import TaskLimits
from gotd.data.base import Source
from gotd.data.sizes import expected_rows
from gotd.storage.keys import identity, source_identity

HALVES = ("covered", "missing")


class DomainTexts(Protocol):
    """A source that has texts of single domains outside its pool and pre-training text."""

    def texts_of(self, domain: str, role: str) -> pa.Table:
        """Return ``id``, ``text`` and ``domain``; the role is ``target`` or ``evaluation``."""
        ...


@dataclass(frozen=True)
class TargetOfHalves:
    """Texts to select for, and others to measure the loss on, half of each domain.

    How many there are is a matter of the source, which draws them.

    Args:
        name: Name in the record.
        missing: Domain that the base hardly knows.
        covered: Domain that the base knows.

    Raises:
        ValueError: If both domains are the same.
    """

    key_name: ClassVar[str] = "TargetOfHalves"
    rows_kind: ClassVar[str] = "halves"
    table_names: ClassVar[tuple[str, ...]] = ("train", "held_out")

    name: str
    missing: str
    covered: str = "movie_reviews"

    def __post_init__(self) -> None:
        if self.missing == self.covered:
            raise ValueError(
                f"task {self.name}: covered and missing are both {self.missing!r}; name two domains"
            )

    def tables(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, pa.Table]:
        """Return the target and the texts to evaluate on, the covered half first.

        Raises:
            FileNotFoundError: If the source lacks a domain; lists those it has.
            ValueError: If it has too few texts of one, or draws no texts of single domains.
        """
        texts = {role: self._texts(source, role) for role in ("target", "evaluation")}
        pair = pa.nulls(texts["target"].num_rows, pa.string())
        return {
            "train": texts["target"].drop_columns("part").append_column("text_pair", pair),
            "held_out": texts["evaluation"],
        }

    def _texts(self, source: Any, role: str) -> pa.Table:
        """Return the texts of both halves, with the column ``part``."""
        halves = []
        for half in HALVES:
            texts = source.texts_of(getattr(self, half), role)
            part = pa.array([half] * texts.num_rows, pa.string())
            halves.append(texts.append_column("part", part))
        return pa.concat_tables(halves)

    def held_out_texts(self, rows: Path) -> pa.Table:
        """Read the texts to evaluate on; the part is ``covered`` or ``missing``."""
        return pq.read_table(rows / "held_out.parquet", columns=["id", "text", "part"])

    def count_rows(self, source: Source, limits: TaskLimits, protocol: str) -> tuple[int, int]:
        """Return the expected texts of the target, and those to evaluate on."""
        target, evaluated = (expected_rows(source, role) for role in ("target", "evaluation"))
        return len(HALVES) * target, len(HALVES) * evaluated

    def key_fields(
        self, source: Source, limits: TaskLimits, protocol: str, seed: int
    ) -> dict[str, Any]:
        """Return what `tables` depends on: the source's draw, not on limits, protocol or seed.

        Raises:
            ValueError: If the source draws no texts of single domains.
        """
        if not hasattr(source, "texts_of"):
            raise ValueError(
                f"task {self.name} needs a source of a known mix, not {source.name}; use "
                "source=mix or source=microworld"
            )
        return {"source": source_identity(source, "target"), "task": identity(self)}
