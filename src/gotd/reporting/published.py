"""Set the paper's numbers beside ours, each in its own row.

What was published is read from the transcription in ``results/paper`` and shown as printed;
what we measured comes from records. Neither ever fills a gap of the other, and ours stands
beside a published row only where it was run at that row's setting.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gotd.reporting.cells import Block, display_factor
from gotd.reporting.render import Table
from gotd.reporting.statistics import t_interval
from gotd.reporting.tables import format_interval
from gotd.selectors.registry import arm_of

COLUMNS = ("table", "block", "row", "column", "mean", "sd", "source_page_or_section")

TABLES_OF = {"glue": (4, 12), "domain": (2, 3), "toxicity": (1, 6, 7), "zeroshot": (16, 17, 18)}
# Rows of Table 17 that tell embedding spaces apart: the embedder's name.
SPACE_OF = {
    "DistilBERT (target-tuned)": "distilbert",
    "sentence-transformer MiniLM-L6": "minilm",
    "BERT token space": "bert_tokens",
}
TASK_OF = {
    "CoLA": "cola",
    "MNLI": "mnli",
    "MRPC": "mrpc",
    "QQP": "qqp",
    "RTE": "rte",
    "SST-2": "sst2",
    "STS-B": "stsb",
    "QNLI": "qnli",
    "RCT": "rct",
    "ChemProt": "chemprot",
    "ACL-ARC": "acl_arc",
    "SciERC": "scierc",
    "HyperP.": "hyperpartisan",
    "AGNews": "agnews",
    "Helpf.": "helpfulness",
    "IMDB": "imdb",
    "AG News": "agnews",
    "BoolQ": "boolq",
}
AVERAGES = ("avg", "AVG")
TOXICITY = "toxicity"  # the one task of tables 1, 6 and 7
_BY_SCORES = {
    "EMT toxic": "expected_max_toxicity/toxic",
    "EMT nontoxic": "expected_max_toxicity/nontoxic",
    "TP toxic": "toxicity_probability/toxic",
    "TP nontoxic": "toxicity_probability/nontoxic",
}
# Columns that are no tasks but measures of one: the metric of our records, by table.
MEASURES_OF_TABLE = {
    1: {**_BY_SCORES, "OWTC PPL": "mean_text_perplexity", "utility acc": "utility_accuracy"},
    6: {column: f"second/{metric}" for column, metric in _BY_SCORES.items()},
    7: {
        "avg": "utility_accuracy",
        **{
            column: f"utility/{column.lower()}"
            for column in (
                *("ANLI", "BoolQ", "HellaSwag", "LAMBADA"),
                *("PIQA", "RACE", "WiC", "WinoGrande"),
            )
        },
    },
}
IN_PERCENT = (7,)  # tables of measures that are printed times 100
SCALE = "paper"  # the scale whose data and models are the published ones
# Budget and label limit of each fine-tuning block (None: all labels); elsewhere a block's
# name is its budget and there are no labels to limit.
SETTING_OF: dict[tuple[int, str], tuple[int, int | None]] = {
    (2, "150k"): (150_000, None),
    (3, "50k"): (50_000, 5_000),
    (4, "all"): (50_000, None),
    (4, "5k"): (50_000, 5_000),
    (12, "20k"): (20_000, 5_000),
}


@dataclass(frozen=True)
class Published:
    """One number as printed.

    Args:
        table: Number of the table in the paper.
        block: Budget or label setting within the table.
        row: Method as the paper names it.
        column: Task or metric as the paper names it.
        mean: The mean, as printed.
        sd: The standard deviation, as printed; empty where none is.
        place: Where in the paper.
    """

    table: int
    block: str
    row: str
    column: str
    mean: str
    sd: str
    place: str


@dataclass(frozen=True)
class Ours:
    """One row of our records with the setting it was run at.

    Args:
        block: Where the row stands.
        row: Its name in the block.
        budgets: Budgets of its records; empty for the arm that selects nothing.
        labels: Label limits of its records; ``None`` means all labels.
        spaces: Embedders of its records.
        named: Further axes that set blocks apart, in words.
    """

    block: Block
    row: str
    budgets: frozenset[int]
    labels: frozenset[int | None]
    spaces: frozenset[str]
    named: tuple[str, ...]

    @property
    def arm(self) -> str:
        """The arm without overrides."""
        return self.block.names[self.row][0]

    @property
    def setting(self) -> str:
        """The setting in words."""
        labels = ["all" if n is None else str(n) for n in sorted(self.labels, key=str)]
        parts = (
            f"scale {self.block.scale}",
            f"budget {_either(map(str, sorted(self.budgets))) if self.budgets else 'none'}",
            f"labels {_either(labels) if labels else 'not recorded'}",
            f"protocol {self.block.axes.get('protocol', 'not recorded')}",
        )
        return ", ".join((*parts, *self.named))

    def is_as(self, method: str) -> bool:
        """Whether every record is of a published method: its arm and, if told, its space."""
        space = SPACE_OF.get(method)
        same_space = space is None or self.spaces == {space}
        return self.arm == arm_of(method) and same_space

    def is_at(self, budget: int, labels: int | None) -> bool:
        """Whether every record was made at a published setting."""
        at_budget = self.arm == "none" or self.budgets == {budget}
        return self.block.scale == SCALE and at_budget and self.labels == {labels}

    def reference(self) -> str | None:
        """Name the row without a selection that saw as many labels, if there is one."""
        variants = (self.block.names[self.row][1], "")
        for variant in variants:
            for row, name in self.block.names.items():
                if name == ("none", variant) and _labels(self.block, row) == self.labels:
                    return row
        return None


def read_published(folder: Path) -> list[Published]:
    """Read every ``table_*.csv`` of a folder.

    Raises:
        FileNotFoundError: If the folder holds no table.
        ValueError: If a file lacks a column or a number cannot be read.
    """
    paths = sorted(folder.glob("table_*.csv"), key=lambda p: (len(p.name), p.name))
    if not paths:
        raise FileNotFoundError(f"{folder}: no table_*.csv with published numbers")
    found = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise ValueError(f"{path}: the columns must be {', '.join(COLUMNS)}")
            for line, row in enumerate(reader, start=2):
                try:
                    numbers = [float(row[name]) for name in ("mean", "sd") if row[name]]
                    table = int(row["table"])
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{path}, line {line}: not a number ({error})") from error
                if not numbers:
                    raise ValueError(f"{path}, line {line}: field 'mean' is empty")
                found.append(Published(table, *(row[name] for name in COLUMNS[1:])))
    return found


def published_tables(published: Sequence[Published], ours: Sequence[Block]) -> list[Table]:
    """Build one table per published block: the paper's rows, each with ours below it.

    Ours stands below a published row only at its scale, budget and label limit. What ran at
    another scale follows in rows that say so; generated worlds have nothing in common with
    the paper and are left out.

    Args:
        published: All published numbers.
        ours: Blocks of one experiment.
    """
    measured = _measured([block for block in ours if not block.seed_is_world])
    if not measured:
        return []
    experiment = ours[0].experiment.replace("_", "").replace("-", "")
    numbers = next((t for name, t in TABLES_OF.items() if experiment.startswith(name)), ())
    tables = []
    for number in numbers:
        entries = [entry for entry in published if entry.table == number]
        # Block "0" is the model before any pre-fine-tuning: it stands in every block.
        names = dict.fromkeys(entry.block for entry in entries if entry.block != "0")
        tables += [
            _beside([e for e in entries if e.block in (name, "0")], number, name, measured)
            for name in names
        ]
    return tables


def _measured(ours: Sequence[Block]) -> list[Ours]:
    """List our rows that hold a score, each with its setting."""
    shown = ("scale", "budget", "protocol", "variant")
    names = [n for n in dict.fromkeys(n for block in ours for n in block.axes) if n not in shown]
    telling = [n for n in names if len({block.axes.get(n) for block in ours}) > 1]
    found = []
    for block in ours:
        for row in block.arms:
            done = block.of(row)
            if not done:
                continue
            budgets = {r["axes"].get("budget") for r in done if r["selection"] is not None}
            variant = block.names[row][1] or block.axes.get("variant")
            # The model is no part of the scale's name, so an override must show.
            named = [f"{n} {block.axes[n]}" for n in ("model", *telling) if n in block.axes]
            named = list(dict.fromkeys(named + ([f"with {variant}"] if variant else [])))
            numbers = frozenset(b for b in budgets if b is not None)
            spaces = frozenset(
                str(config["embedder"]["name"])
                for config in (record["config"] for record in done)
                if config.get("embedder")
            )
            found.append(Ours(block, row, numbers, _labels(block, row), spaces, tuple(named)))
    return found


def _labels(block: Block, row: str) -> frozenset[int | None]:
    """Collect the label limits a row ran with; empty where a record does not tell."""
    limits = [record["config"].get("limits") or {} for record in block.of(row)]
    if not all("labels" in limit for limit in limits):
        return frozenset()
    return frozenset(limit["labels"] for limit in limits)


def _setting(number: int, name: str) -> tuple[int, int | None]:
    """Give budget and label limit of a published block.

    Raises:
        ValueError: If the block is not known and its name is no budget such as ``10k``.
    """
    if (number, name) in SETTING_OF:
        return SETTING_OF[number, name]
    thousands = name.removesuffix("k")
    if thousands == name or not thousands.isdigit():
        raise ValueError(
            f"published table {number}: block {name!r} must be a budget such as 10k, or stand "
            "in SETTING_OF"
        )
    return 1000 * int(thousands), None


def _beside(entries: Sequence[Published], number: int, name: str, ours: Sequence[Ours]) -> Table:
    columns = tuple(dict.fromkeys(entry.column for entry in entries))
    setting = _setting(number, name)
    rows = []
    base = {e.column: e for e in entries if arm_of(e.row) == "none"}
    methods = dict.fromkeys(entry.row for entry in entries)
    for method in methods:
        printed = {e.column: e for e in entries if e.row == method}
        rows.append((method, "published", *[_as_printed(printed.get(c)) for c in columns]))
        if arm_of(method) != "none" and base:
            gains = [_printed_gain(printed.get(c), base.get(c)) for c in columns]
            rows.append((method, "published minus base", *gains))
        at = [one for one in ours if one.is_as(method) and one.is_at(*setting)]
        rows += [row for one in at for row in _our_rows(number, method, one, columns, "ours")]
    for method in methods:
        away = [o for o in ours if o.is_as(method) and o.block.scale != SCALE]
        rows += [
            row
            for one in away
            for row in _our_rows(number, method, one, columns, "ours, not this setting")
        ]
    notes = (
        f"Published: {entries[0].place}; mean (s.d. over runs) as printed. Ours: mean ± "
        "half-width of the 95 % t-interval over seeds; empty where not measured, and the "
        "average empty unless our tasks are the published ones.",
        f"This block: budget {setting[0]}, labels {setting[1] or 'all'}. Ours stands beside a "
        f"published row only at scale {SCALE} with that budget and label limit. Rows marked "
        '"not this setting" ran with other data and models: compare the sign and order of '
        "differences, never levels.",
    )
    title = f"Published beside ours: table {number}, {name}"
    words = frozenset({"method", "who"})
    # The arm without a selection is the same row at every budget.
    distinct = tuple(dict.fromkeys(rows))
    return Table(title, ("method", "who", *columns), distinct, words, notes)


def _our_rows(
    number: int, method: str, one: Ours, columns: Sequence[str], who: str
) -> list[tuple[str, ...]]:
    """Write a row of ours and, where the arm without a selection ran too, the difference."""
    tasks = {TASK_OF.get(column, "") for column in columns if column not in AVERAGES}
    cells = [_ours(one.block, one.row, c, tasks, number) for c in columns]
    rows = [(method, f"{who}: {one.setting}", *cells)]
    reference = one.reference()
    if one.arm != "none" and reference is not None:
        gains = [_ours(one.block, one.row, c, tasks, number, minus=reference) for c in columns]
        rows.append((method, f"{who}, minus none, paired: {one.setting}", *gains))
    return rows


def _either(names: Iterable[str]) -> str:
    return " or ".join(names)


def _as_printed(entry: Published | None) -> str:
    if entry is None:
        return ""
    return f"{entry.mean} ({entry.sd})" if entry.sd else entry.mean


def _printed_gain(entry: Published | None, base: Published | None) -> str:
    if entry is None or base is None:
        return ""
    digits = len(entry.mean.partition(".")[2])
    return f"{float(entry.mean) - float(base.mean):+.{digits}f}"


def _ours(
    block: Block, arm: str, column: str, tasks: set[str], number: int, minus: str = ""
) -> str:
    """Give our cell for a published column, or its paired difference to another arm.

    Args:
        block: Our records.
        arm: Our row.
        column: The paper's name of the task.
        tasks: Tasks the published average runs over; ours is empty over any other set.
        number: Number of the published table.
        minus: Row to subtract seed by seed; none when empty.
    """
    measure = MEASURES_OF_TABLE.get(number, {}).get(column)
    scores = block.scores(arm, measure or "headline")
    if minus:
        scores = scores - block.scores(minus, measure or "headline")
    if measure is not None:
        interval = t_interval(scores[block.tasks.index(TOXICITY)])
        if interval.n == 0:
            return ""
        factor = 100.0 if number in IN_PERCENT else 1.0
        text = format_interval(interval, len(block.seeds), factor, 2)
        return f"+{text}" if minus and interval.mean >= 0 else text
    if column in AVERAGES:
        if not block.comparable or set(block.tasks) != tasks:
            return ""
        metric, values = block.metric, scores.mean(axis=0)
    else:
        task = TASK_OF.get(column, "")
        if task not in block.tasks:
            return ""
        metric, values = block.metric_name(task), scores[block.tasks.index(task)]
    interval = t_interval(values)
    if interval.n == 0:
        return ""
    factor = display_factor(metric)
    text = format_interval(interval, len(block.seeds), factor, 2)
    return f"+{text}" if minus and interval.mean >= 0 else text
