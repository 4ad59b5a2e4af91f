"""What a command says, and how it ends, whatever happens around it (K8, K9, K10)."""

from __future__ import annotations

import ast
import errno
import importlib
import importlib.util
import logging
import os
import re
import runpy
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gotd
from gotd.cli import main as command
from gotd.cli.main import main
from gotd.data.columns import Columns
from gotd.data.inputs import named_parts
from gotd.data.rows import Rows
from gotd.pipeline.request import Request
from gotd.reporting.records import read_jsonl
from gotd.reporting.tables import counted_seeds
from gotd.runs.expand import expand, expand_cells
from gotd.runs.process import warnings_logged
from gotd.storage.artifacts import ArtifactError, Step, Store
from gotd.training.loading import load_config

TOP = Path(__file__).parents[2]
SOURCES = TOP / "src" / "gotd"
SWEEPS = ("domain", "gap", "glue", "grid", "instruction", "labels", "toxicity", "zeroshot")


# B21: Python without docstrings


def without_docstrings(patch: pytest.MonkeyPatch) -> None:
    flags = SimpleNamespace(optimize=2)
    patch.setattr("gotd.storage.environment.sys", SimpleNamespace(flags=flags))


@pytest.mark.parametrize("name", ["plan", "run", "export", "compare", "fetch"])
def test_a_command_that_needs_docstrings_says_so(monkeypatch, capsys, name):
    """B21: a traceback of transformers."""
    given = {
        "export": ["experiment=glue", "--out", "x"],
        "compare": ["--candidates", "x", "--budget", "2", "--model", "x"],
    }
    without_docstrings(monkeypatch)
    assert main([name, *given.get(name, ["experiment=glue"])]) == 2
    assert_one_line(capsys.readouterr().err, "models need docstrings")


def test_a_model_that_needs_docstrings_says_so(monkeypatch, tmp_path):
    without_docstrings(monkeypatch)
    # What is imported before is of no concern here.
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(AutoConfig=None))
    with pytest.raises(ValueError, match="models need docstrings"):
        load_config(tmp_path)
    method = SimpleNamespace(requires={"model"}, space=None)
    with pytest.raises(ValueError, match="models need docstrings"):
        Request([], [], method, "loss_drop", model="x")


@pytest.mark.slow
def test_a_selection_without_a_model_needs_no_docstrings(here):
    """B21: `python -OO` stopped every selection."""
    arguments = ["--target", here.target, "--candidates", here.pool, "--budget", "2"]
    arguments += ["--out", here.folder / "o", "--store", here.folder / "store"]
    arguments += ["--method", "random"]  # no function has to be compiled once more
    environment = {**os.environ, "PYTHONPATH": str(Path(gotd.__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-OO", "-m", "gotd.cli.main", "select", *map(str, arguments)],
        env=environment,
        check=True,
        timeout=120,
    )
    assert len(here.rows()) == 2


# B22: an interrupt at any time


def stop_at(name: str, patch: pytest.MonkeyPatch) -> None:
    """Let the import of a module be interrupted."""

    class Finder:
        def find_spec(self, wanted: str, *_: Any) -> None:
            if wanted == name:
                raise KeyboardInterrupt

    package, _, module = name.rpartition(".")
    patch.delattr(importlib.import_module(package), module, raising=False)
    patch.delitem(sys.modules, name, raising=False)
    patch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])


@pytest.mark.parametrize("experiment", SWEEPS)
def test_an_interrupt_while_an_experiment_is_loaded_is_one_line(experiment, monkeypatch, capsys):
    """B22: the modules were imported before anything could catch it."""
    stop_at("gotd.runs.flags", monkeypatch)
    monkeypatch.setattr(sys, "argv", [f"{experiment}.py", "task=x"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOP / "experiments" / f"{experiment}.py"), run_name="__main__")
    assert stopped.value.code == 130
    assert_one_line(capsys.readouterr().err, "gotd run: interrupted; run it again to resume")


def test_every_sweep_of_the_folder_is_tried():
    texts = {path.stem: path.read_text("utf-8") for path in (TOP / "experiments").glob("*.py")}
    assert {name for name, text in texts.items() if '["run", "experiment=' in text} == {*SWEEPS}
    assert not [name for name, text in texts.items() if "gotd.runs.sweep" in text]


@pytest.mark.parametrize(
    "module", ["gotd.cli.select_arguments", "gotd.storage.artifacts", "gotd.cli.select"]
)
def test_an_interrupt_while_a_command_is_loaded_is_one_line(module, monkeypatch, capsys):
    stop_at(module, monkeypatch)
    arguments = ["select", "--target", "t", "--candidates", "p", "--budget", "1", "--out", "o"]
    assert main(arguments) == 130
    assert_one_line(capsys.readouterr().err, "interrupted; run it again to resume")


# B37: advice that can be followed


def messages() -> Iterator[tuple[str, str]]:
    """Yield every text of the program that is no docstring, with its file."""
    for path in SOURCES.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            held = getattr(node, "body", None)
            if isinstance(held, list) and held and isinstance(held[0], ast.Expr):
                held[0].value = ast.Constant(None)  # a docstring
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value, path.relative_to(SOURCES).as_posix()


MESSAGES = [*messages()]


def said(pattern: str) -> list[tuple[str, str]]:
    """Return what a pattern finds in the messages, with the file."""
    found = re.compile(pattern)
    return [(hit, path) for text, path in MESSAGES for hit in found.findall(text)]


def test_packages_that_are_named_are_those_of_the_project():
    """B37: `pip install 'gotd[demo]'` finds nothing."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [one for names in project["optional-dependencies"].values() for one in names]
    listed = {re.split(r"[^\w.-]", one)[0] for one in [*extras, *project["dependencies"]]}
    named = said(r"pip install '?([\w.-]+)")
    assert len(named) > 4
    assert [one for one in named if one[0] not in listed] == []
    assert said(r"gotd\[") == []


def test_commands_and_options_that_are_named_exist():
    parser = command._parser()
    (subparsers,) = (one.choices for one in parser._actions if isinstance(one.choices, dict))
    options = {o for one in subparsers.values() for a in one._actions for o in a.option_strings}
    options |= {"--version", "--cfg", "--hydra-help", "--info", "--multirun"}  # of Hydra, too
    options |= {"--verify", "--porcelain"}  # of git
    words = said(r"(?:^|[^\w./`-])gotd (\w+)")
    prose = {"cannot", "needs", "reads", "and", "has"}
    assert [one for one in words if one[0] not in {*subparsers} | prose] == []
    named = said(r"(?<![\w-])(--[a-z][a-z-]+)")
    assert len(named) > 50
    assert [one for one in named if one[0] not in options] == []


def test_no_message_names_a_file_that_is_not_installed():
    """B37: `python experiments/….py` is in no wheel."""
    assert said(r"(?:experiments|docs|tests)/[\w/]+") == []


def test_modules_that_are_named_exist():
    for name, _ in said(r"python -m ([\w.]+)"):
        assert importlib.util.find_spec(name)


# C14, C17, C18, C22: values and files that nobody expects


@pytest.mark.parametrize("option", ["--store", "--out", "--weights", "--removed"])
def test_an_empty_name_is_not_the_working_folder(here, option, capsys):
    """C14: `--store ''` made its folders there."""
    with pytest.raises(SystemExit) as stopped:
        here.select(option, "")
    assert stopped.value.code == 2
    assert f"{option}: must name a file or folder" in capsys.readouterr().err


def test_an_empty_store_of_a_configuration_is_refused():
    for call in (lambda: Store(""), lambda: gotd.GOTD(store=" ")):
        with pytest.raises(ValueError, match="the store needs a name"):
            call()


@pytest.mark.parametrize("override", ["task=rte,", "task=,rte", "task=[rte", "seed=1,,2"])
def test_an_override_that_cannot_be_read_is_said_in_words(override, capsys):
    """C17: the words of Hydra's lexer."""
    assert main(["run", "experiment=glue", override]) == 2
    said = capsys.readouterr().err
    assert_one_line(said, f"{override!r} cannot be read; write name=value")
    assert "Lexer" not in said


def test_a_pattern_of_options_is_expanded():
    """C17: `ConfigLoader is not set`."""
    cells = expand(["experiment=glue", "task=glob(col*)", "selector=none", "seed=1"])
    assert [config.task.name for config, _ in cells] == ["cola"]


def test_a_help_that_hydra_lacks_is_refused(capsys):
    """C17: `--hydra-help` ended in a traceback."""
    assert main(["run", "experiment=glue", "--hydra-help"]) == 2
    assert_one_line(capsys.readouterr().err, "there is no flag --hydra-help")


def test_records_with_a_byte_order_mark_are_read(tmp_path, monkeypatch):
    """C18: an editor writes one, and the file was refused."""
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"key": "a"}\n{"key": "b"}\n')
    monkeypatch.setattr("gotd.reporting.records.validate", lambda record, _: record)
    assert [record["key"] for record in read_jsonl(path)] == ["a", "b"]


def test_a_pool_of_one_row_needs_no_transport(here):
    """C22: GOT-D raised the words of its solver."""
    pool = here.folder / "one.txt"
    pool.write_text("the dog barks\n")
    assert here.select("--budget", "1", pool=pool)[0] == 0
    assert len(here.rows()) == 1


def test_a_stored_file_that_is_cut_while_it_is_used_is_named(tmp_path):
    """C3: `Not an Arrow file`, without a name."""
    path = tmp_path / "rows-00000.arrow"
    for content in (b"", b"ARROW1\0\0"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"rows-00000\.arrow cannot be read .*; delete"):
            Rows.open(path)


@pytest.mark.parametrize("name", ["p.JSONL", "p.Csv", "p.pq", "p.ndjson"])
def test_another_spelling_of_a_suffix_is_refused_with_those_that_are_known(tmp_path, name):
    """C8, as intended: the end of a name alone decides the format, so there is one spelling."""
    (tmp_path / name).write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match=r"unknown format; use one of \.parquet.*\.jsonl"):
        named_parts([str(tmp_path / name)], Columns(), tmp_path / "record")


def test_a_full_disk_has_a_remedy_that_a_temporary_store_has(tmp_path):
    """C10: the Python API said that the next run resumes, but its store is removed."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for temporary, remedy in ((False, "it resumes"), (True, "name a store on another disk")):
        store = Store(tmp_path / str(temporary), temporary)
        with pytest.raises(ArtifactError, match=remedy):
            store.get(Step("kind", 1, "name", {}, full))


def test_the_arm_without_training_is_one_cell_at_every_budget():
    """C26: it ran once per budget."""
    overrides = ["experiment=glue", "task=cola", "selector=none", "seed=1", "budget=100,200"]
    cells = list(expand_cells(overrides)[0].values())
    assert len(cells) == 2
    assert len({cell.record.key for cell in cells}) == 1


def test_one_seed_is_no_plural():
    """C27: "1 seeds"."""
    assert [counted_seeds(1), counted_seeds(3)] == ["1 seed", "3 seeds"]


# Warnings are messages like any other


def test_a_warning_is_one_line_without_a_place_in_the_source(monkeypatch, capsys):
    """A RuntimeWarning was shown with the path and the text of a line of the source."""

    def warns(_: Any) -> None:
        warnings.warn("may hide a small\n  group of \x1b[1mtargets", RuntimeWarning, stacklevel=2)

    for handler in list(logging.getLogger().handlers):
        logging.getLogger().removeHandler(handler)  # else it keeps the stream of another test
    monkeypatch.setattr(command, "_report", warns)
    assert main(["report", "x"]) == 0
    said = capsys.readouterr().err
    assert_one_line(said, "may hide a small group of")
    assert "RuntimeWarning" not in said
    assert ".py" not in said
    assert "\x1b" not in said


def test_a_warning_outside_of_a_command_is_left_to_python():
    with warnings_logged(), pytest.warns(UserWarning, match="inner"):
        warnings.warn("inner", UserWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="outer"):
        warnings.warn("outer", UserWarning, stacklevel=1)


# C12: nobody reads the output


class Gone:
    """A pipe whose reader has gone."""

    def write(self, *_: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    flush = isatty = fileno = write


def two_selections(folder: Path) -> list[str]:
    for name in "ab":
        pq.write_table(pa.table({"id": [name], "text": ["a"]}), folder / f"{name}.parquet")
    return [str(folder / f"{name}.parquet") for name in "ab"]


@pytest.mark.parametrize("stream", [None, Gone()], ids=["closed", "gone"])
def test_a_command_that_only_prints_fails_where_nobody_reads(tmp_path, monkeypatch, stream, capsys):
    """C12: status 0, and the output was lost."""
    given = two_selections(tmp_path)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["diff", *given]) == 2
    assert_one_line(capsys.readouterr().err, "gotd diff: nobody reads the output")


@pytest.mark.parametrize("stream", [None, Gone()], ids=["closed", "gone"])
def test_a_command_that_writes_files_needs_no_reader(monkeypatch, stream):
    ran = []
    monkeypatch.setattr(command, "_report", lambda _: ran.append(sys.stdout.write("1")))
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["report", "x"]) == 0
    assert ran


def assert_one_line(printed: str, message: str) -> None:
    assert message in printed
    assert printed.count("\n") == 1
    assert "Traceback" not in printed
