"""The work of a step, in units that do not depend on the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What a step does; `gotd plan` converts it to seconds and memory of a machine."""

    texts: float = 0.0
    """Texts read, cut or tokenised."""
    flops: float = 0.0
    """Floating-point operations in matrix products."""
    steps: float = 0.0
    """Optimiser steps."""
    memory_bytes: float = 0.0
    """Peak memory beside that of the process itself."""
    disk_bytes: float = 0.0
    """Bytes that remain on disk."""
