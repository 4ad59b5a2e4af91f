"""Reports: Markdown and LaTeX tables, SVG figures and one HTML page, built from records."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table as RichTable

from gotd.reporting import comparisons, spaces, tables
from gotd.reporting.cells import Block, blocks
from gotd.reporting.claims import Claim, claims_tables, read_claims
from gotd.reporting.drawing import to_svg
from gotd.reporting.figures import block_figures
from gotd.reporting.leaderboard import leaderboard
from gotd.reporting.paper_rows import paper_table
from gotd.reporting.published import Published, published_tables, read_published
from gotd.reporting.records import Record, fingerprint, merge
from gotd.reporting.render import Picture, Section, Table, one_line, render, to_terminal
from gotd.reporting.selections import first_rows_table, overlap_table, selections_table
from gotd.reporting.sweeps import curve_figures, labels_table, sweep_tables, sweeps
from gotd.reporting.target_loss import loss_block, loss_figures, loss_tables
from gotd.storage.files import write_text

# A path starts a word or a value; after a colon two slashes are a web address.
_ABSOLUTE = re.compile(r"""(?:(?<![^\s=,'"\[({])/+|(?<=:)/(?!/))[^\s,:'"\])}]*""")
CAPTIONS = {
    "scores": "Scores per arm and task",
    "differences": "Paired differences",
    "composition": "Domains of what was selected",
    "losses": "Pre-fine-tuning loss",
    "budgets": "Score by budget",
    "target_loss": "Loss on held-out texts of the target",
    "target_loss_differences": "Paired differences of the target loss",
}

Maker = Callable[[Block], Table | None]
# The tables of a block that the main file of an experiment holds.
_MAIN: tuple[Maker, ...] = (
    tables.scores_table,
    tables.aggregates_table,
    comparisons.average_comparisons_table,
    tables.domains_table,
    tables.other_metrics_table,
    tables.failed_table,
)
# Tables in files of their own, folded away on the page, by the end of the file's name.
_DETAILS: dict[str, tuple[Maker, ...]] = {
    "_selections": (selections_table, overlap_table),
    "_by_task": (
        comparisons.remaining_comparisons_table,
        comparisons.task_comparisons_table,
    ),
    "_cost": (tables.cost_table,),
}


def write_report(
    records: Sequence[Record], out: Path, *, paper: Path | None, command: str
) -> list[Path]:
    """Write every table and figure that the records support, and a page that holds all.

    Below ``out``: ``tables/<experiment>`` with sweeps, scores and comparisons, the same with
    ``_by_task``, ``_selections`` and ``_cost``, each as ``.md`` and ``.tex``; ``tables/grid``
    with selectors by spaces; ``tables/paper`` with each row of the paper's tables;
    ``figures/<experiment>_…svg``; ``leaderboard.md`` from five selectors on; ``report.html``.
    Only costs depend on more than the fingerprint.
    Files of earlier reports that this one does not write stay.

    Args:
        records: Validated records, of one experiment or several, repeats allowed.
        out: Folder; made if absent.
        paper: Folder with the published tables; ``None`` leaves them out.
        command: What made the records; the first line of every file, without the paths
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
    claims = [] if paper is None else read_claims(paper)
    stamp = (
        f"made by: {without_places(one_line(command))}",
        f"from {len(records)} records with fingerprint {fingerprint(records)}",
    )
    experiments: dict[str, list[Block]] = defaultdict(list)
    apart, grids = spaces.split(records)
    every = blocks(apart)
    for block in every:
        experiments[block.experiment].append(block)
    texts: dict[Path, str] = {}
    sections, details = [], []
    for experiment, members in experiments.items():
        main = _main_sections(members, published, claims)
        files = {end: _sections(members, makers) for end, makers in _DETAILS.items()}
        texts |= _tables(experiment, {"": main, **files}, out / "tables", stamp)
        texts |= _figures(experiment, main, out / "figures")
        sections += main
        details += _sections(members, [first_rows_table]) + sum(files.values(), [])
    for name, made in _other_sections(grids, published, every).items():
        texts |= _tables(name, {"": made}, out / "tables", stamp)
        texts |= _figures(name, made, out / "figures")
        sections += made
    if ranked := leaderboard(every):
        texts[out / "leaderboard.md"] = render("tables.md", "Leaderboard", ranked, stamp=stamp)
    details.append(Section("All records", (tables.provenance_table(records),)))
    title, shown = "Report: " + ", ".join(experiments), ranked + sections
    texts[out / "report.html"] = render("page.html", title, shown, details=details, stamp=stamp)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def _other_sections(
    grids: Sequence[spaces.Grid], published: Sequence[Published], every: Sequence[Block]
) -> dict[str, list[Section]]:
    """Return the sections that are of no single experiment, by the names of their files."""
    others = {}
    if grids:
        others["grid"] = spaces.sections(grids)
    if published:
        table = paper_table(published, every)
        others["paper"] = [Section("GOT-D: published beside measured", (table,))]
    return others


def without_places(command: str) -> str:
    """Replace every absolute path of a command by its last component.

    The folder of a store changes no number, and it is private. Relative paths and web
    addresses are left as they are.
    """
    return _ABSOLUTE.sub(lambda match: Path(match.group()).name or match.group(), command)


def console_table(records: Sequence[Record]) -> RichTable:
    """Build the scores of all blocks, then all sweeps, as one table for the terminal."""
    apart, grids = spaces.split(merge(records))
    members = blocks(apart)
    scores = [Section(_title(b), (tables.scores_table(b),)) for b in members]
    swept = [(sweep.name, table) for sweep in sweeps(members) for table in sweep_tables(sweep)]
    swept_sections = [Section(f"{name}: {table.title}", (table,)) for name, table in swept]
    return to_terminal([*scores, *swept_sections, *spaces.sections(grids)])


def console_tests(records: Sequence[Record]) -> RichTable | None:
    """Build the registered comparisons of all blocks for the terminal; ``None`` without any."""
    sections = [
        Section(f"{_title(block)}: {table.title}", (table,))
        for block in blocks(spaces.split(merge(records))[0])
        if (table := comparisons.average_comparisons_table(block)) is not None
    ]
    return to_terminal(sections) if sections else None


def _title(block: Block) -> str:
    return f"{block.experiment}: {block.label}"


def _main_sections(
    members: Sequence[Block], published: Sequence[Published], claims: Sequence[Claim]
) -> list[Section]:
    """Build the sections of an experiment: sweeps, blocks, published numbers."""
    sections = []
    curves: Counter[str] = Counter()
    swept = [(sweep, curve_figures(sweep)) for sweep in sweeps(members)]
    several = Counter(kind for _, of in swept for kind in of)
    for sweep, of in swept:
        curves.update(list(of))
        names = {k: f"{k}_{curves[k]}" if several[k] > 1 else k for k in of}
        worth = labels_table(sweep)
        built = (*sweep_tables(sweep), *([worth] if worth else []))
        sections.append(Section(sweep.name, built, _pictures(of, names)))
    for number, block in enumerate(members, start=1):
        of = block_figures(block)
        names = {k: f"{number}_{k}" if len(members) > 1 else k for k in of}
        (section,) = _sections([block], _MAIN)
        sections.append(replace(section, pictures=_pictures(of, names)))
        if (losses := loss_block(block)) is not None:
            of = loss_figures(losses)
            names = {k: f"{number}_{k}" if len(members) > 1 else k for k in of}
            title = f"{_title(block)}: target loss"
            sections.append(Section(title, loss_tables(losses), _pictures(of, names)))
    if compared := published_tables(published, members):
        sections.append(Section(f"{members[0].experiment}: published numbers", tuple(compared)))
    experiment = members[0].experiment
    if claimed := claims_tables(claims, experiment):
        sections.append(Section(f"{experiment}: published claims", tuple(claimed)))
    return sections


def _pictures(figures: Mapping[str, Figure], names: Mapping[str, str]) -> tuple[Picture, ...]:
    return tuple(
        Picture(names[kind], CAPTIONS.get(kind, f"Score by {kind}"), to_svg(figure))
        for kind, figure in figures.items()
    )


def _sections(members: Sequence[Block], makers: Sequence[Maker]) -> list[Section]:
    """Build one section per block with the tables that it supports, if there are any."""
    built = [(b, tuple(t for make in makers if (t := make(b)) is not None)) for b in members]
    return [Section(_title(block), of) for block, of in built if of]


def _tables(
    experiment: str, files: Mapping[str, Sequence[Section]], out: Path, stamp: Sequence[str]
) -> dict[Path, str]:
    """Render the tables of an experiment as Markdown and LaTeX; empty files are left out."""
    texts = {}
    for end, sections in files.items():
        heading = f"{experiment}{end.replace('_', ' ')}"
        for suffix in ("md", "tex") if sections else ():
            path = out / f"{_file_name(experiment)}{end}.{suffix}"
            texts[path] = render(f"tables.{suffix}", heading, sections, stamp=stamp)
    return texts


def _figures(experiment: str, sections: Sequence[Section], out: Path) -> dict[Path, str]:
    """Return the figures of an experiment by their files."""
    pictures = (picture for section in sections for picture in section.pictures)
    return {out / f"{_file_name(experiment)}_{p.name}.svg": p.svg for p in pictures}


def _file_name(experiment: str) -> str:
    """Convert an experiment's name to a file name; letters, digits and ``._-`` stay."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", experiment).strip("._") or "experiment"
