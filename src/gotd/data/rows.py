"""Rows as selectors see them: ids, texts, domains and embeddings, in memory or on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gotd.storage.memmap import open_array


@dataclass(frozen=True)
class Rows:
    """Rows that are scored together, one entry per row in each field.

    Rows that were opened from files hold memory maps and pickle as the files' paths, slices
    with their first and last row.

    Args:
        ids: ``[n]`` unique row ids.
        texts: ``[n]`` the rows' texts.
        domains: ``[n]`` the rows' domains, where known.
        embeddings: ``[n, d]`` float32, may be a memory map; ``None`` for arms
            that read only texts.
    """

    ids: pa.Array
    texts: pa.Array
    domains: pa.Array | None = None
    embeddings: np.ndarray | None = None
    # Not a constructor's argument: `dataclasses.replace` must not pass it on.
    _files: tuple[Path, Path | None, int, int] | None = field(
        init=False, repr=False, compare=False, default=None
    )

    def __post_init__(self) -> None:
        for name in ("texts", "domains", "embeddings"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.ids):
                raise ValueError(f"{name} has {len(rows)} rows for {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls) -> Rows:
        """Return no rows."""
        return cls(pa.array([], pa.string()), pa.array([], pa.string()))

    def __reduce__(self) -> Any:
        if self._files is not None:
            return Rows.open, self._files
        return Rows, (self.ids, self.texts, self.domains, self.embeddings)

    @classmethod
    def open(
        cls, rows: Path, embeddings: Path | None = None, start: int = 0, stop: int | None = None
    ) -> Rows:
        """Map the files of a shard; nothing is read before it is needed.

        Args:
            rows: Arrow file of one batch, uncompressed, with columns ``id``, ``text``
                and ``domain``.
            embeddings: ``.npy`` file of float32 ``[n, d]``.
            start: First row.
            stop: Row after the last one; ``None``: all.

        Raises:
            ValueError: If the file is damaged; names it.
        """
        try:
            with pa.memory_map(str(rows)) as source:
                batch = pa.ipc.open_file(source).get_batch(0)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{rows} cannot be read ({' '.join(str(error).split())[:120]}): it is damaged, or "
                f"was changed while it was used; delete {rows.parent} and run again"
            ) from error
        shard = cls(
            ids=batch["id"],
            texts=batch["text"],
            domains=batch["domain"],
            embeddings=None if embeddings is None else open_array(embeddings),
        )
        object.__setattr__(shard, "_files", (rows, embeddings, 0, len(shard)))
        return shard if (start, stop) in ((0, None), (0, len(shard))) else shard.slice(start, stop)

    def slice(self, start: int, stop: int | None = None) -> Rows:
        """Return the rows from ``start`` up to ``stop``, without copying."""
        start, stop, _ = slice(start, stop).indices(len(self))
        part = self._map(lambda column: column[start:stop])
        if self._files is not None:
            rows, embeddings, first, _ = self._files
            object.__setattr__(part, "_files", (rows, embeddings, first + start, first + stop))
        return part

    def take(self, rows: np.ndarray) -> Rows:
        """Return some rows; a slice where they are adjacent.

        Args:
            rows: ``[k]`` int64 positions, in any order.
        """
        if len(rows) and (np.diff(rows) == 1).all():
            return self.slice(int(rows[0]), int(rows[-1]) + 1)
        indices = pa.array(rows)
        return self._map(lambda c: c[rows] if isinstance(c, np.ndarray) else c.take(indices))

    def _map(self, choose: Callable[[Any], Any]) -> Rows:
        """Return rows with a function applied to every field that is not ``None``."""
        columns = (self.ids, self.texts, self.domains, self.embeddings)
        return Rows(*(None if column is None else choose(column) for column in columns))
