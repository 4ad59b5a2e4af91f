"""Loss drop: the candidates that become likelier when the model learns the target.

The model that will be trained is first tuned on the target's texts alone. A candidate whose
loss falls is like the target in a way that this model has yet to learn. A text that is
merely simple has a low loss before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from gotd.data.rows import Rows
from gotd.engine.local import Engine
from gotd.selectors.base import Out, Scores, ScoringSelector, fill
from gotd.selectors.losses import mean_losses
from gotd.selectors.word_rows import LAST
from gotd.storage.work import Work


@dataclass(frozen=True)
class LossDrop(ScoringSelector):
    """Rank candidates by the loss of the tuned model minus that of the base, lowest first.

    Losses are means per predicted token, in nats, so the length of a text does not decide. A
    masked language model predicts the same tokens both times. A text without a token comes
    last. The seed has no effect.

    Args:
        losses: File of the losses under the base; a step writes it.
        tuned_losses: File of those under the base tuned on the target.

    Source: Brandfonbrener et al. (2024), CoLoR-Filter: conditional loss reduction filtering
    for targeted language model pre-training.
    """

    key_name: ClassVar[str] = "LossDrop"
    name: ClassVar[str] = "loss_drop"
    requires: ClassVar[frozenset[str]] = frozenset({"model", "losses", "tuned_losses"})
    weight: ClassVar[str] = (
        "importance weight of a mean token: its likelihood after learning the target over before"
    )
    weight_scale: ClassVar[float | None] = 1.0

    losses: Path | None = None
    tuned_losses: Path | None = None

    def compute_scores(
        self, target: Rows, candidates: Sequence[Rows], seed: int, engine: Engine, out: Out
    ) -> Scores:
        """Score by the change of the loss.

        Raises:
            ValueError: If a file of losses is missing, or lacks a candidate.
        """
        before = mean_losses(self.losses, candidates, self.name)
        after = mean_losses(self.tuned_losses, candidates, self.name)
        changes = [b - a for a, b in zip(before, after, strict=True)]
        known = np.concatenate([change[~np.isnan(change)] for change in changes])
        fill(out, (np.where(np.isnan(change), LAST, change) for change in changes))
        mean = float(known.mean()) if len(known) else None
        return Scores(out, {"mean_change_nats": mean})

    def work(self, n_candidates: int, n_targets: int, width: int, limit: int) -> Work:
        """Return the work of reading the losses; those of the model are other steps'."""
        return Work(texts=0.01 * n_candidates, memory_bytes=100 * n_candidates)
