"""What is committed under results/ is what the committed records say."""

import re
from pathlib import Path

import pytest

from gotd.cli.main import main
from gotd.reporting.records import read_jsonl
from gotd.runs.expand import expand_cells

RESULTS = Path(__file__).parents[2] / "results"
RECORDS = sorted((RESULTS / "records").glob("*.jsonl"))


def test_there_are_records():
    assert RECORDS


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.name)
def test_records_are_valid_and_bare_of_other_peoples_texts_and_of_paths(path):
    records = read_jsonl(path)
    text = path.read_text(encoding="utf-8")
    assert len({record["key"] for record in records}) == len(records)
    assert all(record["status"] == "done" for record in records)
    assert not re.search(r'"/(root|home|work|tmp)/', text)
    for record in records:
        if record["axes"]["source"] != "microworld" and record["selection"]:
            assert all("excerpt" not in row for row in record["selection"]["first_rows"])


def test_the_present_code_knows_the_committed_records_by_their_keys():
    """A step's key holds for what was made before; a change of it would orphan the records."""
    records = read_jsonl(RESULTS / "records" / "glue-micro.jsonl")
    known = {(r["axes"]["task"], r["axes"]["arm"], r["axes"]["seed"]): r["key"] for r in records}
    cells, _ = expand_cells(["experiment=glue", "task=cola,mnli", "seed=11", "tracker=none"])
    assert len(cells) == 16
    for cell in cells:
        assert cell.record.key == known[tuple(cell.axes[name] for name in ("task", "arm", "seed"))]


def test_tables_are_what_the_records_say(tmp_path):
    """Made again from the records, every committed table has the same bytes."""
    (tmp_path / "records").symlink_to(RESULTS / "records")
    assert main(["report", "--out", str(tmp_path)]) == 0
    made = {p.name: p.read_bytes() for p in (tmp_path / "tables").iterdir()}
    # `experiments/mode_coverage.py` writes its own; its test holds table and rows together.
    committed = {
        p.name: p.read_bytes() for p in (RESULTS / "tables").iterdir() if p.stem != "mode_coverage"
    }
    assert made == committed


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
