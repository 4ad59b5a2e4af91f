"""Randomness that is a function of a seed, a role and a step, never of what ran before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import torch


def seed_for(seed: int, role: str, *numbers: int) -> int:
    """Derive the seed of one role, at one step, from a run's seed.

    A hash, so that roles and steps are independent and a resumed run needs no
    generator state: the draw of step 700 is a function of (seed, role, 700).

    Returns:
        A seed in [0, 2^63).
    """
    words = "\x00".join([role, str(seed), *map(str, numbers)])
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "little") >> 1


def seed_generators(seed: int) -> None:
    """Seed torch's generators that exist here.

    ``torch.manual_seed`` also queues a call, with a stack trace, for every absent
    accelerator: 2 ms at each step, and memory that is never given back.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)


@contextmanager
def isolated_randomness() -> Iterator[None]:
    """Let the block seed torch and choose deterministic kernels; restore both afterwards."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    deterministic: Any = torch.utils.deterministic
    fill = deterministic.fill_uninitialized_memory
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        if torch.cuda.is_available():
            # CPU kernels are deterministic already, and the switch would slow them.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
            deterministic.fill_uninitialized_memory = fill
