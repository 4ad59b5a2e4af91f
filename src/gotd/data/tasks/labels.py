"""Labels of a classification task: numbers as they are, or names and other numbers mapped.

A model needs the classes 0 to n - 1. Strings, booleans and other whole numbers are mapped to
them in the order of the values of the train split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Mapped = Mapping[Any, int]
"""Class by label."""


def find_mapping(labels: pa.ChunkedArray, classes: int, where: str) -> Mapped | None:
    """Return the class of each label of the train split; ``None``: they are classes already.

    Args:
        labels: The labels of the train split, of any type.
        classes: Number of classes of the task.
        where: What to call the rows in an error.

    Raises:
        ValueError: If labels that are no numbers have more values than there are classes.
    """
    kind = labels.type
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (numbers or _is_string(kind) or pa.types.is_boolean(kind)):
        return None
    if pa.types.is_dictionary(kind):
        labels = labels.cast(kind.value_type)
    values = sorted(value for value in pc.unique(labels).to_pylist() if value is not None)
    if numbers:
        whole = all(float(value).is_integer() for value in values)
        if not whole or len(values) != classes or values == list(range(classes)):
            return None
        return {int(value): number for number, value in enumerate(values)}
    if len(values) > classes:
        shown = ", ".join(map(repr, values[:10])) + (", …" if len(values) > 10 else "")
        raise ValueError(
            f"{where}: column 'label' holds {len(values)} different labels ({shown}), but the "
            f"task has {classes} classes; set its classes, or repair the rows"
        )
    return {value: number for number, value in enumerate(values)}


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def map_labels(labels: pa.ChunkedArray, mapped: Mapped, where: str) -> np.ndarray:
    """Return the class of each label: float64 ``[n]``.

    Args:
        labels: Labels of any split.
        mapped: Class by label, of the train split.
        where: What to call the rows in an error.

    Raises:
        ValueError: If a label is missing, or the train split does not have it; names the row.
    """
    values = [mapped.get(value) for value in labels.to_pylist()]
    if None in values:
        row = values.index(None)
        known = ", ".join(repr(value) for value in list(mapped)[:10])
        raise ValueError(
            f"{where} row {row + 1}: label {labels[row].as_py()!r} is none of the labels of the "
            f"train split, {known} ({values.count(None)} such rows); repair or drop the row"
        )
    return np.array(values, dtype=np.float64)
