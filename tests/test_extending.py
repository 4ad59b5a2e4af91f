"""The task and the metric of docs/extending.md, followed in an empty folder as typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gotd

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
FILE = re.compile(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENTRY_POINTS = re.compile(r"^```toml\n(\[project\.entry-points.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)

READ_BACK = """
import json
import numpy as np
from gotd.config.build import build, typed
from gotd.data.folder import Folder
from gotd.evaluation.metrics import gain, metric, score
from gotd.pipeline.experiment import plan_cell
from gotd.runs.expand import SweepError, expand

command = ["experiment=domain", "scale=folder", "source.path=data", "model=small", "seed=1"]
command += ["task=headlines", "selector=got_d", "embedder=tfidf_svd", "tracker=none"]
((config, _),) = expand([*command, "task.most_chars=33"])
task = build(config.task)
tables = task.tables(Folder("data"), typed(config.limits), "clean", 0)
try:
    expand([*command, "task.most_char=33"])
    typo = None
except SweepError as error:
    typo = str(error)
predicted, labels = np.array([0, 1, 1, 0]), np.array([0, 1, 1, 1])
rows = next(s for s in plan_cell(config).record.ancestors() if s.kind == "task")
print(json.dumps({
    "longest": max(map(len, tables["train"]["text"].to_pylist())),
    "tables": sorted(tables),
    "in_key": rows.parameters["task"]["most_chars"],
    "class": rows.parameters["task"]["class"],
    "score": score("error_rate", predicted, labels),
    "gain": gain("error_rate", predicted, labels),
    "lower_is_better": not metric("error_rate").higher_is_better,
    "typo": typo,
}))
"""


def part(title: str) -> str:
    """Return a part of the page."""
    _, _, rest = PAGE.read_text("utf-8").partition(f"\n## {title}\n")
    assert rest, f"no part {title!r} in {PAGE}"
    return rest.partition("\n## ")[0]


def run(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(folder), str(Path(gotd.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write the files of both parts, and the metadata that an installer would write."""
    folder = tmp_path_factory.mktemp("package")
    text = part("A task") + part("A metric")
    files = dict(FILE.findall(text)) | {"my_package/__init__.py": ""}
    metadata = folder / "my_package-0.1.dist-info"
    for path in (folder / "my_package", metadata):
        path.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 0.1\n")
    groups = tomllib.loads("".join(ENTRY_POINTS.findall(text)))["project"]["entry-points"]
    assert set(groups) == {"gotd.tasks", "gotd.metrics"}
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    run(folder, "make_rows.py")
    return folder


def test_the_task_and_the_metric_are_known(folder):
    known = json.loads(run(folder, "-c", READ_BACK))
    assert known["longest"] <= 33
    assert known["tables"] == ["reported-test", "train", "validation"]
    assert (known["in_key"], known["class"]) == (33, "Headlines")
    assert (known["score"], known["gain"], known["lower_is_better"]) == (0.25, -0.25, True)
    assert "most_char" in known["typo"]


@pytest.mark.slow
def test_the_commands_run_as_typed(folder):
    (block,) = COMMANDS.findall(part("A metric"))
    first, second = block.replace("\\\n", "").strip().splitlines()
    assert first == "python make_rows.py"
    program, *arguments = shlex.split(second)
    assert program == "gotd"
    assert "2 cells done, 0 failed" in run(folder, "-m", "gotd.cli.main", *arguments)
    records = [
        json.loads(path.read_text()) for path in folder.glob("artifacts/record/*/record.json")
    ]
    assert {record["axes"]["arm"] for record in records} == {"none", "got_d"}
    for record in records:
        metrics = record["metrics"]
        assert metrics["headline_name"] == "error_rate"
        assert metrics["headline_higher_is_better"] is False
        assert metrics["headline"] == pytest.approx(1 - metrics["accuracy"])
