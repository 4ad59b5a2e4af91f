"""Change one place of the code at a time, and see whether the tests that execute it fail.

``python tests/support/mutants.py [--sample 200] [--seed 0] [--only TEXT]`` prints the score, and
each survivor with its difference. The changed code is a copy; the working tree stays as it is.
Mutants that cannot be told from the program are listed in ``tests/mutants.toml`` with the reason.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from mutant_tests import (
    BUILD,
    FIRST,
    OTHERS,
    PACKAGES,
    SETUP,
    SOURCES,
    TOP,
    TREE,
    TestFile,
    copy_project,
    digest_of,
    digest_of_text,
    executed_with,
    run_tests,
    test_files,
    warm_up,
)

LISTED = TOP / "tests" / "mutants.toml"
LEFT_OUT = ("VariableReplacer", "VariableInserter", "_Is", "_IsNot", "Shift", "BitXor", "_Pow")
"""Operators that need arguments, or whose changes no author makes by mistake."""
SECONDS = int(os.environ.get("MUTANT_SECONDS", "30"))
"""Seconds that the tests of one mutant take on unchanged code, at most."""


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
    types, nodes = annotations(code), [*ast_nodes(get_ast(code))]
    for name in operator_names():
        if name.endswith(LEFT_OUT) or any(part in name for part in LEFT_OUT):
            continue
        operator = get_operator(name)()
        positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
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


def tests_of(mutant: Mutant, files: dict[str, TestFile]) -> dict[str, list[str]]:
    """Return for each file the tests that execute the changed place, the nearest file first.

    The files named after the module come first, then those of its package, then the others; in
    each, the short tests first. They end when they would take ``SECONDS`` on unchanged code.
    """
    lines = executed_with((SOURCES / mutant.module).read_text("utf-8"), mutant.line)
    found = {name: who for name, one in files.items() if (who := _who(one, mutant.module, lines))}
    if any("" in who for who in found.values()) or not lines:
        every = {name: _who(one, mutant.module, range(0)) for name, one in files.items()}
        called = any(who - {""} for who in every.values())
        found = {k: who - {""} if called else who | {SETUP} for k, who in every.items() if who}
    chosen: dict[str, list[str]] = {}
    near = partial(_distance, mutant.module)
    for name in sorted(found, key=lambda name: (near(name), sum(files[name].seconds.values()))):
        seconds = files[name].seconds
        chosen[name] = [*(seconds if SETUP in found[name] else found[name] & seconds.keys())]
        chosen[name].sort(key=seconds.__getitem__)
    left = SECONDS
    for name, tests in chosen.items():
        ends = [*accumulate(files[name].seconds[test] for test in tests)]
        chosen[name] = [test for test, end in zip(tests, ends, strict=True) if end <= left]
        left -= max([end for end in ends if end <= left], default=0)
    return {name: tests for name, tests in chosen.items() if tests}


def _who(one: TestFile, module: str, lines: range) -> set[str]:
    executed = one.lines.get(module, {})
    return {who for n, names in executed.items() if not lines or int(n) in lines for who in names}


def _distance(module: str, name: str) -> int:
    path = Path(module)
    if Path(name).stem in (f"test_{path.stem}", f"test_{path.parent.name}_{path.stem}"):
        return 0
    return 1 if Path(name).parts[1] == path.parts[0] or name.endswith("test_keys.py") else 2


def outcome_of(mutant: Mutant, chosen: dict[str, list[str]]) -> tuple[str, str]:
    """Run the tests on the changed code.

    Returns:
        ``killed``, ``survived`` or ``timed out``, and the test that failed.
    """
    while chosen:
        target = TREE / "src" / "gotd" / mutant.module
        target.write_text(mutant.changed(), "utf-8")
        wanted = [test for tests in chosen.values() for test in tests]
        answer = run_tests([*chosen], wanted, limit=120 + 5 * SECONDS)
        shutil.copy(SOURCES / mutant.module, target)
        if answer["status"] == "timed out":
            return "timed out", ""
        if answer["status"] in (0, 5):
            return "survived", ""
        failed = next(iter(answer["failed"]), "")
        if failed not in wanted or passes_alone(failed):
            return "killed", failed or str(answer["status"])
        for tests in chosen.values():
            if failed in tests:
                tests.remove(failed)
        chosen = {name: tests for name, tests in chosen.items() if tests}
    return "survived", ""


@cache
def passes_alone(test: str) -> bool:
    """Return whether a test passes on the unchanged code without the others."""
    return run_tests([test.split("::")[0]], [test])["status"] == 0


def listed() -> set[tuple[str, str, str]]:
    """Return module, old and new lines of each mutant that is listed as equivalent."""
    entries = tomllib.loads(LISTED.read_text("utf-8")).get("equivalent", [])
    return {(one["module"], one["before"].strip(), one["after"].strip()) for one in entries}


class Outcomes:
    """Outcomes of mutants, kept in a file so that a run that was killed goes on."""

    def __init__(self) -> None:
        self.file = BUILD / "outcomes.jsonl"
        self.file.touch()
        self.known: dict[str, list[dict[str, str]]] = defaultdict(list)
        for line in self.file.read_text("utf-8").splitlines():
            self.known[json.loads(line)["change"]].append(json.loads(line))

    def of(
        self, mutant: Mutant, tests: dict[str, list[str]], files: dict[str, TestFile]
    ) -> tuple[str, str]:
        """Return outcome and killing test; run the tests if it may have changed.

        A mutant stays killed while its module is the same and the test still passes without it.
        """
        wanted = [f"{files[name].key} {test}" for name, names in tests.items() for test in names]
        module = digest_of(SOURCES / mutant.module)
        change, key = digest_of_text(f"{mutant} {module}"), digest_of_text("\n".join(wanted))
        for one in self.known[change]:
            if one["tests"] == key or any(one["by"] in names for names in tests.values()):
                return one["outcome"], one["by"]
        outcome, by = outcome_of(mutant, tests)
        one = {"change": change, "tests": key, "outcome": outcome, "by": by}
        self.known[change].append(one)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")
        return outcome, by


def ended(mutants: list[Mutant]) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with its outcome; outcomes of an earlier run are read, not repeated.

    The tests of its own package come first; what is left meets one other folder after another.
    """
    copy_project()
    warm_up()
    known, earlier = listed(), Outcomes()
    equivalent = [one for one in mutants if (one.module, *one.difference()) in known]
    yield from ((one, "equivalent") for one in equivalent)
    left = [one for one in mutants if one not in equivalent]
    left.sort(key=lambda one: PACKAGES.index(one.module.split("/")[0]))
    for folder in ("", *OTHERS):
        survivors = []
        for number, mutant in enumerate(left, 1):
            package = mutant.module.split("/")[0]
            first = FIRST.get(package, package)
            if folder == first:
                survivors.append(mutant)
                continue
            files, began = test_files(folder or first), time.monotonic()
            tests = tests_of(mutant, files)
            outcome, by = earlier.of(mutant, tests, files)
            took = f"{time.monotonic() - began:.0f} s, {sum(map(len, tests.values()))} tests"
            name = f"{mutant.module}:{mutant.line} {mutant.operator.removeprefix('core/')}"
            print(f"{number}/{len(left)} {outcome} {name} ({took}) {by}", flush=True)
            if outcome == "survived":
                survivors.append(mutant)
            else:
                yield mutant, outcome
        left = survivors
    for one in left:
        print(f"survived: {one.module}:{one.line}", *one.difference(), sep="\n    ", flush=True)
    yield from ((one, "survived") for one in left)


def main() -> int:
    """Run the sample and print what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a module's path")
    options = parser.parse_args()
    mutants = drawn(options.sample, options.seed, options.only)
    counts = Counter(outcome for _, outcome in ended(mutants))
    killed = counts["killed"] + counts["timed out"]
    tried = killed + counts["survived"]
    print(
        f"{killed} of {tried} killed ({killed / max(tried, 1):.1%}), {counts['timed out']} of them "
        f"by time, {counts['equivalent']} listed as equivalent, seed {options.seed}"
    )
    return 0 if killed >= 0.9 * tried else 1


if __name__ == "__main__":
    sys.exit(main())
