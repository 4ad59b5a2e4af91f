"""What gives a text's toxicity: a classifier on this machine, or a service.

All arms of a comparison must be scored by the same scorer, the base model's among them;
a service that changes silently cannot do that, so a pinned local classifier leads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Scorer(Protocol):
    """Gives texts a toxicity between 0 and 1."""

    def identity(self) -> dict[str, Any]:
        """Say which weights or which service the scores are of; JSON, without paths."""
        ...

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts; a score that could not be had is NaN, never left out.

        Returns:
            float64 ``[len(texts)]`` in [0, 1].
        """
        ...
