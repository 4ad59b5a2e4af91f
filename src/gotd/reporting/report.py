"""Turn records into a report: Markdown and LaTeX tables, SVG figures, one HTML page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table as RichTable

from gotd.reporting import comparison_tables, tables
from gotd.reporting.cells import Block, blocks
from gotd.reporting.drawing import to_svg
from gotd.reporting.figures import block_figures, budget_figure
from gotd.reporting.labels import labels_table
from gotd.reporting.page import first_rows_table, provenance_table, to_page
from gotd.reporting.published import Published, published_tables, read_published
from gotd.reporting.records import Record, fingerprint, merge
from gotd.reporting.render import (
    Section,
    Table,
    one_line,
    to_latex,
    to_markdown,
    to_terminal,
)
from gotd.reporting.selections import overlap_table, selections_table
from gotd.storage.files import write_text

# A path starts a word or a value; after a colon two slashes are a web address.
_ABSOLUTE = re.compile(r"""(?:(?<![^\s=,'"\[({])/+|(?<=:)/(?!/))[^\s,:'"\])}]*""")
CAPTIONS = {
    "scores": "Scores per arm and task",
    "differences": "Paired differences",
    "composition": "Domains of what was selected",
    "losses": "Pre-fine-tuning loss",
    "budgets": "Score by budget",
    "labels": "Score by labels",
}


@dataclass(frozen=True)
class Drawing:
    """A figure on its way to a file and to the page.

    Args:
        name: What sets its file apart from the experiment's other figures.
        kind: What it shows; a key of ``CAPTIONS``.
        block: Place of the section it stands in.
        svg: The figure.
    """

    name: str
    kind: str
    block: int
    svg: str


def write_report(
    records: Sequence[Record], out: Path, *, paper: Path | None, command: str
) -> list[Path]:
    """Write every table and figure that the records support, and a page that holds all.

    Below ``out``: ``tables/<experiment>`` with scores and comparisons, the same with
    ``_by_task``, ``_selections`` and ``_cost`` (only this one depends on more than the
    fingerprint), each as ``.md`` and ``.tex``; ``figures/<experiment>_…svg``;
    ``report.html``. Files of earlier reports that this one does not write stay.

    Args:
        records: Validated records, of one experiment or several, repeats allowed.
        out: Folder; made if absent.
        paper: Folder with the published tables; ``None`` leaves them out.
        command: What made the records; stands at the head of every file, without the places
            of this machine.

    Returns:
        The files written, tables first, the page last.

    Raises:
        ValueError: If there is no record, or two records claim one cell.
    """
    records = merge(records)
    if not records:
        raise ValueError("no records to report; run an experiment first")
    published = [] if paper is None else read_published(paper)
    stamp = (
        f"made by: {without_places(one_line(command))}",
        f"from {len(records)} records with fingerprint {fingerprint(records)}",
    )
    grouped: dict[str, list[Block]] = {}
    for block in blocks(records):
        grouped.setdefault(block.experiment, []).append(block)
    written, sections, images, details = [], [], [], []
    for experiment, members in grouped.items():
        name = _file_name(experiment)
        scores = _score_sections(members, published)
        by_task = [
            *_sections_of(comparison_tables.remaining_comparisons_table, members),
            *_sections_of(comparison_tables.task_comparisons_table, members),
        ]
        costs = _sections_of(tables.cost_table, members)
        chosen_rows = [
            *_sections_of(selections_table, members),
            *_sections_of(overlap_table, members),
        ]
        parts = {"": scores, "_by_task": by_task, "_selections": chosen_rows, "_cost": costs}
        for suffix, chosen in parts.items():
            if not chosen:
                continue
            heading = f"{experiment}{suffix.replace('_', ' ')}"
            md, tex = (out / "tables" / f"{name}{suffix}{kind}" for kind in (".md", ".tex"))
            written += [_write(md, to_markdown(heading, chosen, stamp))]
            written += [_write(tex, to_latex(heading, chosen, stamp))]
        drawn = _figures(members)
        written += [_write(out / "figures" / f"{name}_{one.name}.svg", one.svg) for one in drawn]
        sections += scores
        images += [
            [(CAPTIONS[one.kind], one.svg) for one in drawn if one.block == place]
            for place in range(len(scores))
        ]
        details += chosen_rows + _sections_of(first_rows_table, members) + by_task + costs
    details.append(Section("All records", (provenance_table(records),)))
    title = "Report: " + ", ".join(grouped)
    page = to_page(title, sections, images, details, stamp)
    written.append(_write(out / "report.html", page))
    return written


def without_places(command: str) -> str:
    """Shorten every absolute path of a command to its last component.

    Where a store lies moves no number and is nobody else's concern. Relative paths and
    web addresses stay.
    """
    return _ABSOLUTE.sub(lambda match: Path(match.group()).name or match.group(), command)


def console_table(records: Sequence[Record]) -> RichTable:
    """Build the scores of all blocks as one table for the terminal."""
    found = blocks(merge(records))
    return to_terminal([Section(_title(b), (tables.scores_table(b),)) for b in found])


def _title(block: Block) -> str:
    return f"{block.experiment}: {block.label}"


def _score_sections(members: Sequence[Block], published: Sequence[Published]) -> list[Section]:
    """Build one section per block and one of published numbers."""
    makers: tuple[Callable[[Block], Table | None], ...] = (
        tables.scores_table,
        labels_table,
        tables.aggregates_table,
        comparison_tables.average_comparisons_table,
        tables.domains_table,
        tables.other_metrics_table,
        tables.failed_table,
    )
    sections = []
    for block in members:
        built = tuple(table for make in makers if (table := make(block)) is not None)
        sections.append(Section(_title(block), built))
    if beside := published_tables(published, members):
        sections.append(Section(f"{members[0].experiment}: published numbers", tuple(beside)))
    return sections


def _sections_of(make: Callable[[Block], Table | None], members: Sequence[Block]) -> list[Section]:
    """Build one section per block for which there is such a table."""
    return [Section(_title(b), (table,)) for b in members if (table := make(b)) is not None]


def _figures(members: Sequence[Block]) -> list[Drawing]:
    """Draw what the blocks of an experiment support, one by one and against the budget."""
    drawn = []
    for place, block in enumerate(members):
        for kind, figure in block_figures(block).items():
            name = f"{place + 1}_{kind}" if len(members) > 1 else kind
            drawn.append(Drawing(name, kind, place, to_svg(figure)))
    series: dict[str, list[Block]] = {}
    for block in members:
        others = {n: v for n, v in block.axes.items() if n != "budget"}
        series.setdefault(f"{block.scale} {others}", []).append(block)
    curves = [(group, figure) for group in series.values() if (figure := budget_figure(group))]
    for number, (group, figure) in enumerate(curves, start=1):
        name = f"budgets_{number}" if len(curves) > 1 else "budgets"
        drawn.append(Drawing(name, "budgets", members.index(group[-1]), to_svg(figure)))
    return drawn


def _file_name(experiment: str) -> str:
    """Make an experiment's name safe as a file name; names made by people stay as they are."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", experiment).strip("._") or "experiment"


def _write(path: Path, text: str) -> Path:
    """Write a text file whole or not at all, also where two runs end at once."""
    write_text(path, text)
    return path
