"""Run `gotd select` as README shows it, and compare its cost with what `--plan` stated before.

The first selection is README's own command, on generated chats with several languages, copies,
near-copies and overlap with a test set. With DATA, two selections from real passages follow.

    python experiments/benchmarks/selecting.py            # 100,000 chats
    python experiments/benchmarks/selecting.py --quick    # 2,000 chats
    DATA=… python experiments/benchmarks/selecting.py     # real passages, too
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import command, describe_machine, options, table, write

README = Path(__file__).parents[2] / "README.md"
SEED = 0
CHATS, QUICK_CHATS = 100_000, 2_000
SYLLABLES = ["ba", "ko", "ri", "ten", "mul", "sha", "ver", "lo", "pin", "dra", "wes", "gal"]
SHARES = {
    "medicine": 0.02, "law": 0.1, "code": 0.25, "sport": 0.15, "cooking": 0.15,
    "travel": 0.13, "music": 0.1, "history": 0.1,
}  # fmt: skip
COPIED, CHANGED, LEAKED = 0.03, 0.02, 0.002
"""Shares of the chats that are copies, copies with a changed word, and chats of the test set."""


class Chats:
    """Generated chats: words of a topic among common ones, each by a Zipf distribution."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.common = self._words(2_000, "")
        self.own = {topic: self._words(800, topic[:3]) for topic in SHARES}

    def _words(self, count: int, ending: str) -> np.ndarray:
        parts = self.random.choice(SYLLABLES, (count, 3))
        return np.array(["".join(part) + ending for part in parts])

    def _text(self, topic: str, least: int, most: int) -> str:
        count = self.random.integers(least, most)
        lists = (self.common, self.own[topic])
        ranks = [self.random.zipf(1.3, count) % len(words) for words in lists]
        drawn = [words[rank] for words, rank in zip(lists, ranks, strict=True)]
        return " ".join(np.where(self.random.random(count) < 0.35, drawn[1], drawn[0]))

    def chat(self, topic: str) -> list[dict[str, str]]:
        """Return one or two questions with answers."""
        turns = []
        for _ in range(self.random.choice([1, 1, 2])):
            turns.append({"role": "user", "content": self._text(topic, 8, 30)})
            turns.append({"role": "assistant", "content": self._text(topic, 30, 140)})
        return turns

    def pool(self, rows: int, test: Sequence[list]) -> Iterator[dict[str, Any]]:
        """Yield the rows to select from."""
        topics = self.random.choice([*SHARES], rows, p=[*SHARES.values()])
        kept: list[list] = []
        for row, topic in enumerate(topics):
            chance = self.random.random() if kept else 1.0
            if chance < COPIED + CHANGED:
                turns = json.loads(json.dumps(kept[int(self.random.integers(len(kept)))]))
                if chance >= COPIED:
                    turns[-1]["content"] += " changed"
            elif chance < COPIED + CHANGED + LEAKED:
                turns = test[int(self.random.integers(len(test)))]
            else:
                turns = self.chat(topic)
                kept.append(turns)
            language = str(self.random.choice(["en", "en", "en", "de"]))
            stars = int(self.random.integers(1, 6))
            yield {"id": f"c{row}", "lang": language, "stars": stars, "messages": turns}


def write_chats(folder: Path, rows: int) -> None:
    """Write the target, the test set and the chats under the names that README uses."""
    chats = Chats(np.random.default_rng(SEED))
    test = [chats.chat("medicine") for _ in range(rows // 200)]
    target = [chats.chat(("law", "medicine")[n % 2]) for n in range(max(40, rows // 100))]
    files = {
        "test": ({"messages": turns} for turns in test),
        "mine": ({"messages": turns} for turns in target),
        "chats": chats.pool(rows, test),
    }
    for name, lines in files.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def readme_command() -> list[str]:
    """Return README's selection, as typed."""
    readme = README.read_text(encoding="utf-8")
    typed = readme[readme.index("gotd select --target mine.jsonl") :].replace("\\\n", " ")
    return shlex.split(typed.partition("\n")[0])


def selections(data: str | None) -> dict[str, list[str]]:
    """Return the arguments of each selection by name."""
    found = {"README, chats": readme_command()[2:]}
    if data:
        target, pool = f"{data}/domain/chemprot/train.parquet", f"{data}/candidates"
        both = ["--target", target, "--candidates"]
        found["ChemProt, got_d"] = [*both, f"{pool}/biomedical*.parquet", "--budget", "500"]
        found["ChemProt, dsir"] = [*both, pool, "--budget", "500", "--method", "dsir"]
        for arguments in list(found.values())[1:]:
            arguments += ["--out", "chosen.jsonl"]
    return found


def timed(arguments: Sequence[str], folder: Path) -> tuple[str, dict[str, float]]:
    """Run `gotd select`; return what it printed, and its seconds of clock and processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "gotd.cli.main", "select", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stderr)
    core_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = {"wall_s": time.perf_counter() - began, "core_s": core_s}
    return done.stdout + done.stderr, seconds


def measure(arguments: Sequence[str], folder: Path) -> dict[str, Any]:
    """Plan a selection, run it, and return both costs and what was selected."""
    printed, planning = timed([*arguments, "--store", "store", "--plan"], folder)
    found = re.search(r"in all about ([\d,.]+) (s|min) of processor time", printed)
    if found is None:
        raise RuntimeError(f"--plan printed no time: {printed}")
    planned = float(found[1].replace(",", "")) * (60 if found[2] == "min" else 1)
    _, seconds = timed([*arguments, "--store", "store"], folder)
    manifest = json.loads((folder / "chosen.gotd" / "manifest.json").read_text(encoding="utf-8"))
    return {
        **seconds,
        "planned_core_s": planned,
        "planned_over_run": planned / seconds["core_s"],
        "planning_core_s": planning["core_s"],
        "candidates": manifest["rows"]["candidates"],
        "left_out": sum(manifest["left_out_rows"].values()),
        "selected": sum(manifest["budgets"]),
    }


def main() -> None:
    """Run every selection and write the result."""
    parser = options(__doc__)
    parser.set_defaults(rounds=1)
    arguments = parser.parse_args()
    machine = describe_machine(["gotd", "torch", "scikit-learn", "rensa"])
    rows = QUICK_CHATS if arguments.quick else CHATS
    data = os.environ.get("DATA") or None
    result: dict[str, Any] = {
        "command": command(),
        "chats": rows,
        "seeds": {"chats": SEED},
        "hardware": machine,
        "selections": {},
    }
    given = selections(None if data is None else str(Path(data).absolute()))
    with tempfile.TemporaryDirectory() as place:
        for name, words in given.items():
            folder = Path(place) / str(len(result["selections"]))
            folder.mkdir()
            if name == "README, chats":
                write_chats(folder, rows)
                result["chats_mb"] = round((folder / "chats.jsonl").stat().st_size / 1e6)
                if arguments.quick:
                    words = [word.replace("2M", "20k") for word in words]
            result["selections"][name] = measure(words, folder)
    write(arguments, result, "Selections: cost, and what --plan stated", body(result))


def body(result: dict[str, Any]) -> list[str]:
    """Format the result as Markdown."""
    header = [
        "selection", "candidates", "left out", "selected", "wall s", "core-s", "planned core-s",
        "planned ÷ run", "core-s of the plan",
    ]  # fmt: skip
    names = [
        "candidates", "left_out", "selected", "wall_s", "core_s", "planned_core_s",
        "planned_over_run", "planning_core_s",
    ]  # fmt: skip
    rows = [[name, *(one[key] for key in names)] for name, one in result["selections"].items()]
    says = f"The chats of README's command: {result['chats']:,} rows, {result['chats_mb']} MB."
    return [says, "", *table(header, rows)]


if __name__ == "__main__":
    main()
