"""Published statements and single numbers of which no table could be had, beside our records."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from gotd.reporting.render import Table


@dataclass(frozen=True)
class Claim:
    """A published number with the words around it; fields are the columns of the file.

    Args:
        experiments: Beginnings of the names of our experiments that it belongs to, with blanks
            between them.
        kind: ``claim`` of the authors, or ``independent``: measured by others.
        model: The model.
        setting: What was selected, and the size of the selection.
        row: The method, as the source names it.
        value: The number as printed.
        unit: What the number is.
        source: Where it stands, and whether that place was read.
    """

    experiments: str
    kind: str
    model: str
    setting: str
    row: str
    value: str
    unit: str
    source: str


def read_claims(folder: Path) -> list[Claim]:
    """Read every ``claims_*.csv`` of a folder; none is no error.

    Raises:
        ValueError: If a file has other columns or an empty field; names file and line.
    """
    names = [field.name for field in fields(Claim)]
    found = []
    for path in sorted(folder.glob("claims_*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != names:
                raise ValueError(f"{path}: the columns must be {', '.join(names)}")
            for line, row in enumerate(reader, start=2):
                empty = [name for name in names if not row.get(name)]
                if empty or None in row:
                    raise ValueError(f"{path}, line {line}: {(empty or ['a field'])[0]} is wrong")
                found.append(Claim(**row))
    return found


def claims_tables(claims: Sequence[Claim], experiment: str) -> list[Table]:
    """Build the table of the claims that belong to an experiment; none for no claim.

    No number of ours stands in it: models, pools and tasks differ, so only the order of methods
    can be compared.
    """
    own = [claim for claim in claims if experiment.startswith(tuple(claim.experiments.split()))]
    if not own:
        return []
    columns = ("kind", "model", "setting", "row", "value", "unit", "source")
    return [
        Table(
            "Published claims and independent numbers",
            columns,
            tuple(tuple(getattr(claim, name) for name in columns) for claim in own),
            (
                "As printed. The tables of the paper itself were not found. Our pools, models and "
                "tasks differ, so only the order of methods can be compared.",
            ),
        )
    ]
