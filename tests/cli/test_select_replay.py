"""Replay: general rows of any shape are mixed into a selection, by share and by id."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd import GOTD
from gotd.cli.main import main
from gotd.data.sampling import uniform_by_id
from gotd.pipeline.token_budget import token_counter


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def general(tmp_path_factory):
    """Chats with a column of another type than the pool's, one blank and one repeated."""
    path = tmp_path_factory.mktemp("general") / "chat.jsonl"
    rows = [
        {"id": n, "messages": [{"role": "user", "content": f"question {n}"}], "domain": "chat"}
        for n in range(60)
    ]
    rows += [{**rows[0], "id": 60}, {"id": 61, "messages": []}]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def select(given, out, *more):
    assert main(given.arguments("--out", str(out), "--method", "dsir", *more)) == 0


def in_order(seed):
    """Return the ids of the general rows in the order in which they are drawn."""
    ids = [str(n) for n in range(60)]
    chance = uniform_by_id(pa.array(ids), seed, "replay")
    return [ids[n] for n in chance.argsort()]


@pytest.mark.parametrize("seed", [0, 7])
def test_replay_is_a_share_of_the_rows_drawn_by_id_after_the_selection(
    given, general, tmp_path, seed
):
    out, seeded = tmp_path / "a.jsonl", ("--seed", str(seed))
    select(given, tmp_path / "without.jsonl", "--budget", "24", *seeded)
    select(given, out, "--budget", "12,24", "--replay", f"{general}:25%", *seeded)
    chosen = lines(tmp_path / "without.jsonl")
    for budget, count in ((12, 4), (24, 8)):
        rows = lines(tmp_path / f"a-{budget}.jsonl")
        assert [row["gotd_id"] for row in rows[:budget]] == [
            row["gotd_id"] for row in chosen[:budget]
        ]
        assert [row["gotd_replay"] for row in rows] == [False] * budget + [True] * count
        replayed = rows[budget:]
        assert [row["gotd_id"] for row in replayed] == in_order(seed)[:count]
        assert replayed[0]["messages"][0]["content"] == replayed[0]["gotd_text"]
        assert {row["gotd_rank"] for row in replayed} == {None}
    folder = tmp_path / "a.gotd"
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["files"]["a-24.jsonl"]["replay_rows"] == 8
    assert manifest["replay"]["rows"] == 60
    assert manifest["replay"]["left_out_rows"] == {"duplicate": 1}
    assert "After the 24 rows come 8 of replay" in (folder / "report.md").read_text("utf-8")
    assert "8 more rows are replay" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ""])
def test_every_format_has_the_columns_of_both(given, general, tmp_path, suffix):
    out = tmp_path / f"a{suffix}"
    select(given, out, "--budget", "8", "--replay", f"{general}:0.2")
    if suffix == ".csv":
        assert "gotd_replay" in out.read_text().splitlines()[0]
        assert len(out.read_text().splitlines()) == 11
        return
    table = pq.read_table(out if suffix else out / "selected.parquet")
    assert table["gotd_replay" if suffix else "replay"].to_pylist() == [False] * 8 + [True] * 2
    assert table["messages"].null_count == 8
    rank = table["gotd_rank" if suffix else "rank"]
    assert rank.to_pylist() == [*range(1, 9), None, None]


def test_of_tokens_the_share_is_of_tokens(given, general, tmp_path):
    out = tmp_path / "a.jsonl"
    select(given, out, "--tokens", "200", "--replay", f"{general}:20%")
    count = token_counter("minilm")
    rows = lines(out)
    tokens = count([row["gotd_text"] for row in rows])
    replayed = [n for n, row in zip(tokens, rows, strict=True) if row["gotd_replay"]]
    selected = sum(tokens) - sum(replayed)
    assert sum(replayed) >= selected / 4 > sum(replayed[:-1])


def test_test_sets_are_left_out_of_it_too(given, general, tmp_path):
    test = tmp_path / "test.jsonl"
    names = in_order(0)[:3]
    test.write_text("\n".join(json.dumps({"text": f"question {n}"}) for n in names), "utf-8")
    more = ("--exclude", str(test), "--replay", f"{general}:20%")
    select(given, tmp_path / "a.jsonl", "--budget", "8", *more)
    replayed = [row["gotd_id"] for row in lines(tmp_path / "a.jsonl") if row["gotd_replay"]]
    assert replayed == in_order(0)[3:5]


def test_a_row_that_was_selected_is_not_mixed_in_once_more(given, general, tmp_path, capsys):
    """Of several budgets the largest counts, so that each replay is a part of the next."""
    select(given, tmp_path / "all.jsonl", "--budget", "24")
    chosen = [row["text"] for row in lines(tmp_path / "all.jsonl")]
    told = {n: {"id": n, "text": f"question {n}"} for n in range(60)}
    first = [int(name) for name in in_order(0)]
    told[first[0]]["text"], told[first[2]]["text"] = chosen[3], chosen[20]
    told[first[1]]["text"] = chosen[4].upper() + "!"  # another text
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join(map(json.dumps, told.values())), "utf-8")
    select(given, tmp_path / "a.jsonl", "--budget", "12,24", "--replay", f"{mixed}:25%")
    for budget, count in ((12, 4), (24, 8)):
        rows = lines(tmp_path / f"a-{budget}.jsonl")
        names = [row["gotd_id"] for row in rows if row["gotd_replay"]]
        assert names == list(map(str, [first[1], *first[3:]]))[:count]
        assert len({row["gotd_text"] for row in rows}) == len(rows)
    stated = json.loads((tmp_path / "a.gotd" / "manifest.json").read_text("utf-8"))["replay"]
    assert (stated["rows"], stated["left_out_rows"]) == (58, {"selected": 2})
    more = ("--method", "dsir", "--out", str(tmp_path / "b.jsonl"))
    for amount, unit in (("--budget", "rows"), ("--tokens", "tokens")):
        asked = (amount, "24" if unit == "rows" else "2000", "--replay", f"{mixed}:90%")
        assert main(given.arguments(*more, *asked)) == 2
        printed = capsys.readouterr().err
        assert f"{unit} beside the " in printed
        assert "with the text of a selected row, fewer than the" in printed


def test_python_mixes_the_same_rows(given, general):
    fitted = GOTD(method="dsir").fit(given.target, given.pool)
    mixed = fitted.select(8, replay=general, replay_share=0.2)
    assert mixed.ids[8:] == in_order(0)[:2]
    assert mixed.table["replay"].to_pylist() == [False] * 8 + [True] * 2
    assert mixed.ids[:8] == fitted.select(8).ids
    with pytest.raises(TypeError, match="belong together"):
        fitted.select(8, replay=general)


@pytest.mark.parametrize(
    ("given_replay", "says"),
    [
        ("{}:90%", "--replay has 60 rows, fewer than the 72"),
        ("{}:100%", "--replay takes FILE:SHARE"),
        ("{}", "--replay takes FILE:SHARE"),
        ("absent.jsonl:5%", "no file absent.jsonl"),
    ],
)
def test_what_cannot_be_done_is_one_line(given, general, tmp_path, capsys, given_replay, says):
    more = ("--budget", "8", "--replay", given_replay.format(general))
    out = tmp_path / "a.jsonl"
    assert main(given.arguments("--out", str(out), "--method", "dsir", *more)) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_replay_that_is_left_out_as_a_whole_is_named(given, general, tmp_path, capsys):
    more = ("--method", "dsir", "--budget", "8", "--replay", f"{general}:20%")
    out = ("--out", str(tmp_path / "a.jsonl"), "--exclude", str(general))
    assert main(given.arguments(*out, *more)) == 2
    assert "--replay: no row is left after overlap rows are" in capsys.readouterr().err
