"""Shapes, roles and templates of `gotd select` and `gotd.GOTD`: their effect on what is chosen."""

from __future__ import annotations

import json
import logging

import pyarrow.parquet as pq
import pytest

from gotd import GOTD
from gotd.cli.main import main


@pytest.fixture(scope="module")
def chats(given, tmp_path_factory):
    """Write a pool of chats whose sides have different topics, and targets of several shapes.

    Row ``cells-stars#n`` has a question on cells and an answer on stars.
    """
    folder = tmp_path_factory.mktemp("chats")
    by_topic = {
        topic: [text for name, text in given.rows.items() if name.startswith(topic)]
        for topic in ("cells", "stars", "trade")
    }
    pool = []
    for asked, answered in (("cells", "stars"), ("stars", "cells"), ("trade", "trade")):
        pool += [
            {
                "id": f"{asked}-{answered}#{n}",
                "messages": [
                    {"role": "user", "content": by_topic[asked][n]},
                    {"role": "assistant", "content": [{"type": "text", "text": answer}]},
                ],
                "note": by_topic["trade"][n] if asked == "stars" else "",
                "kept": {"n": [n, None]},
            }
            for n, answer in enumerate(by_topic[answered][:60])
        ]
    (folder / "pool.jsonl").write_text("\n".join(map(json.dumps, pool)))
    cells = by_topic["cells"][60:80]
    lines = "".join(f'"{text}"\t"{text}"\n' for text in cells)
    (folder / "mine.tsv").write_text(f"question\tanswer\n{lines}")
    trade = [{"body": text} for text in by_topic["trade"][60:80]]
    (folder / "trade.json").write_text(json.dumps(trade))
    return folder


def arguments(given, chats, out, *more, target="mine.tsv"):
    places = given.arguments(
        "--out", str(out), target=str(chats / target), pool=str(chats / "pool.jsonl")
    )
    return [*places, "--budget", "20", *more]


def chosen(given, chats, out, *more, target="mine.tsv"):
    assert main(arguments(given, chats, out, *more, target=target)) == 0
    return pq.read_table(out / "selected.parquet").to_pylist()


def kinds(rows):
    return {row["id"].split("#")[0] for row in rows}


def test_the_role_changes_what_is_chosen(given, chats, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        answers = chosen(given, chats, tmp_path / "one", "--role", "assistant")
    assert kinds(answers) == {"stars-cells"}
    assert f"{chats / 'pool.jsonl'}: chat messages, column messages, turns of the assistant" in (
        caplog.messages
    )
    assert f"{chats / 'mine.tsv'}: questions with answers" in caplog.text
    assert kinds(chosen(given, chats, tmp_path / "two", "--role", "user")) == {"cells-stars"}
    both = chosen(given, chats, tmp_path / "three")
    assert kinds(both) == {"cells-stars", "stars-cells"}
    assert all("\n" in row["text"] for row in both)


def test_a_template_and_a_target_of_another_shape(given, chats, tmp_path):
    more = ("--template", "{note}", "--target-text-column", "body")
    rows = chosen(given, chats, tmp_path / "one", *more, target="trade.json")
    assert kinds(rows) == {"stars-cells"}
    assert rows[0]["text"] in given.rows.values()
    more = ("--format", "messages", "--target-template", "{body}")
    rows = chosen(given, chats, tmp_path / "two", *more, target="trade.json")
    assert kinds(rows) == {"trade-trade"}


def test_python_chooses_the_same_rows(given, chats, tmp_path):
    rows = chosen(given, chats, tmp_path / "one", "--role", "assistant")
    fitted = GOTD().fit(chats / "mine.tsv", chats / "pool.jsonl", role="assistant")
    assert fitted.select(20).ids == [row["id"] for row in rows]
    more = {"template": "{note}", "target_format": "question"}
    fitted = GOTD().fit(chats / "mine.tsv", chats / "pool.jsonl", **more)
    assert {name.split("#")[0] for name in fitted.select(20).ids} == {"stars-cells"}


def test_the_manifest_states_the_shapes(given, chats, tmp_path):
    chosen(given, chats, tmp_path / "one", "--role", "assistant")
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert manifest["inputs"]["candidates"][0]["shape"] == "messages"
    assert manifest["inputs"]["target"][0]["shape"] == "question"
    assert manifest["request"]["columns"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--format", "chat"), "--format must be one of text, messages, conversations"),
        (("--format", "preference"), "needs chosen, rejected; it has id, messages, note, kept"),
        (("--template", "{note.x}"), "--template '{note.x}' cannot be read"),
        (("--template", "{nothing}"), "has no column 'nothing'; it has id, messages"),
        (("--template", "{note}", "--text-column", "note"), "contradict each other"),
        (
            ("--template", "{note}", "--target-template", "{answer}", "--role", "user"),
            "--role user has no effect",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(given, chats, tmp_path, capsys, more, says):
    out, store = tmp_path / "out", tmp_path / "store"
    given_arguments = arguments(given, chats, out, *more, "--store", str(store))
    assert (
        main(
            [*given_arguments, "--target-format", "question"][
                : -2 if "--target-template" in more else None
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not store.exists()
    assert not out.exists()
