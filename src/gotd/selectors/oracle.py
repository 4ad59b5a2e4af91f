"""A selection from domains that are known to be right, for the generated benchmark.

It is a yardstick, not a method: in real pools nobody knows which domain a target lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import READ_ID, Ranking, Selector
from gotd.selectors.random import draw
from gotd.storage.work import Work


@dataclass(frozen=True)
class Oracle(Selector):
    """A draw from the named domains, a fixed share of every prefix.

    Of the first ``p`` rows, ``ceil(share * p)`` are of ``domains`` and the others of
    ``fill``; both are random. With ``share=0.5`` this is the half oracle, which repeats
    what the model already knows. It is no upper bound: a task may need more than the
    under-covered domains.

    Args:
        domains: The domains that the target needs.
        fill: The domains of the remaining rows; empty when ``share`` is 1.
        share: Share of every prefix that comes from ``domains``, in (0, 1].
    """

    key_name: ClassVar[str] = "Oracle"
    name: ClassVar[str] = "oracle"
    requires: ClassVar[frozenset[str]] = frozenset({"domains"})
    reads_target: ClassVar[bool] = False

    domains: tuple[str, ...]
    fill: tuple[str, ...] = ()
    share: float = 1.0

    def __post_init__(self) -> None:
        # Lists become tuples, so that a frozen value cannot change.
        object.__setattr__(self, "domains", tuple(self.domains))
        object.__setattr__(self, "fill", tuple(self.fill))
        if not self.domains:
            raise ValueError("oracle: name at least one domain in `domains`")
        if not 0 < self.share <= 1:
            raise ValueError(f"oracle: share must be in (0, 1], not {self.share}")
        if (self.share < 1) != bool(self.fill):
            raise ValueError(
                f"oracle: give `fill` exactly when share is below 1 "
                f"(share={self.share}, fill={self.fill})"
            )
        both = set(self.domains) & set(self.fill)
        if both:
            raise ValueError(f"oracle: {sorted(both)[0]!r} is in both `domains` and `fill`")

    def compute_ranking(
        self, target: Rows, candidates: Sequence[Rows], limit: int, seed: int, engine: Engine
    ) -> Ranking:
        """Rank true and fill rows in turn; the score is the position.

        Raises:
            ValueError: If a domain is not in the pool, or the pool has too few
                rows of ``domains`` or ``fill`` for the budget.
        """
        # Rounded first, so that 0.56 * 25 counts as 14 and not as 14.000000000000002.
        held = np.ceil(np.round(self.share * np.arange(limit + 1), 9)).astype(np.int64)
        n_true, is_true = int(held[-1]), np.diff(held) == 1
        true_ids, _ = draw(candidates, self.domains, n_true, seed, self.name, engine)
        fill_ids, _ = draw(candidates, self.fill, limit - n_true, seed, self.name, engine)
        position = np.where(is_true, held[1:] - 1, n_true + np.arange(limit) - held[1:])
        ids = pa.concat_arrays([true_ids, fill_ids]).take(pa.array(position))
        return Ranking(ids, np.arange(limit, dtype=np.float64))

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of reading the ids."""
        return Work(texts=READ_ID * n_candidates)
