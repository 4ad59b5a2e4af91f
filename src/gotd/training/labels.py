"""Labelled rows of a task, validated and tokenised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from gotd.training.data import TokenRows, read_task_rows, tokenise


@dataclass(frozen=True)
class LabelledRows:
    """Tokenised task rows and their labels.

    Args:
        rows: The texts or pairs.
        labels: ``[n]`` int64 classes or float32 scores.
    """

    rows: TokenRows
    labels: np.ndarray

    def digest(self) -> str:
        """Return a hash of tokens and labels."""
        return self.rows.digest() + blake2b(self.labels.tobytes(), digest_size=16).hexdigest()


def read_labels(table: pa.Table, name: str, classes: int, regression: bool) -> np.ndarray:
    """Return ``[n]`` labels: int64 classes, or float32 scores.

    Raises:
        ValueError: If a label is missing, not finite, or no class in [0, classes).
    """
    if "label" not in table.column_names or table["label"].null_count:
        raise ValueError(f"the {name} rows need a label each, in the column 'label'")
    labels = table["label"].to_numpy().astype(np.float64)
    if regression:
        bad = ~np.isfinite(labels)
    else:
        bad = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if bad.any():
        row = int(np.argmax(bad))
        expected = "a finite score" if regression else f"a class in 0..{classes - 1}"
        raise ValueError(
            f"{name} row {row} has the label {labels[row]}, not {expected} "
            f"({int(bad.sum())} such rows); unlabelled test rows cannot be used"
        )
    return labels.astype(np.float32 if regression else np.int64)


@dataclass(frozen=True)
class LabelledTask:
    """Rows of a task to learn, and how predictions of its labels are scored.

    Args:
        train: Normalised task rows: ``text``, ``text_pair`` (null for single texts),
            ``label`` (class index or score).
        validation: Rows scored after each epoch; required by ``choose=best_epoch``.
        classes: Classes; not read for a regression.
        regression: Whether labels are scores.
        score: Maps (predictions, labels) to a number; higher is better.
    """

    train: pa.Table
    validation: pa.Table | None
    classes: int
    regression: bool
    score: Callable[[np.ndarray, np.ndarray], float]

    def __post_init__(self) -> None:
        if not self.regression and self.classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, not {self.classes}")

    @property
    def outputs(self) -> int:
        """Return the outputs of the network: one per class, or the score."""
        return 1 if self.regression else self.classes

    def read(
        self, split: str, tokenizer: PreTrainedTokenizerBase, max_length_tokens: int
    ) -> LabelledRows:
        """Validate and tokenise the rows of ``train`` or ``validation``."""
        table = getattr(self, split)
        texts, pairs = read_task_rows(table, split)
        rows = tokenise(tokenizer, texts, pairs, max_length_tokens)
        return LabelledRows(rows, read_labels(table, split, self.classes, self.regression))
