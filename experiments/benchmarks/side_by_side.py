"""Shared code of the benchmarks: contenders run in turns, and results become two files.

Each contender runs in a process of its own, which is forked once the inputs are in memory. All
are pinned to the same core and have one thread. They run in turns, so other load on the machine
affects all of them. What one imports or compiles does not affect the others. Ratios are of
processor seconds: on an idle core they equal the wall clock, and on a busy one they hardly
change.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
}

OVERLAPS = (1, 5, 10)


class Unavailable(RuntimeError):  # noqa: N818 -- says what happened
    """A contender that cannot run here; the message is shown in its row."""


@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Args:
        name: Name in tables.
        prepare: Runs once in the contender's process: imports, compiles, makes a small first
            call, and returns the call that is timed.
        needs: Modules without which the contender is left out.
    """

    name: str
    prepare: Callable[[], Callable[[], Any]]
    needs: tuple[str, ...] = ()


@dataclass
class Outcome:
    """Measurements of one contender.

    Args:
        prepare_s: Seconds of imports, compilation and warm-up; in no ratio.
        wall_s: Wall-clock seconds of each round it took part in.
        core_s: Processor seconds of the same rounds.
        peak_mib: Peak memory of the first round above what was held before it.
        value: What the call returned in the first round.
        reason: Why it did not run, or did not finish.
    """

    prepare_s: float | None = None
    wall_s: list[float] = field(default_factory=list)
    core_s: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    value: Any = None
    reason: str = ""

    def row(self) -> dict[str, Any]:
        """Return the measured part for a results file."""
        return {
            "median_core_s": statistics.median(self.core_s) if self.core_s else None,
            "median_wall_s": statistics.median(self.wall_s) if self.wall_s else None,
            "core_s": self.core_s,
            "wall_s": self.wall_s,
            "prepare_s": self.prepare_s,
            "peak_mib": self.peak_mib,
            "reason": self.reason,
        }


class Turn(NamedTuple):
    """Report of a contender's process on one round."""

    wall_s: float
    core_s: float
    peak_mib: float | None
    value: Any


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="processor seconds after which one sits out"
    )
    parser.add_argument("--core", type=int, default=None, help="core to pin to; default the last")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--name", default=Path(sys.argv[0]).stem, help="name of the result files")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    return parser


def pin(core: int | None, cores: int = 1) -> None:
    """Limit this process and its children to a core, and every library to one thread.

    Args:
        core: Which; the last ``cores`` allowed ones when ``None``.
        cores: How many, for a contender that has several one-threaded workers.
    """
    os.environ.update(ONE_THREAD)
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(allowed[-cores:]) if core is None else {core})
    threadpool_limits(1)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def take_turns(contenders: Sequence[Contender], rounds: int, limit_s: float) -> dict[str, Outcome]:
    """Run all contenders in turns, and return the measurements of each.

    Every other round runs in reverse order. A contender that has used up ``limit_s``
    processor seconds skips the other rounds.
    """
    fork = multiprocessing.get_context("fork")
    outcomes = {contender.name: Outcome() for contender in contenders}
    running: dict[str, tuple[Any, Connection]] = {}
    for contender in contenders:
        absent = [module for module in contender.needs if find_spec(module) is None]
        if absent:
            _leave_out(outcomes, contender.name, f"{', '.join(absent)} not installed")
            continue
        here, there = fork.Pipe()
        process = fork.Process(target=_serve, args=(contender, there))
        process.start()
        there.close()
        answer = _ask(here)
        if isinstance(answer, str):
            _leave_out(outcomes, contender.name, answer)
        else:
            outcomes[contender.name].prepare_s = answer
            running[contender.name] = process, here
    for number in range(rounds):
        for name in sorted(running, key=list(running).index, reverse=bool(number % 2)):
            outcome = outcomes[name]
            if outcome.reason or sum(outcome.core_s) > limit_s:
                continue
            running[name][1].send(True)
            turn = _ask(running[name][1])
            if isinstance(turn, str):
                _leave_out(outcomes, name, turn)
                continue
            outcome.wall_s.append(turn.wall_s)
            outcome.core_s.append(turn.core_s)
            if number == 0:
                outcome.peak_mib, outcome.value = turn.peak_mib, turn.value
            print(f"round {number + 1}: {name}: {turn.core_s:.3f} core-s", flush=True)
    for process, pipe in running.values():
        if process.is_alive():
            pipe.send(False)
        process.join()
    return outcomes


def _leave_out(outcomes: dict[str, Outcome], name: str, reason: str) -> None:
    outcomes[name].reason = reason
    print(f"left out: {name}: {reason}", flush=True)


def _ask(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        return "its process died"


def _serve(contender: Contender, pipe: Connection) -> None:
    """Prepare, then run once per request."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
    try:
        started = time.perf_counter()
        run = contender.prepare()
        pipe.send(time.perf_counter() - started)
        first = True
        while pipe.recv():
            before = _reset_peak()
            cores, started = time.process_time(), time.perf_counter()
            value = run()
            wall, cores = time.perf_counter() - started, time.process_time() - cores
            peak = None if before is None else memory_mib("VmHWM") - before
            pipe.send(Turn(wall, cores, peak, value if first else None))
            first = False
    except Exception as error:  # noqa: BLE001 -- whatever a peer raises becomes its row
        told = str(error).strip().partition("\n")[0]
        pipe.send(told if isinstance(error, Unavailable) else f"{type(error).__name__}: {told}")


def _reset_peak() -> float | None:
    """Forget the peak of this process's memory and return what it holds, in MiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return memory_mib("VmRSS")
    except OSError:
        return None


def memory_mib(name: str) -> float:
    """Return a size of this process in MiB, by its name in ``/proc``, such as ``VmRSS``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def ratio(slower: Outcome, faster: Outcome, clock: str = "core_s") -> dict[str, float] | None:
    """Compare two contenders round by round: median, least and most.

    Args:
        slower: Whose seconds are divided.
        faster: By whose seconds.
        clock: ``core_s`` or ``wall_s``.
    """
    pairs = zip(getattr(slower, clock), getattr(faster, clock), strict=False)
    found = [theirs / ours for theirs, ours in pairs if ours > 0]
    if not found:
        return None
    return {"median": statistics.median(found), "least": min(found), "most": max(found)}


def fidelity(potential: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Compare two rankings of the same rows, lowest first.

    Returns:
        ``spearman``, and for k of 1, 5 and 10 % of the rows ``top_k``: the share of
        the exact k smallest that are also among the k smallest here.
    """
    ranks = rankdata(potential), rankdata(exact)
    measured = {"spearman": float(np.corrcoef(*ranks)[0, 1])}
    orders = np.argsort(potential, kind="stable"), np.argsort(exact, kind="stable")
    for percent in OVERLAPS:
        k = max(1, len(exact) * percent // 100)
        common = np.intersect1d(orders[0][:k], orders[1][:k])
        measured[f"top_{percent}"] = len(common) / k
    return measured


def mixture(
    n: int, targets: Sequence[int], width: int, seed: int, clusters: int = 40
) -> list[np.ndarray]:
    """Draw candidates and targets from a mixture that resembles embeddings.

    Clusters lie about a common direction, each with scales of its own along a
    decaying spectrum; every set has its own weights of them. Rows have unit length.

    Args:
        n: Candidates.
        targets: Rows of each target.
        width: Columns.
        seed: Of all of it.
        clusters: Components of the mixture.

    Returns:
        ``[n, width]`` candidates and each ``[m, width]`` target, float32.
    """
    random = np.random.default_rng(seed)
    spectrum = (1.0 + np.arange(width)) ** -0.4
    spectrum /= np.linalg.norm(spectrum)
    common = random.standard_normal(width) * spectrum
    centres = 0.8 * common + random.standard_normal((clusters, width)) * spectrum
    scales = spectrum * random.lognormal(-0.4, 0.5, (clusters, width))
    centres, scales = centres.astype(np.float32), scales.astype(np.float32)
    sets = []
    for rows, concentration in ((n, 1.0), *((m, 0.4) for m in targets)):
        weights = random.dirichlet(np.full(clusters, concentration))
        owner = random.choice(clusters, size=rows, p=weights)
        points = random.standard_normal((rows, width), dtype=np.float32)
        points *= scales[owner]
        points += centres[owner]
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        sets.append(points)
    return sets


def describe_machine(distributions: Sequence[str]) -> dict[str, Any]:
    """Return hardware and versions; call it before anything runs.

    Args:
        distributions: Packages whose versions belong to the result.
    """
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in info if "model name" in line), "unknown")
    flags = next((line.split() for line in info if line.startswith("flags")), [])
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = {}
    for name in ("numpy", *distributions):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": model,
        "extensions": [name for name in ("avx2", "avx512f", "avx512_bf16") if name in flags],
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": versions,
    }


def command() -> str:
    """Return the command line without paths of this machine."""
    typed = ["experiments/benchmarks/" + Path(sys.argv[0]).name]
    words = iter(sys.argv[1:])
    for word in words:
        if word == "--out":
            next(words, None)
        elif not word.startswith("--out="):
            typed.append(word)
    return ("DATA=… " if os.environ.get("DATA") else "") + "python " + " ".join(typed)


def claim(says: str, measured: float | None, wanted: float, at_most: bool = False) -> dict:
    """Return a claim and whether it holds; unknown when not measured."""
    holds = None
    if measured is not None:
        holds = measured <= wanted if at_most else measured >= wanted
    sign = "≤" if at_most else "≥"
    return {"says": says, "measured": measured, "wanted": f"{sign} {wanted:g}", "holds": holds}


def number(value: Any, digits: int = 3) -> str:
    """Format a number with the given significant digits; empty if it was not measured."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return f"{number(value['median'])} ({number(value['least'])}–{number(value['most'])})"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Format rows as Markdown, empty where a value is ``None``."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return lines + ["| " + " | ".join(map(number, row)) + " |" for row in rows]


def claims_table(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format the claims as Markdown."""
    answer = {True: "yes", False: "**no**", None: ""}
    rows = [[c["says"], number(c["measured"], 4), c["wanted"], answer[c["holds"]]] for c in claims]
    return table(["claim", "measured", "wanted", "holds"], rows)


def write(
    arguments: argparse.Namespace, result: dict[str, Any], title: str, body: Sequence[str]
) -> None:
    """Write ``<name>.json`` and ``<name>.md``, and print the page."""
    machine = result["hardware"]
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    rest = ", ".join(
        f"{key.replace('_', ' ')} {value}" for key, value in machine.items() if key != "versions"
    )
    foot = [
        "",
        f"Machine: {rest}.",
        "",
        f"Versions: {versions}.",
        "",
        f"Seeds: {result['seeds']}. Command: `{result['command']}`",
        "",
    ]
    page = "\n".join([f"# {title}", "", *body, *foot])
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (arguments.out / f"{arguments.name}.json").write_text(text + "\n", encoding="utf-8")
    (arguments.out / f"{arguments.name}.md").write_text(page, encoding="utf-8")
    print(page)
