"""The pages that people read: plain sentences, and names of code that exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from gotd.cli.main import main
from gotd.config.discovery import EXTENSIBLE
from gotd.runs.expand import expand
from gotd.selectors.base import FULL_POOL, FULL_TARGET
from gotd.selectors.registry import entries, entry, selector_class

TOP = Path(__file__).parents[1]
DOCS = TOP / "docs"
PAGES = [TOP / "README.md", TOP / "results" / "README.md", *sorted(DOCS.rglob("*.md"))]
ARCHITECTURE = TOP / "docs" / "architecture.md"
WORDS_PER_SENTENCE, MOST_WORDS, WORDS_PER_CELL = 15, 25, 25

FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
"""How a notebook begins: what runs it."""
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*(?:\n[^`\n]*)?`")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
END = re.compile(r"(?<=[.!?])[)\"”*]*\s+(?=[\"“(*]*[A-Z0-9_\[])")
"""Where a sentence ends: a mark, a blank, and the start of another one."""
ABBREVIATIONS = re.compile(r"\b(App|al|Fig|Figs|Eq|vs|e\.g|i\.e|etc|No|St)\.")
NAME = re.compile(r"`(gotd(?:\.\w+)+)`")


def _old_words() -> re.Pattern[str]:
    """Return the words that no page uses: those that no module uses."""
    spec = spec_from_file_location("language", TOP / "tests" / "test_language.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OLD_WORDS


def paragraphs(page: str) -> Iterator[str]:
    """Yield the prose of a page: no code blocks, tables, headings or pictures."""
    lines: list[str] = []
    for line in [*FENCE.sub("\n", FRONT.sub("", page)).splitlines(), ""]:
        item = re.match(r"\s*(?:[-*]|\d+\.)\s+", line)
        if item or not line.strip() or line.lstrip().startswith(("#", "|", "!", "<")):
            if lines:
                yield " ".join(lines)
            lines = [line[item.end() :]] if item else []
        else:
            lines.append(line.strip())


def sentences(page: str) -> Iterator[str]:
    """Yield the sentences of a page; a stretch of code is one word."""
    for paragraph in paragraphs(page):
        text = CODE.sub("Code", LINK.sub(r"\1", paragraph))
        text = ABBREVIATIONS.sub(r"\1", text)
        yield from (sentence.strip() for sentence in END.split(text) if sentence.strip())


def words(text: str) -> int:
    """Count words: what has a letter or a digit."""
    return sum(bool(re.search(r"\w", word)) for word in text.split())


def cells(page: str) -> Iterator[str]:
    """Yield the cells of tables; a stretch of code is one word."""
    for line in FENCE.sub("\n", page).splitlines():
        if line.startswith("|"):
            text = CODE.sub("Code", LINK.sub(r"\1", line))
            yield from (cell.strip() for cell in text.strip("|").split("|"))


def test_sentences_are_split_at_their_ends():
    page = "# Title\n\nOne `a b. C`: two\nthree (App. C). Four\n[five](x.y)!\n\n"
    page += "- Six\n- `Seven`\n| no | no |\n"
    assert list(sentences(page)) == ["One Code: two three (App C).", "Four five!", "Six", "Code"]
    assert list(cells(page)) == ["no", "no"]
    assert words("One — two, 3 ×") == 3


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))
def test_sentences_are_short(page: Path):
    counted = [(words(sentence), sentence) for sentence in sentences(page.read_text("utf-8"))]
    long = [f"{count}: {sentence}" for count, sentence in counted if count > MOST_WORDS]
    assert long == [], "\n".join(long)
    assert sum(count for count, _ in counted) <= WORDS_PER_SENTENCE * len(counted)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))
def test_cells_are_short(page: Path):
    long = [cell for cell in cells(page.read_text("utf-8")) if words(cell) > WORDS_PER_CELL]
    assert long == [], "\n".join(long)


def _plain_text(path: Path) -> str:
    """Return what people read of a file: all of it, or the comments of a configuration."""
    text = path.read_text("utf-8")
    if path.suffix != ".yaml":
        return text
    return "\n".join(line.partition("#")[2] for line in text.splitlines())


READ = [*PAGES, TOP / "Makefile", TOP / "results" / "data.md"]


@pytest.mark.parametrize(
    "path",
    [*READ, *sorted((TOP / "conf").rglob("*.yaml")), *sorted((TOP / "experiments").rglob("*.py"))],
    ids=lambda p: str(p.relative_to(TOP)),
)
def test_no_metaphor_is_left(path: Path):
    old = _old_words()
    bad = [line for line in _plain_text(path).splitlines() if old.search(line)]
    assert bad == [], "\n".join(bad)


def resolve(name: str) -> Any:
    """Return the module, class, function or method of a dotted name."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise ModuleNotFoundError(name)


def names(page: Path) -> list[str]:
    return sorted(set(NAME.findall(page.read_text("utf-8"))))


def test_the_architecture_names_the_code_of_every_part():
    assert len(names(ARCHITECTURE)) >= 40


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))
def test_every_name_of_code_exists(page: Path):
    entry_points = {"gotd.metrics", *(f"gotd.{group}s" for group in EXTENSIBLE)}
    for name in names(page):
        if name not in entry_points:
            assert resolve(name) is not None, name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))
def test_every_link_leads_to_a_file(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)(?:[#\s][^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


# Commands -----------------------------------------------------------------------------


def stretches(page: Path) -> list[str]:
    """Return what a page shows as code: lines of blocks and stretches within sentences."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    blocks = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    within = CODE.findall(FENCE.sub("", text))
    return blocks + [code.strip("`").replace("\n", " ") for code in within]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(TOP)))
def test_every_command_exists(page: Path, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.findall(r"^    (\w+)  ", capsys.readouterr().out, re.MULTILINE))
    assert {"run", "select", "plan"} <= known
    targets = set(re.findall(r"^([\w-]+):", (TOP / "Makefile").read_text("utf-8"), re.MULTILINE))
    for code in stretches(page):
        command = re.match(r"(?:\.venv/bin/)?gotd (\w+)", code)
        assert command is None or command.group(1) in known, code
        target = re.match(r"make ([\w-]+)", code)
        assert target is None or target.group(1) in targets, code
        script = re.search(r"\bpython (experiments/\S+\.py)", code)
        assert script is None or (TOP / script.group(1)).is_file(), code


SWEEP = re.compile(r"(?:\.venv/bin/)?gotd (run|plan|fetch|export) experiment=(?!…)")
SHOWN = {
    tuple(shlex.split(code, comments=True)[2:])
    for page in ("README.md", "docs/sweeping.md", "docs/reproducing.md")
    for code in stretches(TOP / page)
    if SWEEP.match(code) and "…" not in code
}
SWEEPS = sorted(SHOWN)


@pytest.mark.parametrize("overrides", SWEEPS, ids=" ".join)
def test_every_sweep_composes(overrides: tuple[str, ...]):
    """Compose one cell: the last value of each axis."""
    end = overrides.index("--out") if "--out" in overrides else len(overrides)
    last = dict(override.split("=", 1) for override in overrides[:end])
    cell = {"task": "rte", "selector": "got_d", "seed": "11"} | last
    assert len(expand([f"{name}={value.split(',')[-1]}" for name, value in cell.items()])) == 1


# The site -----------------------------------------------------------------------------


def messages() -> list[str]:
    """Return the messages of the page on errors, with … for what varies."""
    page = (DOCS / "troubleshooting.md").read_text("utf-8")
    return re.findall(r"^\| `([^`]*)` \|", page, re.MULTILINE)


@pytest.fixture(scope="module")
def texts_of_the_code() -> list[str]:
    """Return the texts in the code, with … for what is filled in."""
    found = []
    for module in sorted((TOP / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [one.value if isinstance(one, ast.Constant) else "…" for one in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_there_are_errors_to_explain():
    assert len(messages()) >= 25


@pytest.mark.parametrize("message", messages())
def test_every_explained_error_is_one_of_the_code(message, texts_of_the_code):
    assert any(message in text for text in texts_of_the_code)


def test_the_readme_is_short():
    assert len((TOP / "README.md").read_text("utf-8").splitlines()) <= 150


# The page of selectors ----------------------------------------------------------------


def selector_rows() -> list[list[str]]:
    """Return the cells of every row of docs/selectors.md."""
    lines = (TOP / "docs" / "selectors.md").read_text("utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"
    ]
    return rows[2:]


def test_every_selector_has_one_row_with_its_line_of_help():
    rows = selector_rows()
    assert all(len(row) == 5 for row in rows)
    listed = [re.findall("`(\\w+)`", row[0]) for row in rows]
    assert sorted(listed) == sorted([one.name] for one in entries())
    for (name,), row in zip(listed, rows, strict=True):
        assert row[1] == entry(name).help
        assert ("\\*" in row[0]) == (not entry(name).offered)
        assert not row[4] or row[4] == "ours" or re.search(r"\(\d{4}\)", row[4])


def test_the_page_of_selectors_says_what_each_one_needs():
    for row in selector_rows():
        one = entry(row[0].split("`")[1])
        if one.target is None or one.name == "ensemble":
            continue
        fields = dict(one.preset)
        if "oracle" in one.name:  # its domains come from the task
            fields |= {"domains": ("a",), "fill": () if one.name == "oracle" else ("b",)}
        built = selector_class(one.name)(**fields)
        needed = built.requires - {"losses", "tuned_losses", FULL_TARGET, FULL_POOL}
        named = set(row[2].split(", ")) - {"nothing"}
        assert named == needed, one.name
