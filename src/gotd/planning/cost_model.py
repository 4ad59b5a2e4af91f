"""Count the work of a step from its configuration, and what a machine needs for it.

The arithmetic is rough, but its ratios are not: how much more work one step is than
another of its kind. So `plan` scales a measured time by it wherever there is one, and
takes the bare numbers only where nothing was ever run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gotd.planning.memory import GIB, Training, training_memory
from gotd.planning.sizes import Shape, Sizes
from gotd.planning.toxicity import COUNTS
from gotd.storage.artifacts import Step
from gotd.storage.work import Work
from gotd.transport.reference import reference_size

DOMAINS = 7
"""Domains of a pool, as the paper has them; a source does not say how many it holds."""

GPU_EFFICIENCY = 0.3
"""Share of a GPU's matrix product that encoders reach; assumed, not measured here."""

CAUSAL_TOKENS = 2048
"""Tokens of a causal model's blocks that a device is taken to handle at once."""


def training_of(settings: Mapping[str, Any], rows: int) -> Training:
    """Say what decides the memory of training by a step's settings, ``rows`` at once."""
    causal = settings["class"] == "CausalLMSettings"
    return Training(
        rows=rows,
        length_tokens=settings["max_length_tokens"],
        tuning=settings["tuning"],
        weights=settings.get("weights", "float32"),
        precision="bf16" if settings["precision"] == "bf16" else "float32",
        predicted=1.0 if causal else settings["mask_probability"],
        lora_rank=settings["lora_rank"],
    )


@dataclass(frozen=True, kw_only=True)
class CostModel(Sizes):
    """Count the work of a step, and say how long this machine takes for it.

    Training multiplies and adds ``6 * weights * tokens`` times, inference ``2 * weights
    * tokens``, a transport pass over N candidates and M targets of width d ``2 M N d``.
    Training holds weights, gradients and AdamW's two moments (16 bytes a weight) and
    the activations of one device batch; the bound on those is Korthikanti et al.
    (2022), section 4.1, in float32. Sizes that a configuration does not state are
    fields of `Sizes`; downloads are not counted.
    """

    flops_per_s: float
    """Sustained rate of a large matrix product on this machine."""
    measured: str = "not here"
    """In which arithmetic and on what it was measured."""
    efficiency: float = 0.65
    """Share of it that encoders reach (processor, measured: 0.62 to 0.76)."""
    texts_per_s: float = 7_500.0
    """Texts tokenised in a second by one core (measured)."""
    seconds_per_step: float = 0.005
    """What an optimiser step costs beside its arithmetic."""
    seconds_per_stored_step: float = 0.05
    """Reading inputs, checksums, flushing to the disk."""
    runtime_gib: float = 0.8
    """The process with torch and transformers loaded (measured)."""
    transport_passes: int = 4
    """Passes over all candidates in a solve, the fit counted as one."""

    def seconds(self, work: Work) -> float:
        """Say how long this machine takes for some work; never nothing."""
        return (
            work.flops / (self.flops_per_s * self.efficiency)
            + work.texts / self.texts_per_s
            + work.steps * self.seconds_per_step
            + self.seconds_per_stored_step
        )

    def memory_gib(self, work: Work) -> float:
        """Give a bound on the memory that some work holds, with the process itself."""
        return self.runtime_gib + work.memory_bytes / 2**30

    def work(self, step: Step) -> Work | None:
        """Count the work of a step; ``None`` for a kind that is not known here."""
        if step.kind in COUNTS:
            return COUNTS[step.kind](self, step)
        count = getattr(self, f"_{step.kind}", None)
        return None if count is None else count(step)

    # One method per kind of step, named after it ----------------------------------------

    def _task(self, step: Step) -> Work:
        rows = self.labels(step) + self.reported(step)
        return Work(texts=rows, disk_bytes=rows * self.bytes_of(self.task_tokens_of(step)))

    def _candidates(self, step: Step) -> Work:
        size = self.rows(step) * self.bytes_of(self.chunk_tokens(step))
        return Work(texts=self.rows(step), memory_bytes=6 * size, disk_bytes=size)

    def _target(self, step: Step) -> Work:
        size = self.rows(step) * self.bytes_of(self.chunk_tokens(step))
        return Work(texts=self.labels(step.inputs["rows"]), disk_bytes=size)

    def _base_model(self, step: Step) -> Work:
        shape, settings = self.shape(step), step.parameters["pretraining"]
        if settings is None:
            return Work(disk_bytes=4 * shape.weights, memory_bytes=4 * shape.weights)
        source = step.parameters["source"]
        chosen = step.parameters["pretraining_rows"]
        rows = chosen["rows"] if chosen else self.documents(source, pretraining=True)
        cut = source["name"] != "microworld"
        tokens = 1_000 / self.chars_per_token if cut else self.document_tokens
        return self._language_model(shape, self.family(step), settings, rows, tokens)

    def _pre_fine_tuned(self, step: Step) -> Work:
        chosen = step.inputs["selection"]
        tokens = self.chunk_tokens(chosen.inputs["candidates"])
        shape, settings = self.shape(step), step.parameters["settings"]
        family = self.family(step)
        return self._language_model(shape, family, settings, self.rows(chosen), tokens)

    def _embeddings(self, step: Step) -> Work:
        rows, width = self.rows(step), self.width(step)
        written = 4 * width * rows
        if not _runs_network(step):
            return Work(texts=rows, memory_bytes=written, disk_bytes=written)
        shape = self.shape(step)
        length = step.parameters["max_length_tokens"]
        tokens = min(length, self.chunk_tokens(step.inputs["chunks"]))
        held = self.activations(shape, length) / shape.layers + 4 * shape.weights
        flops = 2 * shape.multiplied * rows * tokens
        return Work(rows, flops, memory_bytes=held + written, disk_bytes=written)

    def _screened(self, step: Step) -> Work:
        n, m = self.rows(step.inputs["candidates"]), self.rows(step.inputs["target"])
        n = min(n, DOMAINS * step.parameters["sample"])
        width = self.width(step.inputs["candidates_embeddings"])
        held = 4 * n * (width + m / DOMAINS)
        flops = 2 * m * n * width * self.transport_passes
        return Work(flops=flops, memory_bytes=held, disk_bytes=500)

    def _ranking(self, step: Step) -> Work:
        pool, goal = step.inputs["candidates"], step.inputs["target"]
        n, m = self.rows(pool), self.rows(goal)
        if "screened" in step.inputs:
            n *= min(1.0, step.inputs["screened"].parameters["keep"] / DOMAINS)
        texts = n * self.bytes_of(self.chunk_tokens(pool)) * 4
        disk = 30 * (step.parameters["limit"] or n)
        space = step.inputs.get("candidates_embeddings")
        if space is None:
            return Work(texts=n + m, memory_bytes=texts, disk_bytes=disk)
        width = self.width(space)
        passes = self.transport_passes if step.parameters["method"]["class"] == "GOTD" else 1
        # The embeddings are memory-mapped; what the fit holds is its sample's kernel, twice.
        held = 4 * width * (n + m) + 8 * m * reference_size(int(n), int(m))
        return Work(0.0, 2 * m * n * width * passes, 0.0, held + texts, disk)

    def _selection(self, step: Step) -> Work:
        pool = step.inputs["candidates"]
        size = self.bytes_of(self.chunk_tokens(pool))
        rows = self.rows(step)
        held = 4 * size * self.rows(pool)
        return Work(texts=rows, memory_bytes=held, disk_bytes=rows * size)

    def _predictions(self, step: Step) -> Work:
        return self._fine_tuning(step, self.reported(step.inputs["rows"]))

    def _answers(self, step: Step) -> Work:
        rows, shape = self.reported(step.inputs["rows"]), self.shape(step)
        tokens = self.task_tokens_of(step.inputs["rows"])
        # A prompt is read once for all its choices, and each of its tokens gets logits.
        flops = 2 * (shape.multiplied + shape.hidden * shape.vocabulary) * rows * tokens
        held = 4 * shape.weights + self.activations(shape, tokens) / shape.layers
        return Work(rows, flops, memory_bytes=held, disk_bytes=100 * rows)

    def _encoder(self, step: Step) -> Work:
        return self._fine_tuning(step, 0.0)

    def _record(self, _: Step) -> Work:
        return Work(disk_bytes=15_000)

    # What they share ----------------------------------------------------------------------

    def _language_model(
        self, shape: Shape, family: str, settings: Mapping[str, Any], rows: float, tokens: float
    ) -> Work:
        length = settings["max_length_tokens"]
        seen = rows * min(length, tokens) * settings["epochs"]
        # A causal model predicts every token of blocks that are full; it has no other head.
        causal = settings["class"] == "CausalLMSettings"
        batches = rows * tokens / length if causal else rows
        steps = math.ceil(batches / settings["global_batch_size"]) * settings["epochs"]
        share = 1.0
        if settings["max_steps"] is not None and steps > settings["max_steps"]:
            share = settings["max_steps"] / steps
        steps = steps * share + (0 if causal else settings["head_only_steps"])
        masked = 1.0 if causal else settings["mask_probability"]
        head = masked * shape.hidden * (shape.vocabulary + shape.hidden)
        seen = (rows * tokens * settings["epochs"] if causal else seen) * share
        logits = 12 * masked * self.batch_rows * length * shape.vocabulary
        held = 16 * shape.weights + self.activations(shape, length) + logits
        if causal:  # its blocks are long and all have logits, so fewer fit at once
            how = training_of(settings, max(1, CAUSAL_TOKENS // length))
            held = training_memory(shape, family, how).gib * GIB
        return Work(
            texts=rows,
            flops=6 * (shape.multiplied + head) * seen,
            steps=steps,
            memory_bytes=held,
            disk_bytes=4 * shape.weights,
        )

    def _fine_tuning(self, step: Step, reported: float) -> Work:
        rows, settings = step.inputs["rows"], step.parameters["settings"]
        shape, length = self.shape(step), settings["max_length_tokens"]
        labels, epochs = self.labels(rows), settings["epochs"]
        tokens = min(length, self.task_tokens_of(rows))
        held_out = self.chosen_on(rows) * epochs
        return Work(
            texts=labels + held_out + reported,
            flops=shape.multiplied * tokens * (6 * labels * epochs + 2 * (held_out + reported)),
            steps=math.ceil(labels / settings["global_batch_size"]) * epochs,
            memory_bytes=16 * shape.weights + self.activations(shape, length),
            disk_bytes=4 * shape.weights if step.kind == "encoder" else 40 * reported,
        )


def _runs_network(embeddings: Step) -> bool:
    fields = embeddings.parameters
    return fields["model"] != "hashed" and fields["pooling"] != "token_mean"


def this_machine(seconds: float = 0.2) -> CostModel:
    """Time a large matrix product where training would run: the GPU, else the processor.

    Args:
        seconds: How long to multiply.
    """
    import torch

    gpu = torch.cuda.is_available()
    side, number = (8192, torch.bfloat16) if gpu else (1024, torch.float32)
    left = torch.ones(side, side, dtype=number, device="cuda" if gpu else "cpu")
    right = torch.ones_like(left)

    def multiply() -> None:
        torch.mm(left, right)
        if gpu:
            torch.cuda.synchronize()

    multiply()  # the first one also loads kernels and starts threads
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        multiply()
        done += 1
    rate = 2.0 * side**3 * done / (time.perf_counter() - began)
    if gpu:
        on = "bfloat16 on the GPU"
        return CostModel(flops_per_s=rate, measured=on, efficiency=GPU_EFFICIENCY)
    return CostModel(flops_per_s=rate, measured="float32 on the processor")
