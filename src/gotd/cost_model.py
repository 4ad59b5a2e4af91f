"""Count the work of a stage from its configuration, and what a machine needs for it.

The arithmetic is rough, but its ratios are not: how much more work one stage is than
another of its kind. So `plan` scales a measured time by it wherever there is one, and
takes the bare numbers only where nothing was ever run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gotd.artifacts import Stage
from gotd.cost_sizes import Shape, Sizes, Work
from gotd.cost_toxicity import COUNTS
from gotd.memory_model import GIB, Training, training_memory
from gotd.transport.reference import reference_size

DOMAINS = 7
"""Domains of a pool, as the paper has them; a source does not say how many it holds."""

GPU_EFFICIENCY = 0.3
"""Share of a GPU's matrix product that encoders reach; assumed, not measured here."""

CAUSAL_TOKENS = 2048
"""Tokens of a causal model's blocks that a device is taken to handle at once."""


def training_of(settings: Mapping[str, Any], rows: int) -> Training:
    """Say what decides the memory of training by a stage's settings, ``rows`` at once."""
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
    """Count the work of a stage, and say how long this machine takes for it.

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
    seconds_per_stage: float = 0.05
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
            + self.seconds_per_stage
        )

    def memory_gib(self, work: Work) -> float:
        """Give a bound on the memory that some work holds, with the process itself."""
        return self.runtime_gib + work.memory_bytes / 2**30

    def work(self, stage: Stage) -> Work | None:
        """Count the work of a stage; ``None`` for a kind that is not known here."""
        if stage.kind in COUNTS:
            return COUNTS[stage.kind](self, stage)
        count = getattr(self, f"_{stage.kind}", None)
        return None if count is None else count(stage)

    # One method per kind of stage, named after it ----------------------------------------

    def _task(self, stage: Stage) -> Work:
        rows = self.labels(stage) + self.reported(stage)
        return Work(texts=rows, disk_bytes=rows * self.bytes_of(self.task_tokens_of(stage)))

    def _candidates(self, stage: Stage) -> Work:
        size = self.rows(stage) * self.bytes_of(self.chunk_tokens(stage))
        return Work(texts=self.rows(stage), memory_bytes=6 * size, disk_bytes=size)

    def _target(self, stage: Stage) -> Work:
        size = self.rows(stage) * self.bytes_of(self.chunk_tokens(stage))
        return Work(texts=self.labels(stage.inputs["rows"]), disk_bytes=size)

    def _base_model(self, stage: Stage) -> Work:
        shape, settings = self.shape(stage), stage.parameters["pretraining"]
        if settings is None:
            return Work(disk_bytes=4 * shape.weights, memory_bytes=4 * shape.weights)
        source = stage.parameters["source"]
        chosen = stage.parameters["pretraining_rows"]
        rows = chosen["rows"] if chosen else self.documents(source, pretraining=True)
        cut = source["name"] != "microworld"
        tokens = 1_000 / self.chars_per_token if cut else self.document_tokens
        return self._language_model(shape, self.family(stage), settings, rows, tokens)

    def _pre_fine_tuned(self, stage: Stage) -> Work:
        chosen = stage.inputs["selection"]
        tokens = self.chunk_tokens(chosen.inputs["candidates"])
        shape, settings = self.shape(stage), stage.parameters["settings"]
        family = self.family(stage)
        return self._language_model(shape, family, settings, self.rows(chosen), tokens)

    def _embeddings(self, stage: Stage) -> Work:
        rows, width = self.rows(stage), self.width(stage)
        written = 4 * width * rows
        if not _runs_network(stage):
            return Work(texts=rows, memory_bytes=written, disk_bytes=written)
        shape = self.shape(stage)
        length = stage.parameters["max_length_tokens"]
        tokens = min(length, self.chunk_tokens(stage.inputs["chunks"]))
        held = self.activations(shape, length) / shape.layers + 4 * shape.weights
        flops = 2 * shape.multiplied * rows * tokens
        return Work(rows, flops, memory_bytes=held + written, disk_bytes=written)

    def _screened(self, stage: Stage) -> Work:
        n, m = self.rows(stage.inputs["candidates"]), self.rows(stage.inputs["target"])
        n = min(n, DOMAINS * stage.parameters["sample"])
        width = self.width(stage.inputs["candidates_embeddings"])
        held = 4 * n * (width + m / DOMAINS)
        flops = 2 * m * n * width * self.transport_passes
        return Work(flops=flops, memory_bytes=held, disk_bytes=500)

    def _ranking(self, stage: Stage) -> Work:
        pool, goal = stage.inputs["candidates"], stage.inputs["target"]
        n, m = self.rows(pool), self.rows(goal)
        if "screened" in stage.inputs:
            n *= min(1.0, stage.inputs["screened"].parameters["keep"] / DOMAINS)
        texts = n * self.bytes_of(self.chunk_tokens(pool)) * 4
        disk = 30 * (stage.parameters["limit"] or n)
        space = stage.inputs.get("candidates_embeddings")
        if space is None:
            return Work(texts=n + m, memory_bytes=texts, disk_bytes=disk)
        width = self.width(space)
        passes = self.transport_passes if stage.parameters["method"]["class"] == "GOTD" else 1
        # The embeddings are memory-mapped; what the fit holds is its sample's kernel, twice.
        held = 4 * width * (n + m) + 8 * m * reference_size(int(n), int(m))
        return Work(0.0, 2 * m * n * width * passes, 0.0, held + texts, disk)

    def _selection(self, stage: Stage) -> Work:
        pool = stage.inputs["candidates"]
        size = self.bytes_of(self.chunk_tokens(pool))
        rows = self.rows(stage)
        held = 4 * size * self.rows(pool)
        return Work(texts=rows, memory_bytes=held, disk_bytes=rows * size)

    def _predictions(self, stage: Stage) -> Work:
        return self._fine_tuning(stage, self.reported(stage.inputs["rows"]))

    def _answers(self, stage: Stage) -> Work:
        rows, shape = self.reported(stage.inputs["rows"]), self.shape(stage)
        tokens = self.task_tokens_of(stage.inputs["rows"])
        # A prompt is read once for all its choices, and each of its tokens gets logits.
        flops = 2 * (shape.multiplied + shape.hidden * shape.vocabulary) * rows * tokens
        held = 4 * shape.weights + self.activations(shape, tokens) / shape.layers
        return Work(rows, flops, memory_bytes=held, disk_bytes=100 * rows)

    def _encoder(self, stage: Stage) -> Work:
        return self._fine_tuning(stage, 0.0)

    def _record(self, _: Stage) -> Work:
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

    def _fine_tuning(self, stage: Stage, reported: float) -> Work:
        rows, settings = stage.inputs["rows"], stage.parameters["settings"]
        shape, length = self.shape(stage), settings["max_length_tokens"]
        labels, epochs = self.labels(rows), settings["epochs"]
        tokens = min(length, self.task_tokens_of(rows))
        held_out = self.chosen_on(rows) * epochs
        return Work(
            texts=labels + held_out + reported,
            flops=shape.multiplied * tokens * (6 * labels * epochs + 2 * (held_out + reported)),
            steps=math.ceil(labels / settings["global_batch_size"]) * epochs,
            memory_bytes=16 * shape.weights + self.activations(shape, length),
            disk_bytes=4 * shape.weights if stage.kind == "encoder" else 40 * reported,
        )


def _runs_network(embeddings: Stage) -> bool:
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
