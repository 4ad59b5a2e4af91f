"""Scorers of the toxicity of texts: classifiers on this machine, or a service.

All arms of a comparison must be scored by the same scorer. A service may change without
notice, so a pinned local classifier is the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Scorer(Protocol):
    """Function from texts to toxicity between 0 and 1."""

    def identity(self) -> dict[str, Any]:
        """Return what identifies the weights or the service, as JSON without paths."""
        ...

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts; a score that could not be computed is NaN, never left out.

        Returns:
            float64 ``[len(texts)]`` in [0, 1].
        """
        ...
