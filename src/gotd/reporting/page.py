"""The tables that only the page has: the first selected rows, and the provenance."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

from gotd.reporting.cells import Block
from gotd.reporting.records import Record
from gotd.reporting.render import Table

SHOWN_ROWS = 5
SHOWN_CHARS = 240


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
