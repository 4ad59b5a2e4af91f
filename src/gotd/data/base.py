"""Where rows come from: generated, read from a folder, or fetched from the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


class SourceUnavailable(FileNotFoundError):  # noqa: N818 - says a state, not a mistake
    """Rows are neither on this machine nor to be had from where they are published."""


class Source(Protocol):
    """Tasks with labels, candidates to select from, and what both depend on.

    Every source hands out plain tables, so that nothing behind it knows whether the
    rows were generated, read from files or fetched. A source is deterministic: equal
    `identity` means equal bytes.
    """

    name: ClassVar[str]
    """Short name for records: ``microworld``, ``folder`` or ``hub``."""

    @property
    def under_covered(self) -> list[str]:
        """Domains that the pool holds too little of, where that is known; else empty."""
        ...

    def identity(self) -> dict[str, Any]:
        """Say everything that changes the bytes: checksums, revisions, parameters.

        JSON-able, and free of paths and of anything about this machine.
        """
        ...

    def tasks(self) -> list[str]:
        """Name the tasks that `split` knows, sorted."""
        ...

    def split(self, task: str, split: str) -> pa.Table:
        """Give one split of a task, raw: the columns of ``nyu-mll/glue``.

        A ``domain`` column (string) stands beside them where the truth is known.

        Raises:
            FileNotFoundError: If there is no such task or split; lists what there is.
        """
        ...

    def candidates(self) -> pa.Table:
        """Give the documents to select from.

        Returns:
            String columns ``id`` (unique), ``text`` and ``domain``.
        """
        ...

    def pretraining(self) -> pa.Table:
        """Give the documents a base model is pre-trained on, disjoint from `candidates`.

        They are the paper's D_P, and known exactly here. Columns as in `candidates`.

        Raises:
            ValueError: If this source has none, because its base models come pre-trained.
        """
        ...

    def held_out(self) -> pa.Table:
        """Give text of the pool's kind that no model is trained on, for perplexity.

        Columns as in `candidates`.
        """
        ...
