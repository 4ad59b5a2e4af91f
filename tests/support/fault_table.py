"""Print the table of the fault suite from the lines that its tests wrote.

``python tests/support/fault_table.py build/faults.jsonl [PAGE]`` also writes it into a page.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from fault_cases import NAMES

BEGIN, END = "<!-- fault suite: begin -->", "<!-- fault suite: end -->"
HEAD = "| Case | Operations | Tried | Passed |\n|---|---:|---:|---:|\n"


def table(lines: list[str]) -> str:
    """Return the Markdown table; a case that did not run has dashes."""
    rows = {row["case"]: row for row in map(json.loads, lines)}
    keys = ("operations", "tried", "passed")
    return HEAD + "".join(
        f"| {name} | {' | '.join(str(rows.get(name, {}).get(key, '-')) for key in keys)} |\n"
        for name in NAMES
    )


def cases_in(page: str) -> list[str]:
    """Return the cases that a page's table names."""
    inside = page.partition(BEGIN)[2].partition(END)[0]
    return re.findall(r"^\| (\w+, [^|]+?) \|", inside, re.MULTILINE)


def main(results: str, page: str = "") -> None:
    """Print the table, and put it between the marks of a page."""
    path = Path(results)
    text = table(path.read_text("utf-8").splitlines() if path.is_file() else [])
    print(text)
    if page:
        before, _, rest = Path(page).read_text("utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        Path(page).write_text(f"{before}{BEGIN}\n{text}{END}{after}", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
