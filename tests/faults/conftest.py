"""Small inputs, and the command run in this process."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from gotd.cli.main import main

ROWS = [{"text": f"the dog number {i} barks loudly in park{i}"} for i in range(20)]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


COMMANDS = ("sweep", "export", "select", "fetch", "report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the cases of a command in a row: they share a process, and an undisturbed run."""

    def command(item: pytest.Item) -> int:
        name = item.callspec.params["name"] if item.get_closest_marker("faults") else ""
        return COMMANDS.index(name.split(",")[0]) if name else -1

    items.sort(key=command)


class Here:
    """A folder with a target and a pool, and the command `gotd select` in it."""

    def __init__(self, folder: Path, capture: Any) -> None:
        self.folder, self._capture = folder, capture
        self.target = folder / "t.txt"
        self.target.write_text("the dog barks\nthe cat sleeps\n", "utf-8")
        self.pool = write_rows(folder / "p.jsonl", ROWS)

    def select(self, *more: str, pool: Path | None = None, out: str = "o") -> tuple[int, str]:
        """Run the command and return its status and what it printed."""
        for handler in list(logging.getLogger().handlers):
            logging.getLogger().removeHandler(handler)  # else it keeps the stream of another test
        self._capture.readouterr()
        arguments = ["select", "--target", str(self.target), "--budget", "2"]
        arguments += ["--candidates", str(pool or self.pool), "--out", str(self.folder / out)]
        status = main([*arguments, "--store", str(self.folder / "store"), *more])
        printed = self._capture.readouterr()
        return status, printed.out + printed.err

    def rows(self, out: str = "o") -> list[dict[str, Any]]:
        """Read what was selected."""
        import pyarrow.parquet as pq

        return pq.read_table(self.folder / out / "selected.parquet").to_pylist()


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(tmp_path, capsys)
