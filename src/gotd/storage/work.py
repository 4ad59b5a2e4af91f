"""The work of a step, in units that do not depend on the machine."""

from __future__ import annotations

from dataclasses import dataclass

from gotd.storage.shapes import Shape


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
    rate: str = "read"
    """What sets the speed: a measured time says something about steps of equal kind and rate."""

    # What the steps that read this one need.
    rows: float = 0.0
    """Rows that the step writes; of a task, those to train on or to select for."""
    evaluated: float = 0.0
    """Rows of a task that a model is evaluated on."""
    tokens: float = 0.0
    """Tokens of such a row."""
    width: int = 0
    """Numbers of such a row, of embeddings."""
    shape: Shape | None = None
    """Sizes of the network that the step writes."""


BATCH_TOKENS = 4096
"""Positions that are read at once."""


def reading_work(shape: Shape, texts: float, tokens: float, logits: float = 0.0) -> Work:
    """Return the work of running a network over texts, with a number or two kept of each.

    Args:
        shape: The network.
        texts: How many texts.
        tokens: Tokens of each.
        logits: Share of the tokens that get logits over the vocabulary.
    """
    head = logits * shape.hidden * shape.vocabulary
    held = 2 * shape.hidden + 3 * max(shape.feed_forward, shape.heads * tokens)
    return Work(
        texts=texts,
        flops=2 * (shape.multiplied + head) * texts * tokens,
        memory_bytes=4 * (shape.weights + BATCH_TOKENS * held),
        disk_bytes=12 * texts,
        rate=f"read {shape.label}",
        rows=texts,
        tokens=tokens,
    )
