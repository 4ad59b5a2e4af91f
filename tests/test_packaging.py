"""What is installed: pins that agree, and a wheel that works away from the repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import gotd

TOP = Path(__file__).parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (TOP / ".ci" / "lock.txt").read_text("utf-8")
MAKEFILE = (TOP / "Makefile").read_text("utf-8")


def name_of(requirement: str) -> str:
    """Return a package's name as the lock writes it."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    return {name_of(name): version for name, version in found}


def test_the_lock_has_versions_and_hashes_and_no_address():
    assert "://" not in LOCK
    packages = re.split(r"\n(?=[a-z0-9])", LOCK.strip(), flags=re.IGNORECASE)
    assert len(packages) >= len(pins(LOCK)) > 100  # some have a version for each Python
    assert all("--hash=sha256:" in package for package in packages)


def test_the_lock_has_the_versions_of_the_constraints():
    locked, stated = pins(LOCK), pins((TOP / "constraints.txt").read_text("utf-8"))
    (torch,) = re.findall(r"^TORCH_VERSION := (\S+)", MAKEFILE, re.MULTILINE)
    stated["torch"] = torch
    both = locked.keys() & stated.keys()
    assert {name: locked[name] for name in both} == {name: stated[name] for name in both}
    bench = map(name_of, PROJECT["optional-dependencies"]["bench"])
    needs = {"jaxlib", *bench}  # the benchmarks' packages are installed apart
    assert stated.keys() - locked.keys() <= needs


def test_the_lock_has_every_dependency():
    needed = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    assert needed <= pins(LOCK).keys()


def test_users_get_no_developer_tools():
    needed = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    tools = {name_of(requirement) for requirement in PROJECT["optional-dependencies"]["dev"]}
    assert {"pytest", "ruff", "pyright", "uv"} <= tools
    assert not needed & tools


def test_versions_agree():
    citation = yaml.safe_load((TOP / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"] == gotd.__version__


def test_the_make_targets_call_the_same_command():
    for name in ("glue", "domain", "labels", "zeroshot", "toxicity", "gap", "grid"):
        assert f"$(GOTD) run experiment={name} scale=$(SCALE) $(ARGS)" in MAKEFILE
        script = (TOP / "experiments" / f"{name}.py").read_text("utf-8")
        assert f'sys.exit(main(["run", "experiment={name}", *sys.argv[1:]]))' in script


TINY = [
    *("task=cola", "selector=none", "seed=1", "tracker=none"),
    *("source.pretraining_documents=150", "source.candidate_documents=800"),
    *("source.rare_share=0.1", "source.labels=40", "source.evaluation_rows=32"),
    *("limits.validation_rows=8", "model.pretraining.epochs=0.5", "fine_tune.epochs=1"),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_runs_experiments_and_selects(tmp_path):
    """Build it without a network, install it elsewhere, and call it in another folder."""
    wheels, installed, place = (tmp_path / name for name in ("wheels", "installed", "place"))
    place.mkdir()

    def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
        environment = {**os.environ, "PYTHONPATH": "" if path is None else str(path)}
        command = [sys.executable, *arguments]
        return subprocess.check_output(command, cwd=cwd, env=environment, text=True, timeout=600)

    python("-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels), cwd=TOP)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
    packed = {f"gotd/conf/{p.relative_to(TOP / 'conf')}" for p in (TOP / "conf").rglob("*.yaml")}
    assert files >= {"gotd/py.typed", *packed}
    assert not any("tests" in name or name.endswith(".pyc") for name in files)
    quiet = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target")
    python(*quiet, str(installed), str(wheel), cwd=place)
    gotd_command = str(installed / "bin" / "gotd")
    where = python("-c", "import gotd; print(gotd.__file__)", cwd=place, path=installed)
    assert Path(where.strip()).is_relative_to(installed)

    said = python(gotd_command, "run", "experiment=glue", *TINY, cwd=place, path=installed)
    assert "1 cells done, 0 failed, 0 missing" in said
    assert list(place.glob("artifacts/reports/glue-micro-*/report.html"))

    rows = [{"text": f"{word} {n} of {word}"} for word in ("cell", "bank") for n in range(20)]
    (place / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (place / "mine.jsonl").write_text("\n".join(map(json.dumps, rows[:5])), "utf-8")
    select = ["select", "--target", "mine.jsonl", "--candidates", "pool.jsonl", "--budget", "10"]
    python(gotd_command, *select, "--out", "chosen.jsonl", cwd=place, path=installed)
    chosen = [
        json.loads(line)["text"]
        for line in (place / "chosen.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(chosen) == 10
