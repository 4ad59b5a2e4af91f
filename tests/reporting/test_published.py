from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from gotd.reporting.cells import blocks
from gotd.reporting.paper import AVERAGES
from gotd.reporting.published import Published, published_tables, read_published

PAPER = Path(__file__).parents[2] / "results" / "paper"

# Printed averages that do not follow from their cells; see results/paper/README.md.
KNOWN = {
    (3, "50k", "DSIR"): 80.94,
    (3, "50k", "GOT-D"): 81.58,
    (4, "all", "TAPT/c"): 83.20,
    (4, "5k", "BERT_vanilla"): 75.28,
    (4, "5k", "DSIR"): 78.40,
    (4, "5k", "TAPT/c"): 78.58,
    (4, "5k", "GOT-D"): 78.61,
    (7, "10k", "GOT-D_contrast"): 41.91,
    (7, "10k", "DSIR"): 41.79,
    (12, "20k", "BERT_vanilla"): 75.28,
}


def test_printed_averages_follow_from_their_cells():
    cells, printed = defaultdict(list), {}
    for entry in read_published(PAPER):
        row = (entry.table, entry.block, entry.row)
        if entry.column in AVERAGES:
            printed[row] = float(entry.mean)
        else:
            cells[row].append(float(entry.mean))
    assert len(printed) == 32
    for row, average in printed.items():
        mean = np.mean(cells[row])
        assert len(cells[row]) == 8
        tolerance = 0.051 if row[0] == 7 else 0.0125
        if row in KNOWN:
            assert abs(mean - average) > tolerance, f"{row} is not an exception"
            assert mean == pytest.approx(KNOWN[row], abs=0.0051)
        else:
            assert mean == pytest.approx(average, abs=tolerance), row


def test_every_table_has_the_cells_it_should():
    found = read_published(PAPER)
    counts = {t: sum(e.table == t for e in found) for t in {e.table for e in found}}
    assert counts == {
        1: 66, 2: 45, 3: 36, 4: 72, 6: 44, 7: 99, 12: 36, 16: 13, 17: 6, 18: 4,
    }  # fmt: skip
    assert len({(e.table, e.block, e.row, e.column) for e in found}) == len(found)


def at(make_records, labels, scale="paper", **more):
    """Draw records of a real source with a label limit in their config."""
    records = make_records(scale=scale, source="hub", **{"seeds": 3, **more})
    return [{**r, "config": {"limits": {"labels": labels}}} for r in records]


def beside(records):
    """Give the rows of every published table by its name: (method, who) to cells."""
    tables = published_tables(read_published(PAPER), blocks(records))
    return {
        t.title.rpartition("table ")[2]: {
            row[:2]: dict(zip(t.columns, row, strict=True)) for row in t.rows
        }
        for t in tables
    }


def ours(rows, method="GOT-D"):
    return [who for of, who in rows if of == method and who.startswith("ours")]


@pytest.mark.parametrize(
    ("budget", "labels", "place"),
    [(50_000, None, "4, all"), (50_000, 5_000, "4, 5k"), (20_000, 5_000, "12, 20k")],
)
def test_ours_stands_only_beside_its_own_setting(make_records, budget, labels, place):
    found = beside(at(make_records, labels, budget=budget, arms=("none", "got_d")))
    assert list(found) == ["4, all", "4, 5k", "12, 20k"]
    setting = f"scale paper, budget {budget}, labels {labels or 'all'}, protocol clean, model micro"
    for name, rows in found.items():
        expected = [f"ours: {setting}", f"ours, minus none, paired: {setting}"]
        assert ours(rows) == (expected if name == place else [])


def test_embedding_spaces_stand_in_their_own_rows(make_records):
    records = []
    for space in ("distilbert", "minilm"):
        made = make_records(
            scale="paper", source="hub", experiment="zeroshot", seeds=3, budget=5_000,
            tasks=("agnews",), arms=("got_d",), variant=f"embedder={space}",
        )  # fmt: skip
        config = {"limits": {"labels": None}, "embedder": {"name": space}}
        records += [{**r, "config": config} for r in made]
    rows = beside(records)["17, 5k"]
    for method, count in (
        ("DistilBERT (target-tuned)", 1),
        ("sentence-transformer MiniLM-L6", 1),
        ("BERT token space", 0),
    ):
        assert len(ours(rows, method)) == count
    assert "embedder=minilm" in ours(rows, "sentence-transformer MiniLM-L6")[0]


def test_a_setting_that_nothing_was_published_at_stands_nowhere(make_records):
    for labels, budget in ((1_000, 50_000), (None, 20_000), (5_000, 150_000)):
        found = beside(at(make_records, labels, budget=budget))
        assert not any(ours(rows) for rows in found.values())
    unknown = make_records(seeds=2, scale="paper", source="hub", budget=50_000)
    assert not any(ours(rows) for rows in beside(unknown).values())


def test_the_arm_without_a_selection_fits_every_budget_but_not_every_label_limit(make_records):
    found = beside(at(make_records, 5_000, budget=50_000))
    shown = {name: ours(rows, "BERT_vanilla") for name, rows in found.items()}
    setting = "ours: scale paper, budget none, labels 5000, protocol clean, model micro"
    assert shown == {"4, all": [], "4, 5k": [setting], "12, 20k": [setting]}


def test_two_label_limits_of_one_sweep_stay_apart(make_records):
    arms = ("none", "got_d")
    few = at(make_records, 5_000, budget=50_000, arms=arms)
    every = at(make_records, None, budget=50_000, arms=arms, variant="limits.labels=null")
    found = beside([*few, *every])
    for name, labels in (("4, all", "all"), ("4, 5k", "5000")):
        assert len(ours(found[name])) == 2
        assert all(f"labels {labels}, protocol clean" in who for who in ours(found[name]))
    # Without its own reference a row gets no difference: the other one saw other labels.
    alone = [r for r in every if r["axes"]["arm"] == "got_d"]
    assert len(ours(beside([*few, *alone])["4, all"])) == 1


def test_other_scales_stand_apart_and_worlds_nowhere(make_records):
    found = beside(at(make_records, 256, scale="folder", budget=256, arms=("none", "got_d")))
    for rows in found.values():
        who = [row[1] for row in rows]
        first = next(i for i, name in enumerate(who) if name.startswith("ours"))
        assert not any(name.startswith("published") for name in who[first:])
        setting = "scale folder, budget 256, labels 256, protocol clean"
        assert ours(rows)[0].startswith(f"ours, not this setting: {setting}")
        assert all("not this setting" in name for name in who[first:])
    # Even the published budget and labels are another setting at another scale.
    same = beside(at(make_records, None, scale="folder", budget=50_000))["4, all"]
    assert all("not this setting" in who for who in ours(same))
    assert beside(make_records(seeds=2)) == {}
    world = [
        {**r, "config": {"limits": {"labels": None}}}
        for r in make_records(seeds=2, scale="paper", budget=50_000)
    ]
    assert beside(world) == {}


def test_ours_is_empty_where_not_measured(make_records):
    found = beside(at(make_records, None, budget=50_000, arms=("none", "dsir", "got_d")))
    rows = found["4, all"]
    mine, gain = (rows["GOT-D", who] for who in ours(rows))
    assert rows["GOT-D", "published"]["CoLA"] == "57.01 (0.36)"
    assert rows["GOT-D", "published minus base"]["CoLA"] == "+2.07"
    assert mine["QNLI"] == ""  # not measured: never the published number
    assert mine["AVG"] == ""  # three tasks are not the published eight
    assert "±" in mine["CoLA"]
    assert gain["CoLA"].startswith("+")
    assert ours(rows, "TAPT/c") == []


def test_no_published_number_appears_in_our_rows(make_records):
    published = read_published(PAPER)
    printed = {e.mean for e in published}
    tables = published_tables(published, blocks(at(make_records, None, budget=50_000)))
    cells = [c for t in tables for r in t.rows if r[1].startswith("ours") for c in r[2:] if c]
    assert cells
    assert not any(c.split(" ")[0].lstrip("+") in printed and "±" not in c for c in cells)


def test_an_unknown_published_block_is_refused(make_records):
    odd = Published(4, "half", "GOT-D", "CoLA", "1.0", "", "nowhere")
    with pytest.raises(ValueError, match="table 4: block 'half'"):
        published_tables([odd], blocks(at(make_records, None, budget=50_000)))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no table"):
        read_published(tmp_path)
    bad = tmp_path / "table_1.csv"
    bad.write_text("table,row\n1,x\n")
    with pytest.raises(ValueError, match=r"table_1\.csv: the columns must be"):
        read_published(tmp_path)
    header = (PAPER / "table_1.csv").read_text().splitlines()[0]
    bad.write_text(f"{header}\n1,a,b,c,many,,p\n")
    with pytest.raises(ValueError, match=r"table_1\.csv, line 2"):
        read_published(tmp_path)
