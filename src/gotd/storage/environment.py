"""What a number was measured on: hardware, versions of packages, commit, peak memory."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gotd._version import __version__

_PACKAGES = (
    "torch",
    "transformers",
    "pytorch-lightning",
    "tokenizers",
    "datasets",
    "peft",
    "numpy",
    "pyarrow",
    "POT",
)


@cache
def versions() -> dict[str, str]:
    """Return the versions that can change a number; absent packages are left out."""
    numbers = {"python": platform.python_version(), "gotd": __version__}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            numbers[package.lower()] = version(package)
    return numbers


@cache
def code() -> dict[str, Any]:
    """Return the commit of the checkout and whether files differ from it.

    The result is empty if gotd was installed from a wheel, or if git is absent or fails.
    """
    top = Path(__file__).resolve().parents[3]
    if not (top / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(top), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        sha = git("rev-parse", "--verify", "HEAD")
        changed = git("status", "--porcelain", "--", "src", "conf", "experiments")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"git_sha": sha, "git_dirty": bool(changed)}


@cache
def hardware() -> dict[str, Any]:
    """Return the processor, usable cores, memory in GiB and the GPU, if there is one."""
    import torch

    cpu = _system_value("/proc/cpuinfo", "model name")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def _system_value(path: str, name: str) -> str | None:
    """Return the first value of a name in a file of ``/proc``, if there is one."""
    with suppress(OSError):
        text = Path(path).read_text(errors="replace")
        if value := re.search(rf"^{name}\s*:(.*)$", text, re.MULTILINE):
            return value[1].strip()
    return None


def check_docstrings() -> None:
    """Raise if Python dropped the docstrings, from which `transformers` makes its models.

    Raises:
        ValueError: If Python runs with ``-OO``.
    """
    if sys.flags.optimize > 1:
        raise ValueError(
            "models need docstrings, which python -OO (PYTHONOPTIMIZE=2) drops; run Python "
            "without it, or with -O"
        )


COLLECTING_SHARE = 0.05
"""Most of the time that goes into collecting garbage: a collection takes tenths of a second."""


@dataclass
class _Collection:
    """The last collection of garbage: when it ended, and how long it took."""

    ended_s: float = -math.inf
    took_s: float = 0.0


# The start of the process counts as one that took .15 s, so that a small selection has none.
_collection = _Collection(ended_s=time.perf_counter(), took_s=0.15)


def return_memory() -> None:
    """Collect garbage, and return freed memory to the system where the C library keeps it (glibc).

    A trained network and the moments of its optimiser are in cycles of references. CPython
    collects those that have survived for a while only after a quarter as many new objects as
    there are, so networks of many stages pile up. Of what is freed the allocator keeps the pages.
    """
    began = time.perf_counter()
    if began - _collection.ended_s >= _collection.took_s / COLLECTING_SHARE:
        gc.collect()
        _collection.ended_s = time.perf_counter()
        _collection.took_s = _collection.ended_s - began
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Find the function of the C library; ``None`` on a system without it."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # musl and macOS; Windows has no such library
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return trim


def use_threads(threads: int | None) -> None:
    """Let torch use so many threads; ``None``: as many as before."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def reset_peak_memory() -> None:
    """Reset the peak of resident memory, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_gib() -> float:
    """Return the peak of resident memory since the last reset, in GiB.

    Where it cannot be reset (not Linux), it is the peak of the whole process.
    """
    if peak := _system_value("/proc/self/status", "VmHWM"):
        return round(int(peak.split()[0]) / 2**20, 3)
    scale = 2**30 if platform.system() == "Darwin" else 2**20
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale, 3)
