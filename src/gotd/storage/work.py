"""The work of a step, from which its time, memory and disk space are estimated."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What a step does, in units of a machine."""

    texts: float = 0.0
    """Texts read, cut or tokenised."""
    flops: float = 0.0
    """Floating-point operations in matrix products."""
    steps: float = 0.0
    """Optimiser steps."""
    memory_bytes: float = 0.0
    """Most that it holds at once, the process itself not counted."""
    disk_bytes: float = 0.0
    """What it leaves behind."""
