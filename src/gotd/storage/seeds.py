"""One seed for each role of chance, derived from the seed of a run."""

from __future__ import annotations

from hashlib import blake2b

ROLES = ("data", "selection", "training_order", "masking", "initialisation", "generation")
"""The roles of a cell; every one is in its record."""


def derive_seed(seed: int, role: str, *numbers: int) -> int:
    """Derive the seed of one role, at one step, from the seed of a run.

    A hash, so that roles and steps are independent, and a resumed run needs no state of a
    generator: the draw of step 700 is a function of (seed, role, 700).

    Returns:
        A seed in [0, 2^63).
    """
    words = "\x00".join([role, str(seed), *map(str, numbers)])
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "little") >> 1


def derive_seeds(seed: int) -> dict[str, int]:
    """Derive the seed of every role of a cell.

    Args:
        seed: The seed of the cell.
    """
    return {role: derive_seed(seed, role) for role in ROLES}
