"""Count the work of the toxicity experiment's steps, for `gotd.planning.cost_model`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from gotd.planning.sizes import Sizes
from gotd.storage.artifacts import Step
from gotd.storage.work import Work

PROMPT_TOKENS = 16
COMMENT_TOKENS = 64
COMMENTS = 10_000
"""Labelled comments of a source that does not say how many it has."""

UTILITY_ROWS, UTILITY_CHOICES, UTILITY_TOKENS = 3_000, 3, 150
"""What a utility task asks, about, where nothing limits it."""


def toxicity_rows(model: Sizes, step: Step) -> Work:
    """Read the rated texts, keep some."""
    task = step.parameters["task"]
    kept = 2 * (task["prompts_per_kind"] + task["target_rows"]) + task["held_out_rows"]
    return Work(texts=5 * kept, disk_bytes=200 * kept)


def scorer(model: Sizes, step: Step) -> Work:
    """Train a classifier on comments."""
    shape, settings = model.shape(step), step.parameters["settings"]
    rows = step.parameters["source"].get("comments", COMMENTS)
    seen = rows * settings["epochs"]
    return Work(
        texts=rows,
        flops=6 * shape.multiplied * min(COMMENT_TOKENS, settings["max_length_tokens"]) * seen,
        steps=math.ceil(rows / settings["global_batch_size"]) * settings["epochs"],
        memory_bytes=16 * shape.weights + model.activations(shape, settings["max_length_tokens"]),
        disk_bytes=4 * shape.weights,
    )


def pool_scores(model: Sizes, step: Step) -> Work:
    """Read every candidate with the scorer."""
    chunks = step.inputs["candidates"]
    return _reading(model, step, model.rows(chunks), model.chunk_tokens(chunks))


def generations(model: Sizes, step: Step) -> Work:
    """Write every continuation: one forward pass a token."""
    settings = step.parameters["settings"]
    prompts = _prompts(step)
    written = prompts * settings["samples"] * settings["max_new_tokens"]
    shape = model.shape(step)
    head = written * shape.hidden * shape.vocabulary
    work = _reading(model, step, 1.0, prompts * PROMPT_TOKENS + written)
    return replace(work, flops=work.flops + 2 * head, disk_bytes=4.0 * written)


def scores(model: Sizes, step: Step) -> Work:
    """Read every continuation with the scorer."""
    settings = step.inputs["generations"].parameters["settings"]
    texts = _prompts(step) * settings["samples"]
    return _reading(model, step, texts, settings["max_new_tokens"] + 2)


def perplexity(model: Sizes, step: Step) -> Work:
    """Read held-out text, with a head at every token."""
    shape = model.shape(step)
    texts = step.inputs["rows"].parameters["task"]["held_out_rows"]
    tokens = texts * 2 * model.document_tokens
    work = _reading(model, step, texts, 2 * model.document_tokens)
    return replace(work, flops=work.flops + 2 * tokens * shape.hidden * shape.vocabulary)


def utility(model: Sizes, step: Step) -> Work:
    """Read the choices of each task's rows."""
    settings = step.parameters["settings"]
    texts = len(settings["tasks"]) * (settings["rows"] or UTILITY_ROWS) * UTILITY_CHOICES
    return _reading(model, step, texts, UTILITY_TOKENS)


COUNTS: dict[str, Callable[[Sizes, Step], Work]] = {
    count.__name__: count
    for count in (
        toxicity_rows,
        scorer,
        pool_scores,
        generations,
        scores,
        perplexity,
        utility,
    )
}
"""By kind of step."""


def _prompts(step: Step) -> int:
    return 2 * step.inputs["rows"].parameters["task"]["prompts_per_kind"]


def _reading(model: Sizes, step: Step, texts: float, tokens: float) -> Work:
    shape = model.shape(step)
    return Work(
        texts=texts,
        flops=2 * shape.multiplied * texts * tokens,
        memory_bytes=4 * shape.weights + model.activations(shape, 128) / shape.layers,
        disk_bytes=12 * texts,
    )
