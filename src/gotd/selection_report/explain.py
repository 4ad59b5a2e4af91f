"""Which target does a chosen passage serve, and what does each target get?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gotd.data.rows import Rows
from gotd.transport import Geometry

ROWS_AT_ONCE = 1 << 22
"""Costs held at once, in float64: 32 MiB."""

STARVED_SHARE = 0.1

MOST_TARGETS = 10


@dataclass
class Explainer:
    """Attributes chosen rows to targets.

    With prices ``g`` from transport, a row's mass goes to target ``j`` in the share
    ``softmax_j (g_j - C_ij) / epsilon``, its row of the plan. Without, all of it goes to
    the nearest target. A row of zeros, which the encoder could not read, serves no target.

    Args:
        target: The target, with embeddings.
        geometry: What cost means.
        potential: ``[m]`` prices in cost units.
        epsilon: Absolute epsilon, with a potential.
    """

    target: Rows
    geometry: Geometry
    potential: np.ndarray | None = None
    epsilon: float = 1.0

    def __post_init__(self) -> None:
        rows = np.array(self.target.embeddings, dtype=np.float64)
        y = self.geometry.embed(torch.from_numpy(rows))
        # About a common origin: distances do not notice, rounding does.
        self._origin = y.mean(dim=0)
        self._y = y - self._origin
        self._bias = -self._y.square().sum(dim=1) / self.epsilon
        if self.potential is not None:
            self._bias += torch.from_numpy(np.array(self.potential)) / self.epsilon
        self.received = np.zeros(len(rows))
        self.first_of = np.zeros(len(rows), dtype=np.int64)

    def __call__(self, rows: np.ndarray) -> tuple[pa.Array, np.ndarray]:
        """Attribute rows and add them to what targets received.

        Args:
            rows: ``[n, d]`` embeddings.

        Returns:
            ``[n]`` id of the target that gets most of each row, and its share in (0, 1];
            null and 0 for a row of zeros.
        """
        readable = np.asarray(rows).any(axis=1)
        first, share = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows))
        first[readable], share[readable] = self._attribute(rows[readable])
        return self.target.ids.take(pa.array(first, mask=~readable)), share

    def _attribute(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the position of the target that gets most of each row, and its share."""
        first, share = np.empty(len(rows), dtype=np.int64), np.ones(len(rows))
        step = max(1, ROWS_AT_ONCE // len(self._y))
        for start in range(0, len(rows), step):
            here = slice(start, start + step)
            x = torch.from_numpy(np.array(rows[here], dtype=np.float64))
            x = self.geometry.embed(x) - self._origin
            z = x @ self._y.T * (2.0 / self.epsilon) + self._bias
            if self.potential is None:
                first[here] = z.argmax(dim=1).numpy()
                self.received += np.bincount(first[here], minlength=len(self._y))
                continue
            plan = torch.softmax(z, dim=1)
            best = plan.max(dim=1)
            first[here], share[here] = best.indices.numpy(), best.values.numpy()
            self.received += plan.sum(dim=0).numpy()
        self.first_of += np.bincount(first, minlength=len(self._y))
        return first, share

    def summary(self) -> dict[str, Any]:
        """Describe how the mass of the chosen rows spreads over the targets.

        Returns:
            ``targets``; ``effective_targets``, the exponential of the shares' entropy;
            ``starved_targets``, those that received under a tenth of an equal share; and
            ``largest``, those that received most, with ``target_id``, ``share``, ``rows`` and
            ``text``.
        """
        share = self.received / max(self.received.sum(), np.finfo(float).tiny)
        positive = share[share > 0]
        order = np.argsort(-share, kind="stable")[:MOST_TARGETS]
        return {
            "targets": len(share),
            "effective_targets": float(np.exp(-(positive * np.log(positive)).sum())),
            "starved_targets": int((share < STARVED_SHARE / len(share)).sum()),
            "largest": [
                {
                    "target_id": self.target.ids[int(j)].as_py(),
                    "share": float(share[j]),
                    "rows": int(self.first_of[j]),
                    "text": self.target.texts[int(j)].as_py()[:1000],
                }
                for j in order
            ],
        }
