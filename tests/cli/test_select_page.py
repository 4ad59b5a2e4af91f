"""The page that `gotd select` writes beside its report, from files and in a browser."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import gotd
from gotd.cli.main import main

SCRIPT = "<script>document.title = 'broken'</script>"
CLOSING = "</script>"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a pool with texts and domains that a page must not interpret."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {"id": f"{n}", "text": f"{SCRIPT} cell number {n}", "domain": CLOSING if n % 2 else "cells"}
        for n in range(40)
    ]
    rows += [{"id": f"m{n}", "text": f"bank money {n}", "domain": "bank"} for n in range(40)]
    (folder / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    target = [{"text": f"a cell with the number {n} {SCRIPT}"} for n in range(10)]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, target)), "utf-8")
    return folder


def select(folder: Path, out: Path, *more: str) -> str:
    """Select, and return the page."""
    files = ["--target", str(folder / "mine.jsonl"), "--candidates", str(folder / "pool.jsonl")]
    store = ["--store", str(folder / "store")]
    assert main(["select", *files, *store, "--out", str(out), *more]) == 0
    return ((out.with_suffix(".gotd") if out.suffix else out) / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(hostile) -> Path:
    select(hostile, hostile / "chosen.jsonl", "--budget", "8,20")
    return hostile / "chosen.gotd" / "report.html"


def marks(text: str) -> list[str]:
    return re.findall(r'<use class="mark .*?</use>', text, re.DOTALL)


def test_the_page_has_the_report_and_a_map_of_the_largest_budget(page):
    text = page.read_text("utf-8")
    assert len(marks(text)) == 80 + 10 + 20
    said = " chose 20 of 80 candidates for 10 target texts"
    assert f"<code>got_d</code>{said}" in text
    assert f"`got_d`{said}" in (page.parent / "report.md").read_text("utf-8")
    for heading in ("What was chosen", "By domain", "What the method reports", "First rows"):
        assert f"<h2>{heading}</h2>" in text
    assert text.count("<script>") == 1
    assert html.escape(f"{SCRIPT} cell number 3") in text
    assert html.escape(CLOSING) in text


def test_the_map_is_the_same_in_every_run_and_form(hostile, page, tmp_path):
    shutil.rmtree(hostile / "store")
    folder = select(hostile, tmp_path / "chosen", "--budget", "20")
    assert marks(folder) == marks(page.read_text("utf-8"))
    ours = gotd.GOTD().fit(hostile / "mine.jsonl", hostile / "pool.jsonl").select(20)
    assert marks(ours.page) == marks(folder)


def test_methods_without_vectors_have_a_map_with_explanations_alone(hostile, tmp_path):
    words = ("--budget", "5", "--method", "dsir")
    assert "There is no map: dsir" in select(hostile, tmp_path / "a.jsonl", *words)
    explained = select(hostile, tmp_path / "b.jsonl", *words, "--explain")
    assert len(marks(explained)) == 80 + 10 + 5


def test_one_row_without_a_domain(tmp_path):
    for name in ("mine", "pool"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": "one cell"}), "utf-8")
    text = select(tmp_path, tmp_path / "chosen.jsonl", "--budget", "1")
    assert len(marks(text)) == 3
    assert "rows chosen / in the pool" not in text


# In a browser --------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """A page in headless Chromium, controlled by its DevTools protocol over two pipes.

    Args:
        commands: Where commands are written.
        answers: Where answers and events are read.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._held = commands, answers, b""
        self._number, self._session = 0, ""
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Log", "Runtime"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            more = os.read(self._answers, 1 << 16)
            assert more, "the browser has ended"
            self._held += more
        message, _, self._held = self._held.partition(b"\0")
        found = json.loads(message)
        if "id" not in found:
            self.events.append(found)
        return found

    def open(self, path: Path) -> None:
        """Load a file."""
        self.events.clear()
        self("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get(
            "value"
        )

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Return what went wrong in the page, or was refused by its policy."""
        wrong = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in wrong]


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    assert CHROMIUM is not None
    (read, commands), (answers, write) = os.pipe(), os.pipe()

    def take_pipes() -> None:  # Chromium reads from 3 and writes to 4
        high = os.dup(read), os.dup(write)
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
    process = subprocess.Popen(
        [CHROMIUM, *options, f"--user-data-dir={profile}", "--window-size=1250,1400"],
        preexec_fn=take_pipes,  # noqa: PLW1509 - no thread of ours holds a lock
        close_fds=False,
        stderr=subprocess.DEVNULL,
    )
    os.close(read)
    os.close(write)
    browser = None
    try:
        browser = Browser(commands, answers)
        yield browser
    finally:
        if browser is not None:
            browser._session = ""
            with suppress(OSError, AssertionError):
                browser("Browser.close")
        process.terminate()
        process.wait(30)
        os.close(commands)
        os.close(answers)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser_the_page_has_no_error_and_a_mark_shows_its_text(page, tmp_path):
    place = (
        "(() => { const box = document.querySelector('.mark.target').getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    shown = "document.querySelector('.tip').textContent"
    with chromium(tmp_path / "profile") as browser:
        browser.open(page)
        assert browser.value("document.title") == "Selection by got_d"
        assert browser.value("document.scripts.length") == 1
        assert "arrow keys" in browser.value(shown)
        x, y = browser.value(place)
        browser("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        assert re.match(rf"target.*\na cell with the number \d+ {SCRIPT}", browser.value(shown))

        browser.value("document.querySelector('.points').focus()")
        reached = {browser.value(shown)}
        for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowRight"):
            browser("Input.dispatchKeyEvent", type="keyDown", key=key)
            reached.add(browser.value(shown))
        assert len(reached) > 2

        hidden = "getComputedStyle(document.querySelector('.mark.target')).display"
        assert browser.value(hidden) == "inline"
        browser.value("document.querySelector('#k-target').click()")
        assert browser.value(hidden) == "none"
        browser("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y + 1)
        assert not browser.value(shown).startswith("target")
        assert browser.errors == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_without_a_script_the_map_is_a_picture_with_its_legend(page, tmp_path):
    with chromium(tmp_path / "profile") as browser:
        browser("Emulation.setScriptExecutionDisabled", value=True)
        browser.open(page)
        assert browser.value("document.querySelectorAll('.mark title').length") == 110
        seen = "document.querySelector('.mark.selected').getBoundingClientRect().width"
        assert browser.value(seen) > 0
        assert browser.value("document.querySelectorAll('.legend label').length") == 6
        browser.value("document.querySelector('#k-pool').click()")
        hidden = "getComputedStyle(document.querySelector('.mark.pool')).display"
        assert browser.value(hidden) == "none"
