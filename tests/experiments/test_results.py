"""The committed results: valid records, and tables that follow from them."""

import re
from pathlib import Path

import pytest

from gotd.cli.main import main
from gotd.reporting.records import read_jsonl

RESULTS = Path(__file__).parents[2] / "results"
RECORDS = sorted((RESULTS / "records").rglob("*.jsonl"))
"""Those in ``unfinished`` are of experiments that go on; no table has them yet."""


def test_there_are_records():
    assert RECORDS


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.name)
def test_records_are_valid_without_texts_of_others_and_without_paths(path):
    records = read_jsonl(path)
    text = path.read_text(encoding="utf-8")
    assert len({record["key"] for record in records}) == len(records)
    assert all(record["status"] == "done" for record in records)
    assert not re.search(r'"/(root|home|work|tmp)/', text)
    for record in records:
        is_generated = record["axes"]["source"].startswith("microworld")
        if not is_generated and record["selection"]:
            assert all("excerpt" not in row for row in record["selection"]["first_rows"])


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.name)
def test_records_have_the_commit_that_made_them_and_the_page_names_it(path):
    """Keys and draws change with the code, so a record is only valid with its commit."""
    commits = {record["cost"]["code"]["git_sha"] for record in read_jsonl(path)}
    assert not any(record["cost"]["code"]["git_dirty"] for record in read_jsonl(path))
    readme = (RESULTS / "README.md").read_text(encoding="utf-8")
    for commit in commits:
        assert re.search(rf"\| {commit[:7]} \|", readme), (
            f"no row of {RESULTS / 'README.md'} has {commit[:7]}"
        )


def test_tables_are_what_the_records_say(tmp_path, monkeypatch):
    """Every committed table has the bytes that `gotd report` writes from the records."""
    # Figures take most of the time, and their bytes depend on fonts.
    monkeypatch.setattr("gotd.reporting.report.to_svg", lambda *_: "<svg/>")
    (tmp_path / "records").symlink_to(RESULTS / "records")
    assert main(["report", "--out", str(tmp_path)]) == 0
    made = {p.name: p.read_bytes() for p in (tmp_path / "tables").iterdir()}
    # Other scripts of experiments/ write their own; their tests compare table and rows.
    others = {"mode_coverage", "warm_up_weight", "warm_up_weight_comparison", "spaces"}
    others |= {"near_duplicates"}
    committed = {
        p.name: p.read_bytes() for p in (RESULTS / "tables").iterdir() if p.stem not in others
    }
    assert made == committed
    assert (tmp_path / "leaderboard.md").read_bytes() == (RESULTS / "leaderboard.md").read_bytes()


def test_every_deviation_has_its_line_of_code_and_its_row():
    """D1, D2, … are greppable in the code and listed in results/README.md."""
    top = RESULTS.parent
    readme = (RESULTS / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| (D\d+) ", readme, flags=re.MULTILINE))
    tagged = set()
    for folder in ("src", "conf"):
        for path in (top / folder).rglob("*"):
            if path.suffix in (".py", ".yaml"):
                tagged |= set(re.findall(r"Deviation (D\d+)", path.read_text(encoding="utf-8")))
    hub = {f"D{number}" for number in range(10, 16)}  # one row for all of them
    assert listed == tagged - hub
    assert hub <= tagged
