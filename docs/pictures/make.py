"""Write the pictures of the documentation again: `make pictures` (needs Chromium for the page).

- `terminal.svg`: a selection from generated chats in a terminal of its own, drawn by rich.
- `report.png`: a section of `results/report.html`, drawn by Chromium.
"""

import io
import json
import os
import pty
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
COLUMNS = 104
ROWS = 20_000
SECTION = r'<h2 id="s\d+">glue: scale micro[^<]*protocol clean(?!: target loss)'
"""The section of the page that is drawn, the last such one: accuracy of GLUE on generated text."""
COMMAND = (
    "gotd select --target mine.jsonl --candidates chats.jsonl "
    "--where \"lang == 'en' and stars >= 2\" --dedup near "
    "--exclude test.jsonl --tokens 200k --removed removed.csv --out chosen.jsonl"
)
WORDS = {
    "law": "court judge appeal contract clause statute claim ruling party lawyer witness oath",
    "medicine": "dose patient trial tissue symptom therapy blood clinic nerve vaccine fever pulse",
    "cooking": "oven flour butter simmer onion recipe dough salt pan broth pepper knife",
    "sports": "match goal league coach season striker referee final score team pitch medal",
}
COMMON = "the a of and in was for with that this on by from is are had were it has not"


def chat(draw: random.Random, topic: str) -> dict:
    """Return a chat of one question and one answer."""

    def text(words: int) -> str:
        own, other = WORDS[topic].split(), COMMON.split()
        return " ".join(draw.choice(own if draw.random() < 0.4 else other) for _ in range(words))

    turns = [("user", text(draw.randint(8, 20))), ("assistant", text(draw.randint(20, 90)))]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def write_rows(folder: Path) -> None:
    """Write a target, a test set, and chats with copies and rows of the test set."""
    draw = random.Random(0)
    target = [chat(draw, topic) for topic in ["law", "medicine"] * 250]
    test = [chat(draw, "medicine") for _ in range(200)]
    topics = draw.choices(list(WORDS), weights=[32, 4, 32, 32], k=ROWS)
    pool = [chat(draw, topic) for topic in topics]
    pool[1000:1400] = pool[:400]
    pool[1400:1450] = test[:50]
    for row in pool:
        row |= {"lang": draw.choice(["en", "en", "en", "de"]), "stars": draw.randint(1, 5)}
    for name, rows in {"mine": target, "test": test, "chats": pool}.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def in_terminal(command: str, folder: Path) -> str:
    """Return what a command shows in the end, on a terminal of its own."""
    main, end = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color"}
    code = "import sys; from gotd.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, *shlex.split(command)[1:]]
    done = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=end, stderr=end)
    os.close(end)
    shown = b""
    while True:
        try:
            block = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        shown += block
    if done.wait():
        raise SystemExit(shown.decode())
    # A bar is drawn over itself: what follows the last return is what stays.
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in shown.decode().split("\n")]
    return re.sub(r"\x1b\[[0-9;?]*[A-HJ-Zac-ln-z]", "", "\n".join(lines))


def terminal(path: Path) -> None:
    """Draw a selection in a terminal."""
    with tempfile.TemporaryDirectory(prefix="gotd-") as name:
        write_rows(Path(name))
        shown = in_terminal(COMMAND, Path(name)).replace(f"{name}/", "")
        three = (Path(name) / "chosen.gotd" / "report.md").read_text("utf-8").splitlines()[2:5]
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    typed = re.sub(r" (--where|--exclude)", r" \\\n    \1", COMMAND)
    console.print(Text(f"$ {typed}", style="bold"))
    console.print(Text.from_ansi(shown.rstrip()))
    console.print(Text("$ sed -n 3,5p chosen.gotd/report.md", style="bold"))
    console.print(Text("\n".join(three)))
    svg = console.export_svg(title="gotd select", theme=MONOKAI, unique_id="terminal")
    # No font from a network: the terminal font of the reader.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    path.write_text(svg.replace("Fira Code", "DejaVu Sans Mono"), encoding="utf-8")


def report(path: Path) -> None:
    """Draw a section of the page of the committed results."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("report.png needs Chromium; install it, or leave the picture as it is")
    with tempfile.TemporaryDirectory(prefix="gotd-") as profile:
        command = [chromium, "--headless", "--no-sandbox", f"--user-data-dir={profile}"]
        command += ["--hide-scrollbars", "--window-size=1000,900", f"--screenshot={path}"]
        html = (TOP / "results" / "report.html").read_text("utf-8")
        head, *sections = re.split(r'(?=<h2 id=")', html)
        section = [one for one in sections if re.match(SECTION, one)][-1]
        page = Path(profile) / "page.html"  # the browser draws the top of a page alone
        page.write_text(head.partition("<body")[0] + "<body>" + section, encoding="utf-8")
        command.append(page.as_uri())
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    Image.open(path).quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    pictures = {"terminal.svg": terminal, "report.png": report}
    for name in sys.argv[1:] or pictures:
        pictures[name](HERE / name)
