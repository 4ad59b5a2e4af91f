"""What a terminal shows while ``gotd select`` runs: rows done, of how many, and the rate."""

from __future__ import annotations

import io
from contextlib import contextmanager

import pytest
from rich.console import Console

from gotd.cli.main import main
from gotd.engine import progress


def test_every_long_step_counts_its_rows(given, tmp_path, monkeypatch):
    seen: dict[str, list[int | None]] = {}

    @contextmanager
    def watcher(label, total):
        seen[label] = [total, 0]

        def count(rows):
            seen[label][1] += rows

        yield count

    monkeypatch.setattr("gotd.cli.select.watch_terminal", lambda: watcher)
    test = tmp_path / "test.jsonl"
    test.write_text('{"text": "a text of nobody"}')
    more = ("--budget", "9", "--dedup", "near", "--exclude", str(test), "--where", "domain != 'x'")
    arguments = ("--out", str(tmp_path / "a.jsonl"), "--weights", str(tmp_path / "w.csv"), *more)
    store = ("--store", str(tmp_path / "store"))
    assert main(given.arguments(*arguments, *store)) == 0
    known = {label: counts for label, counts in seen.items() if counts[0] is not None}
    expected = {
        "embeddings tfidf_svd-candidates": 360,
        "left_out candidates": 4 * 360,
        "selecting and writing": 2 * 360 + 9,
    }
    assert {label: total for label, (total, _) in known.items() if label in expected} == expected
    # Sources are read up to the last chosen row.
    total, counted = known.pop("selecting and writing")
    assert 360 + 9 < counted <= total
    for label, (total, counted) in known.items():
        assert counted == total, label
    assert seen["pool candidates"][1] == 360


def test_a_bar_has_a_rate_and_the_time_left(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr("rich.console.Console", lambda stderr: console)
    with progress.bars("reading", 1000) as count:
        count(400)
    text = screen.getvalue()
    assert "reading" in text
    assert "1000/1000" in text
    assert "/s" in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_lines_are_plain_where_there_is_no_terminal(monkeypatch, is_terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    assert progress.watch_terminal() is (progress.bars if is_terminal else progress.lines)
