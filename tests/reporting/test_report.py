import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from gotd.reporting.cells import blocks
from gotd.reporting.records import fingerprint
from gotd.reporting.render import escape_html, escape_latex, escape_markdown
from gotd.reporting.report import console_table, without_places, write_report
from gotd.reporting.statistics import Interval, decimals, format_interval
from gotd.reporting.tables import scores_table

PAPER = Path(__file__).parents[2] / "results" / "paper"
HOSTILE = "<script>alert(1)</script>|`x`$\\input{a}$_&%#\n--> evil"


def cell(table, arm, column):
    row = next(r for r in table.rows if r[0] == arm)
    return row[table.columns.index(column)]


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_report_is_the_same_bytes_whatever_the_order_of_records(tmp_path, make_records):
    records = make_records(seeds=3, arms=("none", "got_d"))
    for name, given in (("a", records), ("b", [*reversed(records), records[0]])):
        written = write_report(given, tmp_path / name, paper=PAPER, command="gotd report")
        assert all(path.is_file() for path in written)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not list(tmp_path.rglob("*.part"))


def test_every_table_names_its_command_and_records(tmp_path, make_records):
    records = make_records(seeds=2, arms=("none", "got_d"), tasks=("cola",))
    written = write_report(records, tmp_path, paper=None, command="gotd report --out x")
    for path in written:
        if path.suffix != ".svg":
            text = path.read_text()
            assert "gotd report --out x" in text
            assert fingerprint(records) in text
    assert not re.search("Published beside", (tmp_path / "tables/glue.md").read_text())


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("x.py scale=folder store=/abs/path budget=256", "x.py scale=folder store=path budget=256"),
        ("gotd report /a/b/records.jsonl /c/d/", "gotd report records.jsonl d"),
        ("/usr/bin/python 'store=/a/b' paths=[/a/b,/c/d]", "python 'store=b' paths=[b,d]"),
        ("PATH=/a/b:/c/d source={path:/e/f}", "PATH=b:d source={path:f}"),
        ("python experiments/glue.py store=../s", "python experiments/glue.py store=../s"),
        ("endpoint=https://host/x a/b 1/2 /", "endpoint=https://host/x a/b 1/2 /"),
    ],
)
def test_commands_lose_the_places_of_a_machine(command, expected):
    assert without_places(command) == expected


def test_no_file_of_a_report_names_a_place(tmp_path, make_records):
    records = make_records(seeds=2, arms=("none", "got_d"), tasks=("cola",))
    for path in write_report(records, tmp_path, paper=None, command="x.py store=/secret/place"):
        text = path.read_text()
        assert "/secret" not in text
        assert path.suffix == ".svg" or "store=place" in text


def test_remaining_pairs_are_folded_away(tmp_path, make_records):
    write_report(make_records(seeds=3), tmp_path, paper=None, command="c")
    assert "### Other pairs" not in (tmp_path / "tables/glue.md").read_text()
    assert "### Other pairs" in (tmp_path / "tables/glue_by_task.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert page.index("<h2>Details</h2>") < page.index("<summary>Other pairs")


def test_budgets_get_a_curve_and_single_budgets_none(tmp_path, make_records):
    arms = ("random", "got_d")
    records = [r for b in (200, 400) for r in make_records(2, b, arms=arms, tasks=("sst2",))]
    write_report(records, tmp_path / "two", paper=None, command="c")
    write_report(records[:4], tmp_path / "one", paper=None, command="c")
    assert (tmp_path / "two/figures/glue_budgets.svg").is_file()
    assert not (tmp_path / "one/figures/glue_budgets.svg").exists()
    assert (tmp_path / "one/figures/glue_scores.svg").is_file()


@pytest.mark.parametrize(("held", "reason"), [(None, "not run"), ({}, "not in the data")])
def test_the_papers_tasks_that_are_absent_are_named(make_records, held, reason):
    records = make_records(seeds=2, tasks=("rct", "acl_arc"), experiment="domain_few_labels")
    if held is not None:
        records = [{**r, "data": {"name": "folder", "tasks": held}} for r in records]
    (block,) = blocks(records)
    absent = "chemprot, scierc, hyperpartisan, agnews, helpfulness, imdb"
    assert f"Not in this table: {absent} ({reason})." in scores_table(block).notes


def test_the_noise_of_the_test_rows_stands_below_the_scores(make_records):
    plain = make_records(seeds=2, tasks=("cola", "sst2"))
    noisy = [
        {**r, "n_eval": 65, "metrics": {**r["metrics"], "headline_standard_error": 0.058}}
        if r["axes"]["task"] == "sst2"
        else r
        for r in plain
    ]
    table = scores_table(blocks(noisy)[0])
    assert cell(table, "(test rows)", "sst2") in ("±5.8, 65 rows", "±5.80, 65 rows")
    assert cell(table, "(test rows)", "cola") == ""
    assert "(test rows)" not in [row[0] for row in scores_table(blocks(plain)[0]).rows]


def test_incomplete_and_failed_cells_are_marked(make_records, failed, tmp_path):
    records = make_records(seeds=4, arms=("none", "random", "got_d"))
    records = [
        failed(r, "out | of memory")
        if (r["axes"]["arm"], r["axes"]["task"]) == ("got_d", "cola") and r["axes"]["seed"] > 2
        else r
        for r in records
        if (r["axes"]["arm"], r["axes"]["task"]) != ("random", "mnli")
    ]
    (block,) = blocks(records)
    table = scores_table(block)
    assert cell(table, "got_d", "cola").endswith(" (2/4)")
    assert cell(table, "got_d", "average").endswith(" (2/4)")
    assert "(" not in cell(table, "got_d", "sst2")
    assert cell(table, "random", "mnli") == ""  # never asked for: empty
    assert cell(table, "random", "average") == "– (0/4)"  # not over the two tasks it has
    assert cell(table, "got_d", "under-covered %") == "97.5"
    assert cell(table, "none", "distinct / rows") == ""
    write_report(records, tmp_path, paper=None, command="c")
    text = (tmp_path / "tables/glue.md").read_text()
    assert "Failed cells" in text
    assert "out \\| of memory" in text


def test_cells_of_one_seed_have_no_interval():
    assert format_interval(Interval(0.614, float("nan"), float("nan"), 1), 1, 100, 1) == "61.4"
    assert format_interval(Interval(0.614, 0.6, 0.628, 3), 3, 100, 1) == "61.4 ± 1.4"
    nan = float("nan")
    assert format_interval(Interval(nan, nan, nan, 0), 3, 100, 1) == "– (0/3)"
    assert decimals([Interval(0.6, 0.599, 0.601, 3)], 100) == 2
    assert decimals([Interval(0.6, 0.5, 0.7, 3)], 100) == 1


def test_escapes_leave_nothing_live():
    md = escape_markdown(HOSTILE)
    assert "<" not in md
    assert "\n" not in md
    assert re.search(r"(?<!\\)[|`$*]", md) is None
    assert escape_markdown("got_d") == "got_d"
    assert escape_markdown("_x_") == "\\_x\\_"
    tex = escape_latex(HOSTILE)
    assert "\\input" not in tex
    assert re.search(r"(?<!\\)[$&%#_]", tex) is None
    assert escape_latex("\\") == "\\textbackslash{}"
    assert escape_html("\"'<&") == "&quot;&#x27;&lt;&amp;"
    assert escape_html("a\u202eb") == "a b"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.open, self.attributes = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_hostile_names_and_texts_stay_text(tmp_path, record, failed):
    records = []
    for seed in (1, 2):
        for arm in ("none", HOSTILE):
            one = record(HOSTILE, arm, seed, score=0.5 + seed / 100, experiment="x/../y")
            if one["selection"]:
                one["selection"]["first_rows"] = [
                    {"id": HOSTILE, "domain": "d", "excerpt": escape_html(HOSTILE)}
                ]
                one["selection"]["domains"] = {HOSTILE: 3, "$x_{": 1}
            records.append(one)
    bad = failed(record("t", HOSTILE, 3, score=0.5, experiment="x/../y"), HOSTILE)
    written = write_report([*records, bad], tmp_path / "out", paper=None, command=HOSTILE)
    assert all((tmp_path / "out") in path.parents for path in written)
    page = (tmp_path / "out/report.html").read_text()
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    assert not {"script", "iframe", "link", "object"} & parser.tags
    assert "&amp;lt;" not in page  # escaped once, so it reads as it was
    links = [v for name, v in parser.attributes if name in ("src", "href")]
    assert links
    assert all(v.startswith(("data:image/svg+xml;base64,", "#")) for v in links)
    for path in written:
        text = path.read_text()
        if path.suffix == ".md":
            assert text.startswith("<!-- made by")
            text = re.sub("<!--.*?-->", "", text)
        if path.suffix == ".tex":
            text = re.sub("(?m)^%.*$", "", text)
            assert "\\input" not in text
        assert "<script>" not in text, path
        assert path.suffix == ".svg" or "evil" in text or "cost" in path.name


def test_figures_hold_no_date_and_keep_dollar_signs(tmp_path, make_records):
    records = make_records(seeds=2, arms=("none", "a$b_{"), tasks=("cola",))
    write_report(records, tmp_path, paper=None, command="c")
    svgs = list((tmp_path / "figures").glob("*.svg"))
    assert {p.stem for p in svgs} >= {"glue_scores", "glue_differences", "glue_composition"}
    for path in svgs:
        assert "dc:date" not in path.read_text()
    assert "a$b_{" in (tmp_path / "figures/glue_scores.svg").read_text()


def test_a_set_without_scores_still_makes_a_report(tmp_path, record, failed):
    records = [failed(record("cola", arm, 1, score=0.5)) for arm in ("none", "got_d")]
    write_report(records, tmp_path, paper=PAPER, command="c")
    assert "out of memory" in (tmp_path / "report.html").read_text()
    with pytest.raises(ValueError, match="run an experiment first"):
        write_report([], tmp_path, paper=None, command="c")


def test_the_terminal_table_shows_names_as_they_are(make_records):
    records = make_records(seeds=2, arms=("none", "[bold]x"), tasks=("cola",))
    out = StringIO()
    Console(file=out, width=120).print(console_table(records))
    assert "[bold]x" in out.getvalue()
    assert "±" in out.getvalue()
    Console(file=StringIO()).print(console_table([]))
