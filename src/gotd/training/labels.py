"""Labelled rows of a task, validated and tokenised."""

from __future__ import annotations

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
        are_pairs: Whether every row has a second text.
    """

    rows: TokenRows
    labels: np.ndarray
    are_pairs: bool

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


def read_labelled(
    table: pa.Table,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length_tokens: int,
    classes: int,
    regression: bool,
) -> LabelledRows:
    """Validate and tokenise labelled task rows; errors call them ``name``."""
    texts, pairs = read_task_rows(table, name)
    rows = tokenise(tokenizer, texts, pairs, max_length_tokens)
    return LabelledRows(rows, read_labels(table, name, classes, regression), pairs is not None)
