"""Change one place of the code at a time, and see whether the tests of its package fail.

``python tests/support/mutants.py [--sample 200] [--seed 0] [--only TEXT]`` prints the score, and
each survivor with its difference. The changed code is a copy; the working tree stays as it is.
Mutants that cannot be told from the program are listed in ``tests/mutants.toml`` with the reason.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

TOP = Path(__file__).parents[2]
SOURCES = TOP / "src" / "gotd"
PACKAGES = ("pipeline", "data", "training", "evaluation")
LISTED = TOP / "tests" / "mutants.toml"
LEFT_OUT = ("VariableReplacer", "VariableInserter", "_Is", "_IsNot", "Shift", "BitXor", "_Pow")
"""Operators that need arguments, or whose changes no author makes by mistake."""
SECONDS = int(os.environ.get("MUTANT_SECONDS", "600"))
"""Seconds for the tests of one mutant; one that takes longer is killed (an endless loop)."""


@dataclass(frozen=True)
class Mutant:
    """One changed place.

    Args:
        module: Path of the module in the package, such as ``data/pool.py``.
        operator: Name of the kind of change.
        occurrence: Which place of this kind in the module, from 0.
        line: Its line.
    """

    module: str
    operator: str
    occurrence: int
    line: int

    def changed(self) -> str:
        """Return the changed code of the module."""
        code = (SOURCES / self.module).read_text("utf-8")
        return mutate_code(code, get_operator(self.operator)(), self.occurrence) or code

    def difference(self) -> tuple[str, str]:
        """Return the lines that are removed and added, without blanks around them."""
        old = (SOURCES / self.module).read_text("utf-8").splitlines()
        changes = [*difflib.ndiff(old, self.changed().splitlines())]
        return tuple(
            "\n".join(line[2:].strip() for line in changes if line.startswith(sign))
            for sign in "-+"
        )  # pyright: ignore[reportReturnType]


def annotations(code: str) -> list[tuple[int, int, int, int]]:
    """Return where types stand; they are never evaluated."""
    found = []
    for node in ast.walk(ast.parse(code)):
        for name in ("annotation", "returns"):
            if (place := getattr(node, name, None)) is not None:
                ends = (place.end_lineno, place.end_col_offset)
                found.append((place.lineno, place.col_offset, *ends))
    return found


def places(module: Path) -> Iterator[tuple[tuple[int, int], Mutant]]:
    """Yield place and mutant of each change of a module."""
    code = module.read_text("utf-8")
    types, tree = annotations(code), get_ast(code)
    for name in operator_names():
        if name.endswith(LEFT_OUT) or any(part in name for part in LEFT_OUT):
            continue
        operator = get_operator(name)()
        positions = (
            start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)
        )
        for occurrence, start in enumerate(positions):
            if not any(a <= start <= b for *_, a, b in _spans(types)):
                where = module.relative_to(SOURCES).as_posix()
                yield start, Mutant(where, name, occurrence, start[0])


def _spans(types: list[tuple[int, int, int, int]]) -> Iterator[tuple[tuple[int, int], ...]]:
    return (((one[0], one[1]), (one[2], one[3])) for one in types)


def drawn(most: int, seed: int, only: str) -> list[Mutant]:
    """Return a seeded sample: places first, then one change of each place."""
    chance = random.Random(seed)
    by_place: dict[tuple[str, int, int], list[Mutant]] = defaultdict(list)
    for package in PACKAGES:
        for module in sorted((SOURCES / package).rglob("*.py")):
            for start, mutant in places(module):
                by_place[(mutant.module, *start)].append(mutant)
    keys = sorted(key for key in by_place if only in key[0])
    return [chance.choice(by_place[key]) for key in chance.sample(keys, min(most, len(keys)))]


def tests_of(module: str) -> list[str]:
    """Return the tests to run: those of the module's name first, then its package, then keys."""
    stem, package = Path(module).stem, module.split("/")[0]
    folder = Path("tests") / package
    first = [path.as_posix() for path in sorted((TOP / folder).rglob(f"test_{stem}.py"))]
    return [*first, str(TOP / folder), str(TOP / "tests" / "storage" / "test_keys.py")]


def outcome_of(mutant: Mutant, copy: Path) -> str:
    """Run the tests on the changed code; return ``killed``, ``survived`` or ``timed out``."""
    target = copy / "src" / "gotd" / mutant.module
    target.write_text(mutant.changed(), "utf-8")
    options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--no-header"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *tests_of(mutant.module)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return "survived" if process.wait(SECONDS) == 0 else "killed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "timed out"
    finally:
        shutil.copy(SOURCES / mutant.module, target)


def listed() -> set[tuple[str, str, str]]:
    """Return module, old and new lines of each mutant that is listed as equivalent."""
    entries = tomllib.loads(LISTED.read_text("utf-8")).get("equivalent", [])
    return {(one["module"], one["before"].strip(), one["after"].strip()) for one in entries}


def main() -> int:
    """Run the sample and print what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a module's path")
    options = parser.parse_args()
    known, ended = listed(), Counter()
    mutants = drawn(options.sample, options.seed, options.only)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(TOP / "src", copy / "src")
        for name in ("conf", "experiments", "results", "docs", "tests", "README.md"):
            (copy / name).symlink_to(TOP / name)
        shutil.copy(TOP / "pyproject.toml", copy)
        for mutant in mutants:
            old, new = mutant.difference()
            began, name = time.perf_counter(), f"{mutant.module}:{mutant.line} {mutant.operator}"
            if (mutant.module, old, new) in known:
                outcome = "equivalent"
            else:
                outcome = outcome_of(mutant, copy)
            ended[outcome] += 1
            print(f"{outcome:10} {name} ({time.perf_counter() - began:.0f} s)", flush=True)
            if outcome == "survived":
                print(f"    - {old}\n    + {new}", flush=True)
    killed = ended["killed"] + ended["timed out"]
    tried = killed + ended["survived"]
    print(
        f"{killed} of {tried} killed ({killed / max(tried, 1):.0%}), {ended['timed out']} of them "
        f"by time, {ended['equivalent']} listed as equivalent, seed {options.seed}"
    )
    return 0 if killed >= 0.9 * tried else 1


if __name__ == "__main__":
    sys.exit(main())
