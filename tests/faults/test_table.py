"""The list of faults in docs/testing.md is complete, and each test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from fault_cases import NAMES
from fault_table import cases_in

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "testing.md"
ROW = re.compile(r"^\| ([ABC]\d+) \| (.+) \| (fixed before|fixed now|in part|open) \| (.*) \|$")
NUMBERS = [
    f"{kind}{n}" for kind, most in (("A", 20), ("B", 37), ("C", 29)) for n in range(1, most + 1)
]

ROWS = [match for line in PAGE.read_text("utf-8").splitlines() if (match := ROW.match(line))]


@cache
def names_in(path: Path) -> set[str]:
    """Return the names of the functions and methods of a file that pytest collects."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


MUTANTS = [
    match
    for line in PAGE.read_text("utf-8").splitlines()
    if (match := re.match(r"^\| M\d \| .+ \| `(.+)::(.+)` \|$", line))
]


def test_the_table_of_the_fault_suite_has_its_cases():
    assert cases_in(PAGE.read_text("utf-8")) == NAMES


def test_each_test_that_kills_a_mutant_exists():
    assert len(MUTANTS) == 7
    for row in MUTANTS:
        assert row[2] in names_in(TOP / row[1])


PROGRAMS = [
    match
    for line in PAGE.read_text("utf-8").splitlines()
    if (match := re.match(r"^\| `(\w+)` \| `(.+)::(.+)` \|$", line))
]


def test_each_program_of_the_review_is_a_test():
    assert len({row[1] for row in PROGRAMS}) == 12
    for row in PROGRAMS:
        assert row[3] in names_in(TOP / row[2])


def test_every_fault_has_one_row():
    assert [row[1] for row in ROWS] == NUMBERS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_its_test_exists(row):
    if row[3] == "open":
        assert not row[4].strip()
        return
    path, _, name = row[4].strip("` ").partition("::")
    assert name.startswith("test_")
    assert name in names_in(TOP / path)
