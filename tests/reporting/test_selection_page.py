"""The page of a selection: what it holds, that nothing in it runs, and how large it gets."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from gotd.reporting.map_layout import NAMED_DOMAINS
from gotd.reporting.selection_page import selection_page
from gotd.selection_report.map_rows import (
    POOL_ROWS,
    SELECTED_ROWS,
    TARGET_ROWS,
    TEXT_CHARS,
    Point,
    SelectionMap,
)

HOSTILE = """<script>alert('text')</script><img src=x onerror=alert(1)>"</title>"""
REPORT = """# Selection

First sentence.
Second sentence.

`gotd select`

## What was chosen

| domain | rows | share |
| --- | --- | --- |
| one | 1,200 | 12 % |
| <script>alert(1)</script> ![x](http://there/x.png) [y](http://there) | 7 |  |
"""
MANIFEST = {"request": {"method": "got_d"}}


def a_map(
    domains: tuple[str, ...] = ("one", "two"), text: str = "a text", rows: int = 6
) -> SelectionMap:
    def points(count: int, shift: float, ranked: bool = False) -> tuple[Point, ...]:
        return tuple(
            Point(n + shift, n % 5, text, domains[n % len(domains)], n + 1 if ranked else None)
            for n in range(count)
        )

    counts = dict.fromkeys(domains, 10)
    kinds = points(rows, 0.0), points(3, 0.5), points(4, 0.2, ranked=True)
    return SelectionMap(*kinds, (60, 3, 4), 0.25, 0, "tfidf_svd", counts)


def page(drawn: SelectionMap | None, report: str = REPORT, manifest=MANIFEST) -> str:
    return selection_page(report, manifest, {"domains": {"one": 4}}, drawn)


class Read(HTMLParser):
    """The elements of a page, and the texts in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data):
        self.texts.append((self._open, data.strip()))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_it_has_the_sentences_the_map_the_legend_and_the_tables():
    text = page(a_map())
    read = Read(text)
    words = " ".join(data for _, data in read.texts)
    marks = [one for one in read.named("use") if "mark" in (one.get("class") or "")]
    assert len(marks) == 6 + 3 + 4
    for said in ("First sentence.", "pool (6 of 60)", "target (3 of 3)", "chosen (4 of 4)"):
        assert said in words
    assert "25 %" in words
    assert "4 / 10" in words  # chosen and in the pool, of the domain "one"
    order = [text.index(part) for part in ("First sentence", ">Map<", "What was chosen")]
    assert order == sorted(order)
    kinds = [one["class"].split()[1] for one in marks]  # type: ignore[union-attr]
    assert kinds == ["pool"] * 6 + ["selected"] * 4 + ["target"] * 3  # the target is on top
    cells = [(tag, one.get("class")) for tag, one in read.elements if tag == "td"]
    assert cells == [("td", "w"), ("td", "n"), ("td", "n")] * 2


def test_what_came_from_outside_is_shown_and_nothing_of_it_runs():
    drawn = a_map(("</script>", HOSTILE, ""), HOSTILE)
    text = page(drawn, manifest={"request": {"method": "</title>"}})
    read = Read(text)
    titles = [data for tag, data in read.texts if tag == "title" and data]
    assert sum(HOSTILE in title for title in titles) == 13
    assert any("</script>" in data for tag, data in read.texts if tag == "span")
    assert len(read.named("script")) == 1
    assert not {"img", "a", "link", "iframe", "base"} & {tag for tag, _ in read.elements}
    assert not [name for _, one in read.elements for name in one if name.startswith("on")]
    assert all((one.get("href") or "#").startswith("#") for _, one in read.elements)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(one["content"] for one in read.named("meta") if "http-equiv" in one)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy


def test_it_is_small_whatever_the_rows_hold():
    worst = "'" * TEXT_CHARS  # each becomes five characters
    names = tuple("'" * 1000 + str(n) for n in range(2000))
    drawn = a_map(names, worst)
    drawn = replace(
        drawn,
        pool=drawn.pool[:1] * POOL_ROWS,
        target=drawn.target[:1] * TARGET_ROWS,
        selected=drawn.selected[:1] * SELECTED_ROWS,
    )
    assert len(page(drawn).encode()) < 5_000_000
    wide = replace(drawn, pool=(replace(drawn.pool[0], text="𝔘" * TEXT_CHARS),) * POOL_ROWS)
    assert len(page(wide).encode()) < 5_000_000


def test_the_same_selection_has_the_same_bytes():
    assert page(a_map()) == page(a_map())


def test_without_vectors_a_sentence_says_why_there_is_no_map():
    text = page(None)
    assert "There is no map" in text
    assert "--explain" in text
    read = Read(text)
    assert not read.named("script")
    assert not read.named("use")
    policy = next(one["content"] for one in read.named("meta") if "http-equiv" in one)
    assert "script-src" not in (policy or "")


def test_one_domain_has_no_legend_of_domains():
    text = page(a_map(("only",)))
    assert "rows chosen / in the pool" not in text
    assert "only" not in text
    colours = dict(re.findall(r"\.map \.mark\.(pool|selected), .* { color: (\S+);", text))
    assert len(set(colours.values())) == 2  # where no domain needs them
    assert 'class="map wide"' in text
    assert 'class="map"' in page(a_map())


@pytest.mark.parametrize(
    ("count", "entries", "others"),
    [
        (2, 2, 0),
        (NAMED_DOMAINS, NAMED_DOMAINS, 0),
        (NAMED_DOMAINS + 1, NAMED_DOMAINS + 1, 0),
        (40, NAMED_DOMAINS + 1, 40 - NAMED_DOMAINS),
    ],
)
def test_the_legend_names_twelve_domains_at_most(count, entries, others):
    names = tuple(f"domain {n:02}" for n in range(count))
    drawn = a_map(names, rows=count)
    read = Read(page(drawn))
    labels = [one["class"] for one in read.named("label") if "class" in one]
    assert labels == [f"d{n}" for n in range(entries)]
    words = [data for tag, data in read.texts if tag == "span"]
    assert (f"{others} others" in words) == (others > 0)
    looks = {
        (one["href"], re.search(rf"\.{cls} {{ color: (\S+);", page(drawn))[1])  # type: ignore[index]
        for cls, one in zip(labels, read.named("use")[-entries:], strict=True)
    }
    assert len(looks) == entries  # colour and shape together are one domain's alone


def test_one_row_is_in_the_middle():
    point = Point(0.0, 0.0, "alone", "one")
    drawn = SelectionMap((point,), (point,), (point,), (1, 1, 1), None, 0, "tfidf_svd", {"one": 1})
    text = page(drawn)
    assert len(re.findall(r'class="mark[^>]* x="590.0" y="285.0"', text)) == 3
