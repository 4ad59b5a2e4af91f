"""Numbers in README and results/README are those of the tables that they link to.

A number is a link whose title names the cell: `[79.7](tables/glue.md "micro; got_d; average")`
is the cell of the row `got_d` and the column `average` under headings that contain `micro`.
Several words are divided by `/`, and those after a `-` are in no heading. The address ends with
the anchor of the section, so that a click shows the table.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGES = (TOP / "README.md", TOP / "results" / "README.md")
LINK = re.compile(r'\[([^\]]+)\]\(([^)\s]+\.md)(?:#([^)\s]*))? "([^"]+)"\)')
NUMBER = re.compile(r"[+-]?\d*\.?\d+(?:e[+-]\d+)?")
DECIMAL = re.compile(r"(?<![\w./-])[+-]?\d*\.\d+(?![\w.]|-\d)")
CLAIMING = ("What was measured", "Claims", "Experiments")
"""Sections in which every number with a decimal point is such a link."""

Cell = tuple[str, list[str], str, str]
"""Headings above, cells of the row, name of the column, and the cell."""


def cells(page: str) -> Iterator[Cell]:
    """Yield every cell of every table of a Markdown page."""
    headings: list[str] = []
    columns: list[str] | None = None
    for line in page.splitlines():
        if found := re.match(r"(#+) (.*)", line):
            headings = [*headings[: len(found[1]) - 1], found[2]]
        if not line.startswith("|"):
            columns = None
            continue
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if columns is None:
            columns = row
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in row):
            for column, cell in zip(columns, row, strict=True):
                yield " / ".join(headings), row, column, cell


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text.replace("−", "-"))


def agree(said: str, measured: str) -> bool:
    """Whether a number in a text is one of a table, rounded to the digits of the text."""
    digits = len(said.partition(".")[2])
    return abs(float(said) - float(measured)) <= 0.5 * 10**-digits + 1e-9


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def check(text: str, title: str, page: str) -> str:
    """Raise if a link's text is not the cell that its title names.

    Returns:
        The anchor of the section that has the cell.
    """
    section, row, column = (part.strip() for part in title.split(";"))
    words = [word.strip() for word in section.split("/")]
    names = [name.strip() for name in row.split(",")]
    found = [
        (cell, headings.split(" / ")[1])
        for headings, own, name, cell in cells(page)
        if name == column
        and own[: len(names)] == names
        and all((word.lstrip("-") in headings) != word.startswith("-") for word in words)
    ]
    assert len(found) == 1, f"{title!r} names {len(found)} cells"
    ((cell, heading),) = found
    said, measured = numbers(text), numbers(cell)
    assert said, f"{text!r} holds no number"
    assert len(measured) >= len(said), f"{title!r}: the cell holds {cell!r}"
    for one, other in zip(said, measured, strict=False):
        assert agree(one, other), f"{title!r}: {text!r} for {cell!r}"
    return anchor(heading)


def links(page: Path) -> list[tuple[str, str, str, str]]:
    return LINK.findall(page.read_text(encoding="utf-8"))


def test_there_are_linked_numbers():
    assert all(links(page) for page in PAGES)


@pytest.mark.parametrize(
    ("page", "text", "target", "place", "title"),
    [
        pytest.param(page, *link, id=f"{page.parent.name}: {link[3]}")
        for page in PAGES
        for link in links(page)
    ],
)
def test_a_linked_number_is_the_cell_that_its_title_names(page, text, target, place, title):
    assert place == check(text, title, (page.parent / target).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.parent.name)
def test_every_measured_number_is_linked(page):
    section, loose = "", []
    for line in page.read_text(encoding="utf-8").splitlines():
        section = line.removeprefix("## ") if line.startswith("## ") else section
        if section.startswith(CLAIMING):
            plain = re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)", "", line)
            loose += [(line[:60], number) for number in DECIMAL.findall(plain)]
    assert not loose


PAGE = """# glue

## glue: scale micro

| arm | cola | average |
|:--|--:|--:|
| got_d | 95.7 ± 5.8 | 79.69 ± 1.2 |
| none | 83.4 ± 6.7 | 71.5 ± 1.8 |
"""


@pytest.mark.parametrize("text", ["79.7", "79.7 ± 1.2", "80"])
def test_a_number_may_be_rounded(text):
    check(text, "scale micro; got_d; average", PAGE)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("79.6", "scale micro; got_d; average"),
        ("79.7 ± 1.3", "scale micro; got_d; average"),
        ("-79.7", "scale micro; got_d; average"),
        ("79.7", "scale folder; got_d; average"),
        ("79.7", "scale micro; none; average"),
        ("79.7", "scale micro; got_d; cola"),
        ("good", "scale micro; got_d; average"),
    ],
)
def test_another_number_is_found(text, title):
    with pytest.raises(AssertionError):
        check(text, title, PAGE)
