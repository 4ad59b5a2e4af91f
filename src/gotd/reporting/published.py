"""The paper's numbers and ours in one table, each in its own rows.

Published numbers are read from the transcription in ``results/paper`` and shown as printed;
ours come from records. Neither ever fills a gap of the other, and ours follow a published
row only if they were run at that row's setting.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gotd.reporting import paper
from gotd.reporting.cells import Block
from gotd.reporting.records import Record
from gotd.reporting.render import Table
from gotd.reporting.statistics import format_interval, t_interval
from gotd.selectors.registry import arm_of

COLUMNS = ("table", "block", "row", "column", "mean", "sd", "source_page_or_section")


@dataclass(frozen=True)
class Published:
    """A number as printed.

    Args:
        table: Number of the table in the paper.
        block: Budget or label setting within the table.
        row: Method as the paper names it.
        column: Task or metric as the paper names it.
        mean: The mean, as printed.
        sd: The standard deviation, as printed; empty where none is.
        source: Page or section of the paper.
    """

    table: int
    block: str
    row: str
    column: str
    mean: str
    sd: str
    source: str


@dataclass(frozen=True)
class Ours:
    """A row of our records with the setting it was run at.

    Args:
        block: The block that has the row.
        row: Its name in the block.
        named: Further axes that set blocks apart, in words.
    """

    block: Block
    row: str
    named: tuple[str, ...] = ()

    @cached_property
    def records(self) -> list[Record]:
        """Return its done records."""
        return self.block.of(self.row)

    @property
    def budgets(self) -> set[int]:
        """Return the budgets of its records; empty for the arm that selects nothing."""
        selecting = [record for record in self.records if record["selection"] is not None]
        return {record["axes"].get("budget") for record in selecting} - {None}

    @property
    def labels(self) -> set[int | None]:
        """Return its label limits, ``None`` for all labels; empty where a record has none."""
        limits = [record["config"].get("limits") or {} for record in self.records]
        are_known = all("labels" in limit for limit in limits)
        return {limit["labels"] for limit in limits} if are_known else set()

    @property
    def arm(self) -> str:
        """Return the arm without overrides."""
        return self.block.names[self.row][0]

    @property
    def setting(self) -> str:
        """Return the setting in words."""
        labels = ["all" if n is None else str(n) for n in sorted(self.labels, key=str)]
        parts = (
            f"scale {self.block.scale}",
            f"budget {' or '.join(map(str, sorted(self.budgets))) or 'none'}",
            f"labels {' or '.join(labels) or 'not recorded'}",
            f"protocol {self.block.axes.get('protocol', 'not recorded')}",
        )
        return ", ".join((*parts, *self.named))

    def is_as(self, method: str) -> bool:
        """Whether every record is of a published method: of its arm and, if any, its space."""
        embedders = [record["config"].get("embedder") for record in self.records]
        spaces = {str(embedder["name"]) for embedder in embedders if embedder}
        of_space = method not in paper.SPACE_OF or spaces == {paper.SPACE_OF[method]}
        return self.arm == arm_of(method) and of_space

    def is_at(self, budget: int, labels: int | None) -> bool:
        """Whether every record was made at a published setting."""
        at_budget = self.arm == "none" or self.budgets == {budget}
        return self.block.scale == paper.SCALE and at_budget and self.labels == {labels}

    def reference(self) -> str | None:
        """Return the row without a selection that saw as many labels, if there is one."""
        rows = {name: row for row, name in self.block.names.items()}
        own = (rows.get(("none", variant)) for variant in (self.block.names[self.row][1], ""))
        return next((r for r in own if r and Ours(self.block, r).labels == self.labels), None)

    def cells(self, number: int, columns: Sequence[str], minus: str = "") -> list[str]:
        """Return our cells for the columns of a published table.

        An average is empty unless our tasks are the published ones.

        Args:
            number: Number of the published table.
            columns: Tasks or metrics as the paper names them.
            minus: Row to subtract seed by seed; none when empty.
        """
        block = self.block
        tasks = {paper.TASK_OF.get(column, "") for column in {*columns} - {*paper.AVERAGES}}
        cells = []
        for column in columns:
            measure = paper.MEASURES_OF_TABLE.get(number, {}).get(column)
            task = paper.TOXICITY if measure else paper.TASK_OF.get(column, "")
            scores = block.scores(self.row, measure or "headline")
            if minus:
                scores = scores - block.scores(minus, measure or "headline")
            if task in block.tasks:
                values, factor = scores[block.tasks.index(task)], block.metric_of(task).factor
            elif column in paper.AVERAGES and block.comparable and set(block.tasks) == tasks:
                values, factor = scores.mean(axis=0), block.metric.factor
            else:
                values, factor = [], 1.0
            if measure:
                factor = 100.0 if number in paper.IN_PERCENT else 1.0
            interval = t_interval(values)
            text = format_interval(interval, len(block.seeds), factor, 2) if interval.n else ""
            cells.append(f"+{text}" if minus and interval.mean >= 0 else text)
        return cells


def read_published(folder: Path) -> list[Published]:
    """Read every ``table_*.csv`` of a folder.

    Raises:
        FileNotFoundError: If the folder holds no table.
        ValueError: If a file lacks a column or a number cannot be read.
    """
    paths = sorted(folder.glob("table_*.csv"), key=lambda p: (len(p.name), p.name))
    if not paths:
        raise FileNotFoundError(f"{folder}: no table_*.csv with published numbers")
    entries = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError(f"{path}: the columns must be {', '.join(COLUMNS)}")
            for line, row in enumerate(reader, start=2):
                try:
                    _ = float(row["mean"]), float(row["sd"] or 0)
                    entries.append(Published(int(row["table"]), *[row[n] for n in COLUMNS[1:]]))
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{path}, line {line}: not a number ({error})") from error
    return entries


def published_tables(published: Sequence[Published], ours: Sequence[Block]) -> list[Table]:
    """Build one table per published block: the paper's rows, each with ours below it.

    Ours are below a published row only at its scale, budget and label limit. Runs at another
    scale follow in rows marked as such; generated worlds have nothing in common with the
    paper and are left out.

    Args:
        published: All published numbers.
        ours: Blocks of one experiment.
    """
    measured = measured_rows([block for block in ours if not block.seed_is_world])
    if not measured:
        return []
    experiment = ours[0].experiment.replace("_", "").replace("-", "")
    numbers = next((t for name, t in paper.TABLES_OF.items() if experiment.startswith(name)), ())
    tables = []
    for number in numbers:
        entries = [entry for entry in published if entry.table == number]
        # Block "0" is the model before any pre-fine-tuning: a row of every block.
        names = dict.fromkeys(entry.block for entry in entries if entry.block != "0")
        tables += [
            _beside([e for e in entries if e.block in (name, "0")], number, name, measured)
            for name in names
        ]
    return tables


def measured_rows(ours: Sequence[Block]) -> list[Ours]:
    """Return our rows that have a score, each with its setting."""
    shown = ("scale", "budget", "protocol", "variant", "model")
    names = [n for n in dict.fromkeys(n for block in ours for n in block.axes) if n not in shown]
    differing = [n for n in names if len({block.axes.get(n) for block in ours}) > 1]
    rows = []
    for block in ours:
        # The model is no part of the scale's name, so an override must show.
        named = [f"{n} {block.axes[n]}" for n in ("model", *differing) if n in block.axes]
        for row in block.arms:
            variant = block.names[row][1] or block.axes.get("variant")
            one = Ours(block, row, (*named, *([f"with {variant}"] if variant else [])))
            if one.records:
                rows.append(one)
    return rows


def setting_of(number: int, name: str) -> tuple[int, int | None]:
    """Return budget and label limit of a published block.

    Raises:
        ValueError: If the block is not known and its name is no budget such as ``10k``.
    """
    if (number, name) in paper.SETTING_OF:
        return paper.SETTING_OF[number, name]
    thousands = name.removesuffix("k")
    if thousands == name or not thousands.isdigit():
        raise ValueError(
            f"published table {number}: block {name!r} must be a budget such as 10k, or be "
            "in SETTING_OF"
        )
    return 1000 * int(thousands), None


def _beside(entries: Sequence[Published], number: int, name: str, ours: Sequence[Ours]) -> Table:
    """Build the table of one published block."""
    columns = tuple(dict.fromkeys(entry.column for entry in entries))
    budget, labels = setting_of(number, name)
    printed: dict[str, dict[str, Published]] = defaultdict(dict)
    for entry in entries:
        printed[entry.row][entry.column] = entry
    base = next((of for method, of in printed.items() if arm_of(method) == "none"), None)
    rows = []
    for method, of in printed.items():
        rows.append((method, "published", *[_as_printed(of.get(c)) for c in columns]))
        if base is not None and base is not of:
            gains = [printed_gain(of.get(c), base.get(c)) for c in columns]
            rows.append((method, "published minus base", *gains))
        at = [one for one in ours if one.is_as(method) and one.is_at(budget, labels)]
        rows += _our_rows(number, method, at, columns, "ours")
    for method in printed:
        away = [one for one in ours if one.is_as(method) and one.block.scale != paper.SCALE]
        rows += _our_rows(number, method, away, columns, "ours, not this setting")
    notes = (
        f"Published: {entries[0].source}; mean (s.d. over runs) as printed. Ours: mean ± "
        "half-width of the 95 % t-interval over seeds; empty where not measured, and the "
        "average empty unless our tasks are the published ones.",
        f"This block: budget {budget}, labels {labels or 'all'}. Ours follow a published "
        f"row only at scale {paper.SCALE} with that budget and label limit. Rows marked "
        '"not this setting" ran with other data and models: compare the sign and order of '
        "differences, never levels.",
    )
    title = f"Published beside ours: table {number}, {name}"
    # The arm without a selection is the same row at every budget.
    distinct = tuple(dict.fromkeys(rows))
    return Table(title, ("method", "who", *columns), distinct, notes)


def _our_rows(
    number: int, method: str, ours: Sequence[Ours], columns: Sequence[str], who: str
) -> list[tuple[str, ...]]:
    """Build our rows, each with its difference to the arm without a selection if that ran."""
    rows = []
    for one in ours:
        rows.append((method, f"{who}: {one.setting}", *one.cells(number, columns)))
        reference = one.reference()
        if one.arm != "none" and reference is not None:
            gains = one.cells(number, columns, minus=reference)
            rows.append((method, f"{who}, minus none, paired: {one.setting}", *gains))
    return rows


def _as_printed(entry: Published | None) -> str:
    if entry is None:
        return ""
    return f"{entry.mean} ({entry.sd})" if entry.sd else entry.mean


def printed_gain(entry: Published | None, base: Published | None) -> str:
    """Return the printed number minus the printed base, with a sign; empty without both."""
    if entry is None or base is None:
        return ""
    digits = len(entry.mean.partition(".")[2])
    return f"{float(entry.mean) - float(base.mean):+.{digits}f}"
