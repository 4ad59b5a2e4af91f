#!/usr/bin/env python3
"""Count lines of code: without blank lines, comments and docstrings.

python .ci/count_code.py                  # src, by package
python .ci/count_code.py --commit 26fb982 # the same of an earlier commit
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def count(source: str) -> int:
    """Return the number of lines that hold a token which is neither comment nor docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        # A string that stands alone documents what it stands under or after.
        alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if alone and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def files(commit: str | None, folder: str) -> dict[str, str]:
    """Return the Python sources below a folder by name, of the working tree or a commit."""
    listing = (
        ["git", "ls-files"] if commit is None else ["git", "ls-tree", "-r", "--name-only", commit]
    )
    names = subprocess.run(
        [*listing, *([] if commit is None else ["--"]), folder],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    found = {}
    for name in names:
        if name.endswith(".py"):
            if commit is None:
                found[name] = Path(name).read_text("utf-8")
            else:
                found[name] = subprocess.run(
                    ["git", "show", f"{commit}:{name}"], check=True, capture_output=True, text=True
                ).stdout
    return found


def main() -> None:
    """Print the count of each package and the total."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="src")
    parser.add_argument("--commit")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    for name, source in files(options.commit, options.folder).items():
        parts = name.split("/")
        counts["/".join(parts[: min(3, len(parts) - 1)])] += count(source)
    for package, lines in sorted(counts.items()):
        print(f"{lines:7,}  {package}")
    print(f"{sum(counts.values()):7,}  total")


if __name__ == "__main__":
    main()
