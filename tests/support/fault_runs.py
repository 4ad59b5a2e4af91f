"""Runs of the program in forked children, and what they leave, time stamps and costs aside."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FULL = os.environ.get("FULL") == "1"
"""Try every operation, not a seeded sample."""
SOURCES = Path(__file__).parents[2] / "src"
MODULES = (
    "gotd.cli.main gotd.cli.select gotd.runs.sweep gotd.runs.export gotd.pipeline.experiment "
    "gotd.pipeline.output gotd.selectors.got_d gotd.embedding.tfidf gotd.evaluation.fine_tuned "
    "gotd.evaluation.metrics gotd.training.classifier gotd.training.language_model peft datasets "
    "gotd.training.models gotd.reporting.report gotd.reporting.figures matplotlib.pyplot evaluate "
    "sklearn.linear_model transformers.models.bert.modeling_bert transformers.pipelines rich numba "
    "hydra.main hydra._internal.hydra hydra._internal.core_plugins.basic_launcher "
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher scipy.optimize requests multiprocess"
)
"""What the server imports once; a name that a library no longer has is passed over."""
COUNT = {"kind": "count"}
NOT_COMPARED = frozenset(
    ["cost", "created_at", "steps", "peak_memory_gib", "started_at", "elapsed_s", "stages_s"]
)


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Args:
        status: Exit status; negative for a signal.
        printed: Both outputs.
        errors: The second one.
        operations: What it did to files.
    """

    status: int
    printed: str
    errors: str = ""
    operations: list[str] = field(default_factory=list)

    def is_clear(self, start: str) -> bool:
        """Return whether it was refused in one line of such a start, without a traceback."""
        starts = f"{start}: ", f"gotd {start}: "
        lines = [one for one in self.errors.splitlines() if one.startswith(starts)]
        return self.status == 2 and len(lines) == 1 and "Traceback" not in self.printed


class Server:
    """The process that forks runs; see `fault_server`.

    Args:
        environment: Variables that libraries read when they are imported.
        modules: Modules to import once, with blanks between.
    """

    def __init__(self, environment: dict[str, str], modules: str = MODULES) -> None:
        known = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fault_server.py")), *modules.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **known, "PYTHONPATH": str(SOURCES), **environment},
        )

    def together(self, folder: Path, *runs: dict[str, Any]) -> list[Ended]:
        """Start runs at once in a folder and wait for all of them."""
        full = []
        for number, run in enumerate(runs):
            beside = folder.parent / f"{folder.name}-{number}"
            names = {name: f"{beside}.{name}" for name in ("stdout", "stderr", "trace")}
            known = {"env": {}, "unset": [], "closed": False, "fault": COUNT, "prepare": ""}
            full.append({**known, "folder": str(folder), "roots": [f"{folder}/"], **names, **run})
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(full) + "\n")
        stdin.flush()
        statuses = json.loads(stdout.readline())
        return [_ended(run, status) for run, status in zip(full, statuses, strict=True)]

    def run(self, folder: Path, arguments: Sequence[str], **options: Any) -> Ended:
        """Run the program once in a folder."""
        (ended,) = self.together(folder, {"arguments": [*arguments], **options})
        return ended

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _ended(run: dict[str, Any], status: int) -> Ended:
    printed, errors, operations = (
        Path(run[name]).read_text("utf-8", "replace") for name in ("stdout", "stderr", "trace")
    )
    return Ended(status, printed + errors, errors, operations.splitlines())


def sample(operations: int, most: int) -> list[int]:
    """Return which operations to disturb: all under FULL=1, else a seeded sample with the last."""
    every = range(1, operations + 1)
    if FULL or operations <= most:
        return [*every]
    return sorted({*random.Random(operations).sample(every, most - 1), operations})


def left(folder: Path) -> dict[str, str]:
    """Return name and checksum of each file and folder, time stamps and costs aside."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = _checksum(path) if path.is_file() else "folder"
    return found


def _checksum(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "cost.json":  # it also says whether a run was resumed
        content = b""
    elif path.suffix == ".json" or path.name == "records.jsonl":
        lines = content.splitlines() if path.suffix == ".jsonl" else [content]
        content = json.dumps([_timeless(json.loads(line)) for line in lines]).encode()
    elif path.name == "report.md":
        content = re.sub(rb"\n## Time\n.*?(?=\n## )", b"", content, flags=re.DOTALL)
    elif path.suffix == ".html":
        parts = rb"<summary>Cost.*?</details>|<h2>Time</h2>.*?(?=<h2>)"
        content = re.sub(parts, b"", content, flags=re.DOTALL)
    elif path.stem.endswith("_cost"):
        content = b""
    elif path.suffix == ".yaml":  # Hydra's has the working folder
        content = re.sub(rb"(?m)^ +cwd: .*", b"", content)
    return hashlib.sha256(content).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in NOT_COMPARED}
    return value


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Return the names that only one of two results has, or that differ."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
