"""Randomness as a function of a seed, a role and a step, never of what ran before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class TrainingSeeds:
    """Seeds of one training run, one for each role of chance.

    Args:
        order: Order of the rows.
        masking: Masked tokens and dropout.
        initialisation: Weights that the base model lacks: heads, adapters.
    """

    order: int
    masking: int
    initialisation: int

    @classmethod
    def derive(cls, seed: int) -> TrainingSeeds:
        """Return the seeds of a run that has a single one.

        The roles stay independent, since `gotd.storage.seeds.derive_seed` hashes the role.
        """
        return cls(seed, seed, seed)


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
    """Provide deterministic kernels to the block; restore them and the generators afterwards."""
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
