"""One self-contained HTML page: tables, figures, selected rows, failures, provenance.

It loads nothing from anywhere and runs nothing: figures are embedded as images, and a
content policy forbids scripts, should escaping ever fail.
"""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence

from gotd.reporting.cells import Block
from gotd.reporting.records import Record
from gotd.reporting.render import Section, Table, escape_html, to_html

SHOWN_ROWS = 5
SHOWN_CHARS = 240

_STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #6b6b70; --line: #dcdce0; --back: #fff;
  --head: #f5f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ea; --soft: #a0a0a6; --line: #3a3a3e; --back: #161618; --head: #222226; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  margin: 0 auto; max-width: 76rem; padding: 1.5rem; }
h1 { margin: 0 0 .3rem; } h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
h4 { margin: 1.6rem 0 .4rem; } a { color: inherit; }
.soft, .note { color: var(--soft); font-size: .85rem; } .note { margin: .3rem 0; }
.scroll { overflow-x: auto; } code { font-size: .85em; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { background: var(--head); text-align: left; } .n { text-align: right; white-space: nowrap; }
img { max-width: 100%; background: #fff; margin: 1rem 0; border-radius: 4px; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
"""


def to_page(
    title: str,
    sections: Sequence[Section],
    details: Sequence[Section],
    stamp: Sequence[str],
) -> str:
    """Write the page.

    Args:
        title: Heading.
        sections: Tables and figures in order.
        details: What is folded away at the end: selected rows, tests by task, cost, provenance.
        stamp: Command and fingerprint.
    """
    contents = "".join(
        f'<li><a href="#s{i}">{escape_html(section.title)}</a></li>'
        for i, section in enumerate(sections)
    )
    body = "\n".join(_section(i, section) for i, section in enumerate(sections))
    folded = "\n".join(
        f"<details><summary>{escape_html(f'{table.title} ({section.title})')}</summary>"
        f"{to_html(table)}</details>"
        for section in details
        for table in section.tables
    )
    head = "".join(f"<div><code>{escape_html(line)}</code></div>" for line in stamp)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape_html(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape_html(title)}</h1>
<div class="soft">{head}</div>
<ul>{contents}</ul>
{body}
<h2>Details</h2>
{folded}
</body>
</html>
"""


def _section(number: int, section: Section) -> str:
    heading = f'<h2 id="s{number}">{escape_html(section.title)}</h2>'
    images = [
        f'<img alt="{escape_html(picture.caption)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(picture.svg.encode()).decode()}">'
        for picture in section.pictures
    ]
    first, *rest = [to_html(table) for table in section.tables] or [""]
    return "\n".join([heading, first, *images, *rest])


def first_rows_table(block: Block) -> Table | None:
    """Show the first rows that each arm selected for each task; ``None`` without any.

    A selection report has ``first_rows``: objects with ``id``, ``domain`` and ``excerpt``.
    An excerpt is HTML-escaped already and is unescaped here, because every cell is escaped
    once, when it is rendered. The lowest seed is shown.
    """
    rows = []
    for task in block.tasks:
        for arm in block.arms:
            first = [s.get("first_rows") or [] for s in block.selections(arm, task)[:1]]
            for rank, row in enumerate(sum(first, [])[:SHOWN_ROWS], start=1):
                text = html.unescape(str(row.get("excerpt") or ""))
                shown = text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + " …"
                domain = str(row.get("domain") or "")
                rows.append((task, arm, str(rank), str(row.get("id", "")), domain, shown))
    if not rows:
        return None
    columns = ("task", "arm", "rank", "id", "domain", "text")
    return Table("First selected rows", columns, tuple(rows))


def provenance_table(records: Sequence[Record]) -> Table:
    """Count what the records were made with: versions, code, data, hardware.

    More than one line for one thing means the set mixes versions.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        hardware = (record["cost"].get("hardware") or {}).items()
        parts = {
            "version of ": record["versions"],
            "code: ": record["cost"].get("code") or {},
            "data: ": record["data"],
            "hardware: ": {name: value for name, value in hardware if value is not None},
        }
        for kind, values in parts.items():
            counts.update((f"{kind}{name}", str(value)) for name, value in values.items())
    rows = tuple((what, value[:200], str(n)) for (what, value), n in sorted(counts.items()))
    return Table("Provenance", ("what", "value", "records"), rows)
