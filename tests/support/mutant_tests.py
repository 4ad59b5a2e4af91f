"""Which tests execute a line, and a process that runs some of them on changed code.

The process imports torch and the other packages once. Each run is a fork of it, so only this
project's own modules are imported again. Before the mutants, each file of tests runs once under
coverage; what it says is kept in ``build/mutants`` until the program or the file changes.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import json
import os
import py_compile
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
SOURCES = TOP / "src" / "gotd"
BUILD = TOP / "build" / "mutants"
TREE = BUILD / "tree"
"""A copy of the project; mutants change its ``src``."""
COPIED = ("src", "conf", "tests", "experiments", "docs", ".ci", "README.md", "Makefile")
PACKAGES = ("evaluation", "training", "data", "pipeline")
"""Packages that are changed; the fast tests first."""
FIRST = {"pipeline": "cli"}
"""Folder of the first tests, where it is not that of the package: the commands' are short."""
OTHERS = ("cli", "planning", "pipeline", "faults", "data", "training", "evaluation")
"""Folders of tests for what the first ones leave, in this order."""
TEST_SECONDS = 60
"""A test of the fast suite takes three; one that takes this long never ends."""
MOST_BYTES = 8 << 30
"""Memory and file size of a run: a changed size must not take the whole machine."""
ARCHITECTURES = ("bert", "distilbert", "gpt2", "llama", "roberta")
PRELOADED = [f"transformers.models.{name}.modeling_{name}" for name in ARCHITECTURES]
PRELOADED += ["datasets", "detoxify", "hypothesis", "sklearn.feature_extraction.text"]
"""What tests import and the program does not."""
SETUP = "setup"
"""Stands for all tests of a file: they share what a fixture made."""
LIST_MODULES = """
import importlib, pkgutil, sys, gotd
for module in pkgutil.walk_packages(gotd.__path__, "gotd."):
    importlib.import_module(module.name)
print(*(name for name in sys.modules if name.split(".")[0] not in ("gotd", "__main__")))
"""


@dataclass
class TestFile:
    """What one file of tests executes.

    Args:
        key: Digest of the program and the file.
        seconds: For each test that passes, the processor time of it and of what it starts.
        lines: For each module and line, the tests that execute it; ``""`` is an import, and
            ``SETUP`` a fixture.
    """

    __test__ = False
    key: str
    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)


class Watch:
    """A plugin that selects and orders tests, and notes how each ends."""

    def __init__(self, wanted: list[str] | None, coverage: Any = None) -> None:
        self.wanted, self.coverage = wanted, coverage
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self.skipped: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the wanted tests, in the wanted order."""
        if self.wanted is not None:
            by_name = {item.nodeid: item for item in items}
            items[:] = [by_name[name] for name in self.wanted if name in by_name]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        """Measure a test; attribute its lines to it, those of its fixtures to the whole file."""
        if self.coverage is not None:
            self.coverage.switch_context(SETUP)
        began = sum(os.times()[:4])
        result = yield
        self.seconds[item.nodeid] = sum(os.times()[:4]) - began
        if self.coverage is not None:
            self.coverage.switch_context("")
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Begin the lines of the test itself."""
        if self.coverage is not None:
            self.coverage.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failure."""
        if report.failed:
            self.failed.append(report.nodeid)
        if report.skipped:
            self.skipped.append(report.nodeid)


def copy_project() -> None:
    """Make the copy again, and compile it so that each fork reads bytecode."""
    BUILD.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(TREE, ignore_errors=True)
    leave_out = shutil.ignore_patterns("__pycache__", ".hypothesis")
    for name in COPIED:
        copy = shutil.copytree if (TOP / name).is_dir() else shutil.copy
        named = {"ignore": leave_out} if (TOP / name).is_dir() else {}
        TREE.mkdir(exist_ok=True)
        copy(TOP / name, TREE / name, **named)  # pyright: ignore[reportArgumentType]
    shutil.copy(TOP / "pyproject.toml", TREE)
    (TREE / "results").symlink_to(TOP / "results")
    checked = py_compile.PycInvalidationMode.CHECKED_HASH
    for module in (TREE / "src").rglob("*.py"):
        py_compile.compile(str(module), doraise=True, invalidation_mode=checked)


def warm_up() -> None:
    """Import what the program imports, but not the program."""
    source = str(TREE / "src")
    own = {
        "PYTHONPATH": source,
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "OMP_NUM_THREADS": "1",
        "NUMBA_CACHE_DIR": str(BUILD / "numba"),
    }
    os.environ.update(own)
    sys.dont_write_bytecode = True
    sys.path.insert(0, source)
    names = BUILD / "modules.txt"
    if not names.exists():
        command = [sys.executable, "-c", LIST_MODULES]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        names.write_text(found.stdout, "utf-8")
    for name in [*names.read_text("utf-8").split(), *PRELOADED]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert not any(name.split(".")[0] == "gotd" for name in sys.modules)
    os.chdir(TREE)


def run_tests(files: list[str], wanted: list[str] | None, **options: Any) -> dict[str, Any]:
    """Run tests in a fork; return ``status``, ``failed``, ``seconds`` and ``lines``.

    Args:
        files: Files of tests, in order.
        wanted: Names of the tests in their order; ``None`` for all that are not slow.
        options: ``covered`` to record lines, and ``limit`` in seconds.
    """
    answer = BUILD / "answer.json"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        _run_in_child(files, wanted, answer, options.get("covered", False))
    ends = time.monotonic() + options.get("limit", 900.0)
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > ends:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"status": "timed out", "failed": [], "seconds": {}, "lines": {}}
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    if not answer.exists():
        return {"status": "died", "failed": [], "seconds": {}, "lines": {}}
    return json.loads(answer.read_text("utf-8"))


def _run_in_child(files: list[str], wanted: list[str] | None, answer: Path, covered: bool) -> None:
    for kind in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (MOST_BYTES, MOST_BYTES))
    log = os.open(BUILD / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    coverage = None
    if covered:
        from coverage import Coverage

        sources = [str(TREE / "src" / "gotd" / name) for name in PACKAGES]
        coverage = Coverage(data_file=None, source=sources, config_file=False)
        coverage.start()
    watch = Watch(wanted, coverage)
    given = ["-q", "-m", "not slow and not gpu", "-p", "no:cacheprovider", "--no-header"]
    given += [f"--timeout={TEST_SECONDS}", f"--basetemp={BUILD / 'tmp'}"]
    given += [] if covered else ["-x"]
    status: Any = int(pytest.main([*given, *files], plugins=[watch]))
    lines = {}
    if coverage is not None:
        coverage.stop()
        lines = _lines_of(coverage.get_data())
    seconds = {k: v for k, v in watch.seconds.items() if k not in watch.skipped}
    found = {"failed": watch.failed, "seconds": seconds, "lines": lines}
    part = answer.with_suffix(".part")
    part.write_text(json.dumps({"status": status, **found}), "utf-8")
    part.rename(answer)
    os._exit(0)


def _lines_of(data: Any) -> dict[str, dict[str, list[str]]]:
    found = {}
    for name in data.measured_files():
        module = Path(name).relative_to(TREE / "src" / "gotd").as_posix()
        found[module] = {str(line): who for line, who in data.contexts_by_lineno(name).items()}
    return found


def digest_of(*paths: Path, top: Path = TOP) -> str:
    """Return the digest of files and of the modules in folders, with their names below ``top``."""
    digest = hashlib.sha256()
    for path in paths:
        for one in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(one.relative_to(top).as_posix().encode() + b"\0" + one.read_bytes())
    return digest.hexdigest()[:16]


def digest_of_text(text: str) -> str:
    """Return the digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def test_files(folder: str) -> dict[str, TestFile]:
    """Return what each file of tests of a folder executes; run those that changed."""
    program, found = digest_of(SOURCES), {}
    paths = [TREE / "tests" / "storage" / "test_keys.py"]
    paths += sorted((TREE / "tests" / folder).rglob("test_*.py"))
    for path in paths:
        shared = [one / "conftest.py" for one in path.parents if (one / "conftest.py").exists()]
        key = digest_of_text(program + digest_of(path, *shared, top=TREE))
        kept, name = BUILD / f"{key}.json", path.relative_to(TREE).as_posix()
        if not kept.exists():
            began = time.monotonic()
            answer = run_tests([name], None, covered=True)
            if answer["status"] not in (0, 1, 5):  # passed, failed, none: as pytest says
                sys.exit(f"{name} cannot be run ({answer['status']}): see {BUILD / 'log.txt'}")
            failed, seconds = answer["failed"], answer["seconds"]
            passed = {test: took for test, took in seconds.items() if test not in failed}
            text = json.dumps({"seconds": passed, "lines": answer["lines"]})
            kept.write_text(text, "utf-8")
            took = f"{time.monotonic() - began:.0f} s"
            unused = f", not used: {' '.join(failed)}" if failed else ""
            print(f"{name}: {len(passed)} tests, {took}{unused}", flush=True)
        found[name] = TestFile(key, **json.loads(kept.read_text("utf-8")))
    return found


def executed_with(code: str, line: int) -> range:
    """Return the lines whose tests see a change of a line; none if all of the module may.

    These are the lines of its statement. For a default or a decorator, they are the body. A
    constant, a class or a function whose results are kept runs once, and many tests use it.
    """
    inside: list[ast.stmt] = []
    statements = ast.parse(code).body
    while statements:
        around = [one for one in statements if _first(one) <= line <= (one.end_lineno or 0)]
        inside += around[:1]
        statements = [*_blocks(around[0])] if around else []
    functions = [one for one in inside if isinstance(one, ast.FunctionDef)]
    if not functions:
        return range(0)
    decorators = [decorator for one in functions for decorator in one.decorator_list]
    if any("cache" in ast.unparse(decorator) for decorator in decorators):
        return range(0)
    last = inside[-1]
    body = next(_blocks(last), None)
    if isinstance(last, ast.FunctionDef):
        return range(last.body[0].lineno, _last(last))
    return range(last.lineno, max(body.lineno, last.lineno + 1) if body else _last(last))


def _first(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(one.lineno for one in decorators)])


def _last(statement: ast.stmt) -> int:
    return (statement.end_lineno or statement.lineno) + 1


def _blocks(statement: ast.stmt) -> Iterator[ast.stmt]:
    for name in ("body", "handlers", "orelse", "finalbody", "cases"):
        for one in getattr(statement, name, []):
            if isinstance(one, ast.stmt):
                yield one
            else:
                yield from one.body
