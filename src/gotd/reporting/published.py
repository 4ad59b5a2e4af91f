"""Set the paper's numbers beside ours, each in its own row.

What was published is read from the transcription in ``results/paper`` and shown as printed;
what we measured comes from records. Neither ever fills a gap of the other.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gotd.reporting.cells import Block, display_factor
from gotd.reporting.render import Table
from gotd.reporting.statistics import t_interval
from gotd.reporting.tables import format_interval

COLUMNS = ("table", "block", "row", "column", "mean", "sd", "source_page_or_section")

TABLES_OF = {"glue": (4, 12), "domain": (2, 3), "toxicity": (1, 6, 7), "zeroshot": (16, 17, 18)}
ARM_OF = {
    "BERT_vanilla": "none",
    "GPT-2 base": "none",
    "GPT-2": "none",
    "GPT-2 XL": "none",
    "GPT-Neo 2.7B": "none",
    "RANDOM": "random",
    "DAPT": "random_in_domain",  # at the same budget, not the original's millions
    "DSIR": "dsir",
    "TAPT/c": "curated_tapt_duplicates",  # the published code keeps duplicates
    "RTP": "least_toxic",
    "GOT-D": "got_d",
    "GOT-D_clean": "got_d",
    "GOT-D_contrast": "got_d_contrast",
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

    Args:
        published: All published numbers.
        ours: Blocks of one experiment.
    """
    if not ours:
        return []
    experiment = ours[0].experiment.replace("_", "").replace("-", "")
    numbers = next((t for name, t in TABLES_OF.items() if experiment.startswith(name)), ())
    tables = []
    for number in numbers:
        entries = [entry for entry in published if entry.table == number]
        # Block "0" is the model before any pre-fine-tuning: it stands in every block.
        names = dict.fromkeys(entry.block for entry in entries if entry.block != "0")
        tables += [
            _beside([e for e in entries if e.block in (name, "0")], name, ours) for name in names
        ]
    return tables


def _beside(entries: Sequence[Published], name: str, ours: Sequence[Block]) -> Table:
    columns = tuple(dict.fromkeys(entry.column for entry in entries))
    tasks = {TASK_OF.get(column, "") for column in columns if column not in AVERAGES}
    rows = []
    base = {e.column: e for e in entries if ARM_OF.get(e.row) == "none"}
    for method in dict.fromkeys(entry.row for entry in entries):
        arm = ARM_OF.get(method, "")
        printed = {e.column: e for e in entries if e.row == method}
        rows.append((method, "published", *[_as_printed(printed.get(c)) for c in columns]))
        if arm != "none" and base:
            gains = [_printed_gain(printed.get(c), base.get(c)) for c in columns]
            rows.append((method, "published minus base", *gains))
        for block, setting in zip(ours, _settings(ours, arm), strict=True):
            if arm not in block.arms:
                continue
            cells = [_ours(block, arm, c, tasks) for c in columns]
            rows.append((method, f"ours: {arm}, {setting}", *cells))
            if arm != "none" and "none" in block.arms:
                gains = [_ours(block, arm, c, tasks, minus="none") for c in columns]
                rows.append((method, "ours minus none, paired", *gains))
    notes = (
        f"Published: {entries[0].place}; mean (s.d. over runs) as printed. Ours: mean ± "
        "half-width of the 95 % t-interval over seeds; empty where not measured, and the "
        "average empty unless our tasks are the published ones.",
        "Only at scale paper are data and models the published ones; at other scales compare "
        "the sign and order of differences, never levels.",
    )
    title = f"Published beside ours: table {entries[0].table}, {name}"
    words = frozenset({"method", "who"})
    # The arm without a selection is the same row at every budget.
    distinct = tuple(dict.fromkeys(rows))
    return Table(title, ("method", "who", *columns), distinct, words, notes)


def _settings(ours: Sequence[Block], arm: str) -> list[str]:
    """Name each block by its scale and by what sets it apart from the others."""
    names = dict.fromkeys(name for block in ours for name in block.axes)
    telling = [n for n in names if len({block.axes.get(n) for block in ours}) > 1]
    if arm == "none" and "budget" in telling:
        telling.remove("budget")
    return [
        ", ".join([f"scale {b.scale}", *(f"{n} {b.axes[n]}" for n in telling if n in b.axes)])
        for b in ours
    ]


def _as_printed(entry: Published | None) -> str:
    if entry is None:
        return ""
    return f"{entry.mean} ({entry.sd})" if entry.sd else entry.mean


def _printed_gain(entry: Published | None, base: Published | None) -> str:
    if entry is None or base is None:
        return ""
    digits = len(entry.mean.partition(".")[2])
    return f"{float(entry.mean) - float(base.mean):+.{digits}f}"


def _ours(block: Block, arm: str, column: str, tasks: set[str], minus: str = "") -> str:
    """Give our cell for a published column, or its paired difference to another arm.

    Args:
        block: Our records.
        arm: Our name of the method.
        column: The paper's name of the task.
        tasks: Tasks the published average runs over; ours is empty over any other set.
        minus: Arm to subtract seed by seed; none when empty.
    """
    scores = block.scores(arm)
    if minus:
        scores = scores - block.scores(minus)
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
