"""The package of docs/extending.md, followed from scratch, and packages that are broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gotd
from gotd.cli.main import main
from gotd.config import discovery
from gotd.selectors import registry

DOCS = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

KNOWN_EVERYWHERE = """
import json
from gotd.config.build import build
from gotd.pipeline.experiment import plan_cell
from gotd.reporting.cells import order_arms
from gotd.runs.expand import SweepError, expand
from gotd.selectors.registry import build_selector, colours, entry

(config, _), = expand(["experiment=glue", "task=cola", "seed=1", "selector=shortest"])
cell = plan_cell(config)
ranking = next(step for step in cell.record.ancestors() if "method" in step.parameters)
try:
    expand(["experiment=glue", "task=cola", "seed=1", "selector=shortest", "selector.method.x=1"])
    typo = None
except SweepError as error:
    typo = str(error)
print(json.dumps({
    "arms": order_arms(["got_d", "shortest", "random"]),
    "colour": colours()["shortest"],
    "package": entry("shortest").package,
    "built": repr(build_selector("shortest", {"least_chars": "3"})),
    "texts": build(config.selector.method).work(1_000, 10, 64, 5).texts,
    "planned": ranking.stated.texts,
    "axes": cell.axes["arm"],
    "ranks": ranking.parameters["method"],
    "reads": sorted(ranking.inputs),
    "typo": typo,
}))
"""


def install(files: dict[str, str], folder: Path) -> None:
    """Write a package and the metadata that an installer would write."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))


def documented() -> dict[str, str]:
    return dict(BLOCK.findall(DOCS.read_text("utf-8")))


@pytest.fixture(scope="module")
def outside(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    install(documented() | {"my_package/__init__.py": "raise SystemExit('imported')\n"}, folder)
    return folder


def python(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(folder), str(Path(gotd.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_help_offers_it_without_an_import(outside):
    out = python(outside, "-m", "gotd.cli.main", "select", "--help")
    assert re.search(r"^  shortest +shortest texts first$", out, re.MULTILINE)


def test_every_part_knows_it(outside):
    (outside / "my_package" / "__init__.py").write_text("")
    known = json.loads(python(outside, "-c", KNOWN_EVERYWHERE))
    assert known["arms"] == ["random", "shortest", "got_d"]
    assert known["colour"] == "#117733"
    assert known["package"] == "my-package"
    assert known["built"] == "Shortest(least_chars=3)"
    assert known["texts"] == 1_010
    assert known["planned"] == 30_400  # by its own method: the pool and the target
    assert known["axes"] == "shortest"
    assert known["ranks"] == {"class": "Shortest", "version": 1, "least_chars": 1}
    assert known["reads"] == ["candidates"]
    assert "x" in known["typo"]


def test_it_passes_the_contract_by_the_documented_test(outside):
    (outside / "my_package" / "__init__.py").write_text("")
    out = python(outside, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shortest.py")
    assert " passed" in out
    assert "skipped" in out  # it needs no embeddings


def test_it_selects(outside):
    (outside / "my_package" / "__init__.py").write_text("")
    (outside / "target.txt").write_text("dog\n")
    (outside / "pool.txt").write_text("three words here\na\nbb\n")
    command = "select --target target.txt --candidates pool.txt --budget 2 --method shortest"
    python(outside, "-m", "gotd.cli.main", *command.split(), "--set", "least_chars=2", "--out", "o")
    import pyarrow.parquet as pq

    assert pq.read_table(outside / "o" / "selected.parquet")["text"].to_pylist() == [
        "bb",
        "three words here",
    ]


# Packages that are broken -----------------------------------------------------------------

PROJECT = """
[project]
name = "broken-package"
version = "0.1"
[project.entry-points."gotd.selectors"]
{point}
"""


@pytest.fixture
def fresh():
    """Forget what was read, before and after."""

    def forget():
        discovery.options.cache_clear()
        registry.entries.cache_clear()

    forget()
    yield
    forget()


@pytest.mark.parametrize(
    ("point", "files", "names"),
    [
        ('one = "nowhere.one:One"', {}, "no module 'nowhere.one'"),
        ('one = "package.one:One"', {"package/__init__.py": ""}, "no module 'package.one'"),
        ('one = "one"', {"one.py": "", "one.yaml": "arm: one\n"}, "module:Class"),
        ('one = "one:One"', {"one.py": ""}, "one.yaml"),
        ('one = "one:One"', {"one.py": "", "one.yaml": "arm: [\n"}, "one.yaml"),
        ('one = "one:One"', {"one.py": "", "one.yaml": "- arm\n"}, "one.yaml"),
        ('one = "one:One"', {"one.py": "", "one.yaml": "arm: two\n"}, "arm must be one"),
        ('one = "one:One"', {"one.py": "", "one.yaml": "arm: one\nabout: {hepl: x}\n"}, "'help'"),
        (
            'one = "one:One"',
            {"one.py": "", "one.yaml": "arm: one\nmethod: {_target_: other.One}\n"},
            "other.One",
        ),
        ('random = "one:One"', {"one.py": "", "random.yaml": "arm: random\n"}, "selector=random"),
    ],
)
def test_a_broken_package_is_one_line_that_names_it(
    point, files, names, tmp_path, monkeypatch, capsys, fresh
):
    install({"pyproject.toml": PROJECT.format(point=point), **files}, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["select", "--help"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "broken-package" in line
    assert names in line


@pytest.mark.parametrize("module", ["raise ImportError('no torch')", "class Two: pass"])
def test_a_class_that_cannot_be_loaded_names_its_package(module, tmp_path, monkeypatch, fresh):
    files = {"loads.py": module, "loads.yaml": "arm: loads\n"}
    install({"pyproject.toml": PROJECT.format(point='loads = "loads:One"'), **files}, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="broken-package"):
        registry.build_selector("loads", {})
    sys.modules.pop("loads", None)


def test_another_group_is_extended_in_the_same_way(tmp_path, monkeypatch):
    from hydra.core.config_store import ConfigStore

    from gotd.config.build import register, targets

    project = PROJECT.replace("gotd.selectors", "gotd.evaluations")
    module = (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass A:\n    x: int = 1\n"
    )
    files = {"answers.py": module, "answers.yaml": "defaults: [base_answers]\nx: 2\n"}
    install({"pyproject.toml": project.format(point='answers = "answers:A"'), **files}, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert targets()["evaluation", "answers"] == "answers.A"
    store = ConfigStore.instance()
    before = dict(store.repo["evaluation"]) if "evaluation" in store.repo else {}
    register()
    added = set(store.repo["evaluation"]) - set(before)
    assert {"base_answers.yaml", "answers.yaml"} <= added | set(before)
    for name in ("base_answers.yaml", "answers.yaml"):
        del store.repo["evaluation"][name]
    sys.modules.pop("answers", None)
