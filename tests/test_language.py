"""The words of the code: docstrings begin with a verb of the field, one term per concept."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src" / "gotd"

VERBS = frozenset(  # noqa: SIM905
    [
        "Add",
        "Allocate",
        "Apply",
        "Assign",
        "Average",
        "Build",
        "Cache",
        "Call",
        "Check",
        "Choose",
        "Clip",
        "Close",
        "Collect",
        "Combine",
        "Compare",
        "Compile",
        "Compose",
        "Compute",
        "Configure",
        "Connect",
        "Convert",
        "Copy",
        "Count",
        "Create",
        "Cut",
        "Decode",
        "Deduplicate",
        "Define",
        "Delete",
        "Derive",
        "Describe",
        "Detect",
        "Distribute",
        "Divide",
        "Download",
        "Draw",
        "Drop",
        "Embed",
        "Encode",
        "Escape",
        "Estimate",
        "Evaluate",
        "Expand",
        "Export",
        "Extract",
        "Fetch",
        "Fill",
        "Filter",
        "Find",
        "Fit",
        "Flush",
        "Format",
        "Freeze",
        "Generate",
        "Group",
        "Handle",
        "Hash",
        "Hold",
        "Import",
        "Index",
        "Initialise",
        "Insert",
        "Interpolate",
        "Iterate",
        "Join",
        "Launch",
        "Limit",
        "List",
        "Load",
        "Lock",
        "Log",
        "Map",
        "Mark",
        "Mask",
        "Measure",
        "Merge",
        "Minimise",
        "Move",
        "Normalise",
        "Open",
        "Pad",
        "Parse",
        "Permute",
        "Plan",
        "Plot",
        "Predict",
        "Prepare",
        "Print",
        "Project",
        "Provide",
        "Prune",
        "Push",
        "Raise",
        "Rank",
        "Read",
        "Record",
        "Reduce",
        "Register",
        "Release",
        "Remove",
        "Rename",
        "Render",
        "Repeat",
        "Replace",
        "Report",
        "Resample",
        "Reset",
        "Resolve",
        "Restore",
        "Resume",
        "Return",
        "Round",
        "Run",
        "Sample",
        "Save",
        "Scale",
        "Score",
        "Search",
        "Seed",
        "Select",
        "Send",
        "Set",
        "Share",
        "Show",
        "Shuffle",
        "Skip",
        "Solve",
        "Sort",
        "Split",
        "Start",
        "Stop",
        "Store",
        "Stream",
        "Subtract",
        "Sum",
        "Take",
        "Test",
        "Tokenise",
        "Track",
        "Train",
        "Transform",
        "Translate",
        "Truncate",
        "Tune",
        "Update",
        "Upload",
        "Validate",
        "Verify",
        "View",
        "Wait",
        "Walk",
        "Warn",
        "Watch",
        "Weight",
        "Whiten",
        "Wrap",
        "Write",
        "Yield",
    ]
)
"""Verbs with which the docstring of a function may begin."""

SHARE = 0.95
WORDS_IN_FIRST_LINE = 25

OLD_NAMES = re.compile(
    r"\b(_chosen|drawn|decides|deciding|seal|sealed|Taken|Shard|kept_split|whole_target|WHOLE_TARGET)\b"
)
OLD_WORDS = re.compile(
    r"\b(rivals?|mend(?:s|ed|ing)?|sealed|the house|a room|hand(?:s|ed) in|stands? beside|"
    r"stood|brings?|brought)\b",
    re.IGNORECASE,
)


def packages() -> list[str]:
    return sorted({path.relative_to(SOURCES).parts[0] for path in SOURCES.rglob("*.py")})


def modules(package: str) -> list[Path]:
    place = SOURCES / package
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


def docstrings(module: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield place, first line and whether it is a function's, of every docstring."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                function = not isinstance(node, ast.ClassDef)
                yield f"{module.name}:{node.lineno}", text.split("\n")[0], function


def begins_well(line: str, function: bool) -> bool:
    """Return whether a first line begins as it should: verb, or noun phrase for a class."""
    word = re.match(r"\w+", line)
    if word is None:
        return False
    if function:
        return word.group() in VERBS or word.group() in ("Whether", "Number")
    return not re.match(r"(Gives?|Says?|Tells?|Makes?|Keeps?|Holds?|Takes?|Puts?)\b", line)


@pytest.mark.parametrize("package", packages())
def test_docstrings_begin_with_a_verb(package: str):
    found = [
        (where, line, begins_well(line, function))
        for module in modules(package)
        for where, line, function in docstrings(module)
        if not line.startswith(("``", "`"))
    ]
    bad = [f"{where} {line}" for where, line, good in found if not good]
    assert len(bad) <= (1 - SHARE) * len(found), "\n".join(bad)


@pytest.mark.parametrize("package", packages())
def test_first_lines_are_short(package: str):
    long = [
        f"{where} {line}"
        for module in modules(package)
        for where, line, _ in docstrings(module)
        if len(line.split()) > WORDS_IN_FIRST_LINE
    ]
    assert long == []


@pytest.mark.parametrize("package", packages())
def test_no_old_name_or_metaphor_is_left(package: str):
    bad = [
        f"{module.name}:{number} {line.strip()}"
        for module in modules(package)
        for number, line in enumerate(module.read_text("utf-8").splitlines(), 1)
        if OLD_NAMES.search(line) or OLD_WORDS.search(line)
    ]
    assert bad == [], "\n".join(bad)
